//! `layerctl layers`: the layers of an image, or of the whole store.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::listing::Full;
use crate::context::Session;
use crate::inspect::{self, Contents, Kind, Layer, Subject, Target, short_step};
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

/// List the layers of an image, lowest first, or all of the store, each before those that lie on it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A template: {{.Number}} {{.DiffID}} {{.ChainID}} {{.Parent}} {{.Driver}} {{.Size}}
    /// {{.Shared}} {{.Disk}} {{.Users}} {{.Files}} {{.CreatedSince}} {{.CreatedBy}}, `table ...`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    #[command(flatten)]
    full: Full,
    /// An image, layer or container, or an archive; all layers of the store without it
    #[arg(value_name = "IMAGE")]
    target: Option<String>,
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

/// A layer and its space, which is known without looking at its files.
#[derive(Debug, Serialize)]
struct LayerSpace {
    #[serde(flatten)]
    layer: Layer,
    /// Bytes of file content in it.
    size: u64,
    /// The same, if more than one image has it.
    shared: u64,
    on_disk: Option<u64>,
}

#[derive(Debug, Serialize)]
struct LayerReport {
    #[serde(flatten)]
    space: LayerSpace,
    files: u64,
    dirs: u64,
    others: u64,
    whiteouts: u64,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = Template::parse(args.format.as_deref().unwrap_or(TABLE))?;
    let (rows, json) = match &args.target {
        Some(target) => {
            let report = gather(&inspect::open(session, &Target::parse(target)?)?)?;
            let rows =
                report.layers.iter().map(|layer| row(&layer.space, Some(layer.files), args.full));
            (rows.collect::<Vec<_>>(), serde_json::to_value(&report)?)
        }
        None => {
            let layers = inspect::all_layers(&session.context()?.client)?;
            let layers = layers.into_iter().map(|(layer, size)| LayerSpace::new(layer, size));
            let layers: Vec<_> = layers.collect();
            let rows = layers.iter().map(|layer| row(layer, None, args.full)).collect();
            (rows, serde_json::to_value(&layers)?)
        }
    };
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &json)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::lines(&mut out, &template, HEADINGS, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn gather(subject: &Subject) -> anyhow::Result<Report> {
    let stack = subject.stack(Contents::Skip)?;
    let layers = subject.layers.iter().zip(stack.layers()).map(|(layer, index)| {
        let (size, counts) = (index.content_size(), index.counts());
        LayerReport {
            space: LayerSpace::new(layer.clone(), size),
            files: counts.files,
            dirs: counts.dirs,
            others: counts.others,
            whiteouts: counts.whiteouts,
        }
    });
    let layers: Vec<_> = layers.collect();
    Ok(Report {
        kind: subject.kind,
        name: subject.name.clone(),
        id: subject.id.clone(),
        size: layers.iter().map(|layer| layer.space.size).sum(),
        shared: layers.iter().map(|layer| layer.space.shared).sum(),
        layers,
    })
}

impl LayerSpace {
    fn new(layer: Layer, size: u64) -> Self {
        let shared = if layer.images.len() > 1 { size } else { 0 };
        Self { size, shared, on_disk: layer.on_disk(), layer }
    }
}

fn row(report: &LayerSpace, files: Option<u64>, full: Full) -> Value {
    let layer = &report.layer;
    let id = |id: &Option<String>| full.id(id.as_deref());
    let drivers: Vec<_> = layer.kept.iter().map(|kept| kept.driver.as_str()).collect();
    let driver = match &layer.blob {
        Some(blob) => blob.compression.clone(),
        None if drivers.is_empty() => "-".to_owned(),
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
        "Files": files.map_or_else(|| "-".to_owned(), |files| files.to_string()),
        "CreatedSince": units::ago(step.and_then(|step| step.created.as_deref())),
        "CreatedBy": full.text(created_by, STEP_WIDTH),
    })
}
