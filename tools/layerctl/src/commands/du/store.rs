//! The space of the whole store, from figures that are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use layerd_api::{Container, ImageSummary, LayerSummary};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Session;
use crate::names::{familiar, short};
use crate::template::Template;
use crate::{output, units};

/// The report. Bytes are allocated ones, as the file system counts them, unless said otherwise.
#[derive(Debug, Serialize)]
struct Report {
    /// What all layers take.
    layers_bytes: u64,
    /// What the changes of all containers take.
    containers_bytes: u64,
    /// What layers take that no container uses: what `prune -a` would free.
    reclaimable: u64,
    images: Vec<ImageSpace>,
    containers: Vec<ContainerSpace>,
    layers: Vec<LayerSpace>,
}

#[derive(Debug, Serialize)]
struct ImageSpace {
    name: String,
    id: String,
    /// Bytes of file content in its layers.
    size: u64,
    /// What its layers take.
    bytes: u64,
    /// What those of its layers take that other images have as well.
    shared: u64,
    /// What removing it alone would free.
    exclusive: u64,
    /// How many containers use it.
    containers: usize,
}

#[derive(Debug, Serialize)]
struct ContainerSpace {
    name: String,
    id: String,
    image: String,
    /// What its changes take.
    bytes: u64,
    inodes: u64,
}

#[derive(Debug, Serialize)]
struct LayerSpace {
    chain_id: String,
    diff_id: String,
    drivers: Vec<String>,
    /// Bytes of file content in it.
    size: u64,
    bytes: u64,
    images: usize,
    containers: usize,
}

pub(super) fn run(
    session: &Session,
    verbose: bool,
    template: Option<&Template>,
) -> anyhow::Result<ExitCode> {
    let client = &session.context()?.client;
    let mut containers = Vec::new();
    for container in client.containers(true)? {
        let usage = client.container_usage(&container.id)?;
        containers.push(container_space(container, usage));
    }
    let report = gather(&client.images()?, &client.layers()?, containers);
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(template) = template {
        let headings = [("Bytes", "ON DISK")];
        output::lines(&mut out, template, &headings, &rows(&report, verbose))?;
        return Ok(ExitCode::SUCCESS);
    }
    render(&mut out, &report, verbose)?;
    Ok(ExitCode::SUCCESS)
}

fn render(out: &mut impl std::io::Write, report: &Report, verbose: bool) -> anyhow::Result<()> {
    let total = |kind: &str, count: usize, bytes: u64, reclaimable: Option<u64>| {
        json!({
            "Kind": kind,
            "Count": count,
            "Bytes": units::size(bytes),
            "Reclaimable": reclaimable.map_or_else(String::new, units::size),
        })
    };
    let totals = [
        total("layers", report.layers.len(), report.layers_bytes, Some(report.reclaimable)),
        total("containers", report.containers.len(), report.containers_bytes, None),
    ];
    table(out, "{{.Kind}}\\t{{.Count}}\\t{{.Bytes}}\\t{{.Reclaimable}}", &totals)?;
    let images: Vec<_> = report.images.iter().map(image_row).collect();
    let format =
        "{{.Image}}\\t{{.ID}}\\t{{.Size}}\\t{{.Bytes}}\\t{{.Shared}}\\t{{.Exclusive}}\\t{{.Users}}";
    section(out, format, &images)?;
    let containers: Vec<_> = report.containers.iter().map(container_row).collect();
    section(out, "{{.Container}}\\t{{.ID}}\\t{{.Image}}\\t{{.Bytes}}", &containers)?;
    if verbose {
        let layers: Vec<_> = report.layers.iter().map(layer_row).collect();
        section(out, "{{.Layer}}\\t{{.Driver}}\\t{{.Size}}\\t{{.Bytes}}\\t{{.Users}}", &layers)?;
    }
    Ok(())
}

/// Everything that has space, a row each with the same fields.
fn rows(report: &Report, verbose: bool) -> Vec<Value> {
    let row = |kind: &str, name: &str, id: &str, users: usize, sizes: [Option<u64>; 4]| {
        let [size, bytes, shared, exclusive] =
            sizes.map(|size| size.map_or_else(|| "-".to_owned(), units::size));
        json!({
            "Kind": kind,
            "Name": name,
            "ID": short(id),
            "Size": size,
            "Bytes": bytes,
            "Shared": shared,
            "Exclusive": exclusive,
            "Users": users,
        })
    };
    let images = report.images.iter().map(|image| {
        let sizes = [image.size, image.bytes, image.shared, image.exclusive].map(Some);
        row("image", &image.name, &image.id, image.containers, sizes)
    });
    let containers = report.containers.iter().map(|container| {
        let sizes = [None, Some(container.bytes), None, Some(container.bytes)];
        row("container", &container.name, &container.id, 0, sizes)
    });
    let layers = report.layers.iter().filter(|_| verbose).map(|layer| {
        let sizes = [Some(layer.size), Some(layer.bytes), None, None];
        let users = layer.images + layer.containers;
        row("layer", &layer.drivers.join(","), &layer.chain_id, users, sizes)
    });
    images.chain(containers).chain(layers).collect()
}

fn table(out: &mut impl std::io::Write, format: &str, rows: &[Value]) -> anyhow::Result<()> {
    output::lines(out, &Template::parse(&format!("table {format}"))?, &[("Bytes", "ON DISK")], rows)
}

/// A table below others; left out when it is empty.
fn section(out: &mut impl std::io::Write, format: &str, rows: &[Value]) -> anyhow::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    table(out, format, rows)
}

fn gather(
    images: &[ImageSummary],
    layers: &[LayerSummary],
    containers: Vec<ContainerSpace>,
) -> Report {
    let by_chain: BTreeMap<&str, &LayerSummary> =
        layers.iter().map(|layer| (layer.chain_id.as_str(), layer)).collect();
    let image_space = |image: &ImageSummary| {
        let chains: BTreeSet<&str> = image.layers.iter().map(String::as_str).collect();
        let own = || chains.iter().filter_map(|chain| by_chain.get(chain).copied());
        let sum = |layers: &mut dyn Iterator<Item = &LayerSummary>| layers.map(bytes).sum();
        let all: u64 = sum(&mut own());
        let shared: u64 = sum(&mut own().filter(|layer| layer.images.len() > 1));
        let users = containers.iter().filter(|container| container.image == image.id);
        ImageSpace {
            name: image.names.first().map_or("<none>", |name| familiar(name)).to_owned(),
            id: image.id.clone(),
            size: image.size,
            bytes: all,
            shared,
            exclusive: all - shared,
            containers: users.count(),
        }
    };
    Report {
        layers_bytes: layers.iter().map(bytes).sum(),
        containers_bytes: containers.iter().map(|container| container.bytes).sum(),
        reclaimable: layers.iter().filter(|layer| layer.containers.is_empty()).map(bytes).sum(),
        images: images.iter().map(image_space).collect(),
        layers: layers.iter().map(layer_space).collect(),
        containers,
    }
}

/// What a layer takes in all drivers together.
fn bytes(layer: &LayerSummary) -> u64 {
    layer.kept.iter().map(|kept| kept.usage.bytes).sum()
}

fn layer_space(layer: &LayerSummary) -> LayerSpace {
    LayerSpace {
        chain_id: layer.chain_id.clone(),
        diff_id: layer.diff_id.clone(),
        drivers: layer.kept.iter().map(|kept| kept.driver.clone()).collect(),
        size: layer.size,
        bytes: bytes(layer),
        images: layer.images.len(),
        containers: layer.containers.len(),
    }
}

fn container_space(container: Container, usage: layerd_api::Usage) -> ContainerSpace {
    ContainerSpace {
        name: container.name,
        id: container.id,
        image: container.image,
        bytes: usage.bytes,
        inodes: usage.inodes,
    }
}

fn image_row(image: &ImageSpace) -> Value {
    json!({
        "Image": image.name,
        "ID": short(&image.id),
        "Size": units::size(image.size),
        "Bytes": units::size(image.bytes),
        "Shared": units::size(image.shared),
        "Exclusive": units::size(image.exclusive),
        "Users": image.containers,
    })
}

fn container_row(container: &ContainerSpace) -> Value {
    json!({
        "Container": container.name,
        "ID": short(&container.id),
        "Image": short(&container.image),
        "Bytes": units::size(container.bytes),
    })
}

fn layer_row(layer: &LayerSpace) -> Value {
    json!({
        "Layer": short(&layer.chain_id),
        "Driver": layer.drivers.join(","),
        "Size": units::size(layer.size),
        "Bytes": units::size(layer.bytes),
        "Users": layer.images + layer.containers,
    })
}

#[cfg(test)]
mod tests {
    use layerd_api::{KeptLayer, Usage};

    use super::*;

    fn layer(chain: &str, bytes: u64, images: &[&str], containers: &[&str]) -> LayerSummary {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let usage = Usage { bytes, inodes: 1 };
        let kept = KeptLayer { driver: "vfs".to_owned(), layer: "1".to_owned(), usage };
        LayerSummary {
            chain_id: chain.to_owned(),
            diff_id: chain.to_owned(),
            parent: None,
            size: bytes / 2,
            tar_size: bytes,
            kept: vec![kept],
            images: own(images),
            containers: own(containers),
        }
    }

    fn image(id: &str, layers: &[&str]) -> ImageSummary {
        ImageSummary {
            id: id.to_owned(),
            names: Vec::new(),
            created: None,
            size: 0,
            driver: "vfs".to_owned(),
            drivers: Vec::new(),
            platform: String::new(),
            layers: layers.iter().map(|layer| (*layer).to_owned()).collect(),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn space_is_shared_out() {
        let layers = [
            layer("base", 100, &["a", "b"], &["c"]),
            layer("a2", 10, &["a"], &["c"]),
            layer("b2", 1, &["b"], &[]),
        ];
        let container = ContainerSpace {
            name: "c".to_owned(),
            id: "c".to_owned(),
            image: "a".to_owned(),
            bytes: 7,
            inodes: 1,
        };
        let images = [image("a", &["base", "a2"]), image("b", &["base", "b2"])];
        let report = gather(&images, &layers, vec![container]);
        assert_eq!((report.layers_bytes, report.containers_bytes), (111, 7));
        assert_eq!(report.reclaimable, 1, "what no container stands on");
        let spaces: Vec<_> = report
            .images
            .iter()
            .map(|image| (image.bytes, image.shared, image.exclusive, image.containers))
            .collect();
        assert_eq!(spaces, [(110, 100, 10, 1), (101, 100, 1, 0)]);
    }
}
