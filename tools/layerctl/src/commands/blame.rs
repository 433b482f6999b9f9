//! `layerctl blame`: which layer gave a file what it has, and who deleted it.

use std::process::ExitCode;

use cow::stack::{History, Origin, Stack};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Session;
use crate::exit::usage;
use crate::inspect::{self, Contents, FileFacts, Subject, Target, path_text, short_step};
use crate::names::cut;
use crate::output;
use crate::template::Template;

const TABLE: &str =
    "table {{.Content}}\\t{{.Mode}}\\t{{.Owner}}\\t{{.Deleted}}\\t{{.Path}}\\t{{.Step}}";
/// How much of a step the table shows.
const STEP_WIDTH: usize = 60;

/// Tell which layer, by which step of the build, gave a file its content, mode and owner, and which
/// deleted it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// All files, deleted ones too
    #[arg(long)]
    all: bool,
    /// A template: {{.Path}} {{.Added}} {{.Content}} {{.Mode}} {{.Owner}} {{.Xattrs}} {{.Time}}
    /// {{.Deleted}} {{.Step}}, `table ...`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// PATH IMAGE, or IMAGE with --all; what is in a directory is told too
    #[arg(value_name = "PATH|IMAGE", num_args = 1..=2, required = true)]
    what: Vec<String>,
}

/// What is told of one path.
#[derive(Debug, Serialize)]
struct Blame {
    path: String,
    /// The layers, 1 at the bottom, that last gave it each of these.
    added: usize,
    content: usize,
    mode: usize,
    owner: usize,
    xattrs: usize,
    mtime: usize,
    /// The layer that deleted it, if one did.
    deleted: Option<usize>,
    /// The step that gave it its content, or that deleted it.
    step: Option<String>,
    /// What it is, or none if it is deleted.
    file: Option<FileFacts>,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = Template::parse(args.format.as_deref().unwrap_or(TABLE))?;
    let (path, target) = match (&args.what[..], args.all) {
        ([target], true) => ("", target),
        ([path, target], false) => (path.as_str(), target),
        _ => return Err(usage("it is blame PATH IMAGE or blame --all IMAGE")),
    };
    let subject = inspect::open(session, &Target::parse(target)?)?;
    let blames = gather(&subject, path)?;
    if blames.is_empty() && !args.all {
        anyhow::bail!("{}: {path}: no layer has such a file", subject.name);
    }
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &blames)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = blames.iter().map(row).collect();
    output::lines(&mut out, &template, &[], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// The paths at and below one, which is followed as far as it leads in the image.
fn gather(subject: &Subject, path: &str) -> anyhow::Result<Vec<Blame>> {
    let stack = subject.stack(Contents::Digest)?;
    let tree = subject.tree(Contents::Digest)?;
    let start = match tree.lookup(path)? {
        Some(file) => file.path.to_vec(),
        // It may be deleted.
        None => path.trim_matches('/').as_bytes().to_vec(),
    };
    let mut blames = Vec::new();
    stack.walk(|history| {
        let path = history.path;
        let inside = path.starts_with(&start)
            && (start.is_empty() || matches!(path.get(start.len()), None | Some(b'/')));
        if inside && let Some(origin) = history.origin() {
            blames.push(blame(subject, stack, history, &origin));
        }
    });
    Ok(blames)
}

fn blame(subject: &Subject, stack: &Stack, history: &History<'_>, origin: &Origin) -> Blame {
    let step = subject.layers.get(origin.deleted.unwrap_or(origin.content));
    let step = step.and_then(|layer| layer.step.as_ref());
    let facts = history.now.and_then(|place| stack.facts(place));
    Blame {
        path: path_text(history.path),
        added: origin.added + 1,
        content: origin.content + 1,
        mode: origin.mode + 1,
        owner: origin.owner + 1,
        xattrs: origin.xattrs + 1,
        mtime: origin.mtime + 1,
        deleted: origin.deleted.map(|layer| layer + 1),
        step: step.map(|step| short_step(&step.created_by)),
        file: facts.as_ref().map(FileFacts::of),
    }
}

fn row(blame: &Blame) -> Value {
    json!({
        "Path": blame.path,
        "Added": blame.added,
        "Content": blame.content,
        "Mode": blame.mode,
        "Owner": blame.owner,
        "Xattrs": blame.xattrs,
        "Time": blame.mtime,
        "Deleted": blame.deleted.map_or_else(|| "-".to_owned(), |layer| layer.to_string()),
        "Step": cut(blame.step.as_deref().unwrap_or_default(), STEP_WIDTH),
    })
}
