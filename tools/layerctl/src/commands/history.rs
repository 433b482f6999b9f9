//! `layerctl history`: the steps that built an image.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::listing::Full;
use crate::context::Session;
use crate::inspect::{self, Contents, Step, Subject, Target, short_step, steps};
use crate::template::Template;
use crate::{output, units};

const TABLE: &str = "table {{.Layer}}\\t{{.DiffID}}\\t{{.CreatedSince}}\\t{{.CreatedBy}}\\t{{.Size}}\\t\
                     {{.Comment}}";
const HEADINGS: &[(&str, &str)] = &[
    ("Layer", "#"),
    ("DiffID", "DIFF ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedBy", "CREATED BY"),
];
/// How much of a step the table shows.
const STEP_WIDTH: usize = 70;

/// Show the steps that built an image, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A template: {{.Layer}} {{.DiffID}} {{.CreatedSince}} {{.CreatedAt}} {{.CreatedBy}} {{.Size}}
    /// {{.Comment}}, `table ...`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    #[command(flatten)]
    full: Full,
    /// An image, layer or container, or an archive
    #[arg(value_name = "IMAGE")]
    target: String,
}

/// One step, the newest first.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StepReport {
    /// The step.
    #[serde(flatten)]
    pub(crate) step: Step,
    /// The diffID of its layer.
    pub(crate) diff_id: Option<String>,
    /// Bytes of file content in its layer; 0 for a step that made none.
    pub(crate) size: u64,
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
    let rows: Vec<_> =
        report.iter().map(|step| row(step, args.full)).collect::<anyhow::Result<_>>()?;
    output::lines(&mut out, &template, HEADINGS, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// The recorded steps, and layers of which the history knows nothing above or instead of them.
pub(crate) fn gather(subject: &Subject) -> anyhow::Result<Vec<StepReport>> {
    let stack = subject.stack(Contents::Skip)?;
    let here = subject.layers.len();
    let whole = subject.config.as_ref().map_or(0, |config| config.rootfs.diff_ids.len());
    let steps = |config| steps(config, here.max(whole));
    let mut found: Vec<Step> = subject.config.iter().flat_map(steps).collect();
    // A layer in the middle of the image has the steps up to its own.
    if here < whole {
        let last = found.iter().rposition(|step| step.layer.is_some_and(|number| number <= here));
        found.truncate(last.map_or(0, |last| last + 1));
    }
    for layer in &subject.layers {
        if found.iter().all(|step| step.layer != Some(layer.number)) {
            found.push(Step { layer: Some(layer.number), ..Step::default() });
        }
    }
    let report = |step: Step| {
        let at = step.layer.map(|number| number - 1);
        let index = at.and_then(|at| stack.layers().get(at));
        StepReport {
            diff_id: at.and_then(|at| subject.layers.get(at)?.diff_id.clone()),
            size: index.map_or(0, |index| index.content_size()),
            step,
        }
    };
    Ok(found.into_iter().rev().map(report).collect())
}

fn row(report: &StepReport, full: Full) -> anyhow::Result<Value> {
    let step = &report.step;
    let created_by = short_step(&step.created_by);
    Ok(json!({
        "Layer": step.layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string()),
        "DiffID": full.id(report.diff_id.as_deref()),
        "CreatedSince": units::ago(step.created.as_deref()),
        "CreatedAt": units::at(step.created.as_deref())?,
        "CreatedBy": full.text(created_by, STEP_WIDTH),
        "Size": units::size(report.size),
        "Comment": step.comment.as_deref().unwrap_or_default(),
    }))
}
