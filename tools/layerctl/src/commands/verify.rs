//! `layerctl verify`: whether layers still hold what their diffIDs say.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Session;
use crate::exit::FAILED;
use crate::inspect::{self, Target, Verified};
use crate::names::short;
use crate::output;
use crate::template::Template;

const TABLE: &str = "table {{.Number}}\\t{{.DiffID}}\\t{{.Driver}}\\t{{.State}}\\t{{.Reason}}";
const HEADINGS: &[(&str, &str)] = &[("Number", "#"), ("DiffID", "DIFF ID")];

/// Hold the content of an image's layers against their diffIDs: exit code 0 if all are sound, 1 if
/// one is damaged
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A template: {{.Number}} {{.DiffID}} {{.Driver}} {{.State}} {{.Reason}}, `table ...`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// An image or layer, or an archive
    #[arg(value_name = "IMAGE")]
    target: String,
}

/// One layer in one place.
#[derive(Debug, Serialize)]
struct LayerReport {
    number: usize,
    diff_id: Option<String>,
    #[serde(flatten)]
    verified: Verified,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = Template::parse(args.format.as_deref().unwrap_or(TABLE))?;
    let subject = inspect::open(session, &Target::parse(&args.target)?)?;
    let mut report = Vec::new();
    for layer in &subject.layers {
        for verified in subject.source.verify(layer.number - 1)? {
            report.push(LayerReport {
                number: layer.number,
                diff_id: layer.diff_id.clone(),
                verified,
            });
        }
    }
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &report)?;
    } else {
        let rows: Vec<_> = report.iter().map(row).collect();
        output::lines(&mut out, &template, HEADINGS, &rows)?;
    }
    let damaged = report.iter().any(|layer| layer.verified.state == "damaged");
    Ok(if damaged { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn row(report: &LayerReport) -> Value {
    json!({
        "Number": report.number,
        "DiffID": report.diff_id.as_deref().map_or("-", short),
        "Driver": report.verified.driver.as_deref().unwrap_or("-"),
        "State": report.verified.state,
        "Reason": report.verified.reason.as_deref().unwrap_or_default(),
    })
}
