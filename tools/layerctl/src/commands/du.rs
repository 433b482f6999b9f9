//! `layerctl du`: what uses the space, of the whole store or within one image.

mod duplicates;
mod store;

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Session;
use crate::inspect::{self, Kind, Space, Target};
use crate::names::{printable, short};
use crate::template::Template;
use crate::{output, units};

/// How many files are told of each kind.
const MOST: usize = 10;

/// Show what uses the space: of the store by image, layer and container; or within one image
///
/// Without a name: the figures that were kept when each layer was made, nothing is walked but what
/// containers changed. With one: what its layers store, what of that nobody sees, and what is there
/// more than once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// All layers too
    #[arg(short, long)]
    verbose: bool,
    /// Contents that the layers of the store have more than once
    #[arg(long, conflicts_with_all = ["target", "verbose"])]
    duplicates: bool,
    /// A template. Of the store, for each image, container and (-v) layer: {{.Kind}} {{.Name}} {{.ID}}
    /// {{.Size}} {{.Bytes}} {{.Shared}} {{.Exclusive}} {{.Users}}; of an image: {{.Name}} {{.ID}}
    /// {{.Stored}} {{.Visible}} {{.Wasted}} {{.Duplicate}} {{.Efficiency}}; with --duplicates:
    /// {{.Bytes}} {{.Size}} {{.Copies}} {{.Layers}} {{.SHA256}} {{.Paths}}; `table ...`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// An image, layer or container, or an archive or directory
    #[arg(value_name = "IMAGE")]
    target: Option<String>,
}

/// The report on one image.
#[derive(Debug, Serialize)]
struct Report {
    kind: Kind,
    name: String,
    id: Option<String>,
    #[serde(flatten)]
    space: Space,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let template = template.as_ref();
    if args.duplicates {
        return duplicates::run(session, template);
    }
    let Some(target) = &args.target else { return store::run(session, args.verbose, template) };
    let subject = inspect::open(session, &Target::parse(target)?)?;
    let space = Space::of(&subject)?;
    let report = Report { kind: subject.kind, name: subject.name, id: subject.id, space };
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &report)?;
    } else if let Some(template) = template {
        output::lines(&mut out, template, &[("ID", "IMAGE ID")], &[row(&report)])?;
    } else {
        render(&mut out, &report)?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(report: &Report) -> Value {
    let space = &report.space;
    json!({
        "Name": report.name,
        "ID": report.id.as_deref().map_or("-", short),
        "Stored": units::size(space.stored),
        "Visible": units::size(space.visible),
        "Wasted": units::size(space.wasted),
        "Duplicate": units::size(space.duplicate),
        "Efficiency": format!("{:.2}%", space.efficiency * 100.0),
    })
}

fn render(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let space = &report.space;
    let size = units::size;
    writeln!(out, "{}", printable(&report.name))?;
    writeln!(out, "{:>9} stored in {} layers", size(space.stored), space.layers.len())?;
    writeln!(out, "{:>9} visible", size(space.visible))?;
    writeln!(
        out,
        "{:>9} wasted: overwritten or deleted later ({:.1}% of it is of use)",
        size(space.wasted),
        space.efficiency * 100.0
    )?;
    writeln!(out, "{:>9} duplicate: the same content more than once", size(space.duplicate))?;
    for layer in space.layers.iter().filter(|_| space.layers.len() > 1) {
        let (stored, wasted) = (size(layer.stored), size(layer.wasted));
        writeln!(out, "  layer {:<3} {stored:>9} stored {wasted:>9} wasted", layer.layer)?;
    }
    for file in space.wasted_files.iter().take(MOST) {
        writeln!(
            out,
            "  wasted    {:>9} {} of layer {}, {} by layer {}",
            size(file.bytes),
            printable(&file.path),
            file.layer,
            file.why,
            file.hidden_by
        )?;
    }
    for content in space.duplicates.iter().take(MOST) {
        let paths: Vec<_> = content.paths.iter().take(3).map(|path| printable(path)).collect();
        let more = if content.paths.len() > 3 { ", …" } else { "" };
        let times = content.paths.len();
        let bytes = size(content.bytes);
        writeln!(out, "  duplicate {bytes:>9} {times} times: {}{more}", paths.join(", "))?;
    }
    Ok(())
}
