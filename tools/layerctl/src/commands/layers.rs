//! `layerctl layers`: the layers of an image, or of the whole store.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Session;
use crate::inspect::{self, Contents, Kind, Layer, Subject, Target, short_step};
use crate::names::short;
use crate::template::Template;
use crate::{output, units};

const TABLE: &str = "table {{.Number}}\\t{{.DiffID}}\\t{{.ChainID}}\\t{{.Driver}}\\t{{.Size}}\\t\
                     {{.Shared}}\\t{{.Disk}}\\t{{.Users}}\\t{{.CreatedBy}}";
const HEADINGS: &[(&str, &str)] = &[
    ("Number", "#"),
    ("DiffID", "DIFF ID"),
    ("ChainID", "CHAIN ID"),
    ("Disk", "ON DISK"),
    ("CreatedBy", "CREATED BY"),
];
/// How much of a step the table shows.
const STEP_WIDTH: usize = 60;

/// List the layers of an image, lowest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A template: {{.Number}} {{.DiffID}} {{.ChainID}} {{.Parent}} {{.Driver}} {{.Size}}
    /// {{.Shared}} {{.Disk}} {{.Users}} {{.Files}} {{.CreatedSince}} {{.CreatedBy}}, `table ...`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print ids and steps in full
    #[arg(long)]
    no_trunc: bool,
    /// An image, layer or container, or an archive
    #[arg(value_name = "IMAGE")]
    target: String,
}

/// The report.
#[derive(Debug, Serialize)]
struct Report {
    kind: Kind,
    name: String,
    id: Option<String>,
    /// Bytes of file content in all layers.
    size: u64,
    /// Bytes of those that more than one image has.
    shared: u64,
    layers: Vec<LayerReport>,
}

#[derive(Debug, Serialize)]
struct LayerReport {
    #[serde(flatten)]
    layer: Layer,
    /// Bytes of file content in it.
    size: u64,
    /// The same, if more than one image has it.
    shared: u64,
    on_disk: Option<u64>,
    files: u64,
    dirs: u64,
    others: u64,
    whiteouts: u64,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = Template::parse(args.format.as_deref().unwrap_or(TABLE))?;
    let subject = inspect::open(session, &Target::parse(&args.target)?)?;
    let report = gather(&subject)?;
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = report.layers.iter().map(|layer| row(layer, args.no_trunc)).collect();
    output::lines(&mut out, &template, HEADINGS, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn gather(subject: &Subject) -> anyhow::Result<Report> {
    let stack = subject.stack(Contents::Skip)?;
    let layers = subject.layers.iter().zip(stack.layers()).map(|(layer, index)| {
        let (size, counts) = (index.content_size(), index.counts());
        LayerReport {
            size,
            shared: if layer.images.len() > 1 { size } else { 0 },
            on_disk: layer.on_disk(),
            files: counts.files,
            dirs: counts.dirs,
            others: counts.others,
            whiteouts: counts.whiteouts,
            layer: layer.clone(),
        }
    });
    let layers: Vec<_> = layers.collect();
    Ok(Report {
        kind: subject.kind,
        name: subject.name.clone(),
        id: subject.id.clone(),
        size: layers.iter().map(|layer| layer.size).sum(),
        shared: layers.iter().map(|layer| layer.shared).sum(),
        layers,
    })
}

fn row(report: &LayerReport, full: bool) -> Value {
    let layer = &report.layer;
    let id = |id: &Option<String>| match id {
        Some(id) if full => id.clone(),
        Some(id) => short(id).to_owned(),
        None => "-".to_owned(),
    };
    let drivers: Vec<_> = layer.kept.iter().map(|kept| kept.driver.as_str()).collect();
    let driver = match &layer.blob {
        Some(blob) => blob.compression.clone(),
        None => drivers.join(","),
    };
    let step = layer.step.as_ref();
    let created_by = step.map(|step| short_step(&step.created_by)).unwrap_or_default();
    json!({
        "Number": layer.number,
        "DiffID": id(&layer.diff_id),
        "ChainID": id(&layer.chain_id),
        "Parent": id(&layer.parent),
        "Driver": driver,
        "Size": units::size(report.size),
        "Shared": units::size(report.shared),
        "Disk": report.on_disk.map_or_else(|| "-".to_owned(), units::size),
        "Users": layer.images.len() + layer.containers.len(),
        "Files": report.files,
        "CreatedSince": units::ago(step.and_then(|step| step.created.as_deref())),
        "CreatedBy": if full { created_by } else { cut(&created_by, STEP_WIDTH) },
    })
}

/// The beginning of a text, with a mark where it goes on.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_steps_are_cut() {
        for (text, expected) in
            [("short", "short"), ("12345678", "12345678"), ("123456789", "1234567…")]
        {
            assert_eq!(cut(text, 8), expected, "{text}");
        }
    }
}
