//! `layerctl tree`: the files of an image or layer.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use cow::stack::Change;
use serde::Serialize;

use crate::context::Session;
use crate::inspect::{
    self, Contents, FileFacts, Rolled, Subject, Target, kind_name, lossy, mode_text, path_text,
    roll,
};
use crate::names::printable;
use crate::paint::{Colour, Paint};
use crate::template::Template;
use crate::{output, units};

/// How deep the tree is shown unless told otherwise.
const DEPTH: usize = 2;

/// Show the files of an image, container or directory with their sizes, or what a layer changed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How deep; 0 for all
    #[arg(short, long, default_value_t = DEPTH)]
    depth: usize,
    /// Show only what the topmost layer changed: A added, C changed, D deleted
    #[arg(short, long)]
    changes: bool,
    /// A template: {{.Path}} {{.Name}} {{.Kind}} {{.Mode}} {{.Owner}} {{.Bytes}} {{.Size}} {{.Files}}
    /// {{.Layer}} {{.Depth}}, with --changes {{.Change}} {{.Path}} {{.What}}
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// An image, layer (IMAGE#NUMBER) or container, or an archive or directory
    #[arg(value_name = "IMAGE|LAYER")]
    target: String,
    /// Only what is below
    #[arg(value_name = "PATH", default_value = "/")]
    path: String,
}

/// One file of the report.
#[derive(Debug, Serialize)]
struct FileReport {
    path: String,
    #[serde(flatten)]
    facts: FileFacts,
    /// Bytes of content of it and all below it, each file once whatever its names.
    total: u64,
    /// How many files that are no directories there are in it.
    files: u64,
    /// The layer that has it, 1 at the bottom.
    layer: usize,
}

/// One change of the topmost layer.
#[derive(Debug, Serialize)]
struct ChangeReport {
    path: String,
    /// `added`, `changed`, `repeated` or `deleted`.
    change: &'static str,
    /// In what it differs now.
    what: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<FileFacts>,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let subject = inspect::open(session, &Target::parse(&args.target)?)?;
    if args.changes {
        return changes(session, args, &subject, template.as_ref());
    }
    let tree = subject.tree(Contents::Skip)?;
    let start = tree.lookup(&args.path)?;
    let start = match start {
        Some(file) => file.path,
        None if args.path.trim_matches('/').is_empty() => b"",
        None => anyhow::bail!("{}: {}: no such file", subject.name, args.path),
    };
    let mut rows = roll(&tree, start);
    if args.depth > 0 {
        rows.retain(|row| row.depth <= args.depth);
    }
    let mut out = session.out();
    if session.json {
        let report: Vec<_> = rows.iter().map(report).collect();
        output::json(&mut out, &report)?;
    } else if let Some(template) = template {
        let values: Vec<_> = rows.iter().map(value).collect();
        output::lines(&mut out, &template, &[], &values)?;
    } else {
        render(&mut out, &rows, Paint::stdout())?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(row: &Rolled<'_>) -> FileReport {
    FileReport {
        path: path_text(row.file.path),
        // An archive's contents were not read, so that digests are not known everywhere.
        facts: FileFacts { sha256: None, ..FileFacts::of(&row.file.facts) },
        total: row.bytes,
        files: row.files,
        layer: row.file.place.layer() + 1,
    }
}

fn value(row: &Rolled<'_>) -> serde_json::Value {
    let facts = &row.file.facts;
    serde_json::json!({
        "Path": path_text(row.file.path),
        "Name": name(row),
        "Kind": kind_name(facts.kind()),
        "Mode": mode_text(facts.kind(), facts.mode()),
        "Owner": format!("{}:{}", facts.uid(), facts.gid()),
        "Bytes": row.bytes,
        "Size": units::size(row.bytes),
        "Files": row.files,
        "Layer": row.file.place.layer() + 1,
        "Depth": row.depth,
    })
}

/// The last component, with the text of a link behind it.
fn name(row: &Rolled<'_>) -> String {
    let name = match row.depth {
        0 => path_text(row.file.path),
        _ => lossy(row.file.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()),
    };
    match row.file.facts.link() {
        b"" => name,
        link => format!("{name} -> {}", lossy(link)),
    }
}

/// Columns of `ls -l`, then the names as a tree.
fn render(out: &mut impl Write, rows: &[Rolled<'_>], paint: Paint) -> std::io::Result<()> {
    let owner = |row: &Rolled<'_>| format!("{}:{}", row.file.facts.uid(), row.file.facts.gid());
    let widest = rows.iter().map(|row| owner(row).len()).max().unwrap_or(0);
    let last = last_of_dirs(rows);
    let mut bars: Vec<bool> = Vec::new();
    for (row, last) in rows.iter().zip(last) {
        bars.truncate(row.depth.saturating_sub(1));
        let mut branch: String =
            bars.iter().map(|goes_on| if *goes_on { "│   " } else { "    " }).collect();
        if row.depth > 0 {
            branch.push_str(if last { "└── " } else { "├── " });
            bars.push(!last);
        }
        let facts = &row.file.facts;
        writeln!(
            out,
            "{} {:>widest$} {:>8} {}{}",
            mode_text(facts.kind(), facts.mode()),
            owner(row),
            units::size(row.bytes),
            paint.text(Colour::Faint, &branch),
            printable(&name(row)),
        )?;
    }
    Ok(())
}

/// For each row, whether it is the last in its directory.
fn last_of_dirs(rows: &[Rolled<'_>]) -> Vec<bool> {
    let mut last = vec![true; rows.len()];
    // At each depth, whether another row follows before its directory ends.
    let mut follows: Vec<bool> = Vec::new();
    for (at, row) in rows.iter().enumerate().rev() {
        follows.resize(row.depth + 1, false);
        last[at] = !follows[row.depth];
        follows[row.depth] = true;
    }
    last
}

/// What the topmost layer did at a path and below it.
fn gather_changes(subject: &Subject, path: &str) -> anyhow::Result<Vec<ChangeReport>> {
    let stack = subject.stack(Contents::Digest)?;
    let top = stack.layers().len().checked_sub(1).context("there are no layers")?;
    let tree = subject.tree(Contents::Digest)?;
    let start = path.trim_matches('/').as_bytes();
    let start = tree.lookup(path)?.map_or(start, |file| file.path);
    let mut report = Vec::new();
    stack.walk(|history| {
        let Some(event) = history.events.iter().rev().find(|event| event.layer == top) else {
            return;
        };
        let inside = history.path.starts_with(start)
            && (start.is_empty() || matches!(history.path.get(start.len()), None | Some(b'/')));
        if !inside {
            return;
        }
        let (change, what) = match event.change {
            Change::Added => ("added", Vec::new()),
            Change::Modified(what) => ("changed", what.names().collect()),
            Change::Repeated => ("repeated", Vec::new()),
            Change::Deleted => ("deleted", Vec::new()),
        };
        let now = event.place.and_then(|place| stack.facts(place));
        let now = now.as_ref().map(FileFacts::of);
        report.push(ChangeReport { path: path_text(history.path), change, what, now });
    });
    Ok(report)
}

fn changes(
    session: &Session,
    args: &Args,
    subject: &Subject,
    template: Option<&Template>,
) -> anyhow::Result<ExitCode> {
    let report = gather_changes(subject, &args.path)?;
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(template) = template {
        let value = |change: &ChangeReport| {
            serde_json::json!({
                "Path": change.path, "Change": change.change, "What": change.what.join(","),
            })
        };
        let values: Vec<_> = report.iter().map(value).collect();
        output::lines(&mut out, template, &[], &values)?;
        return Ok(ExitCode::SUCCESS);
    }
    let paint = Paint::stdout();
    for change in &report {
        let (letter, colour) = match change.change {
            "added" => ("A", Colour::Added),
            "deleted" => ("D", Colour::Removed),
            "changed" => ("C", Colour::Changed),
            _ => ("=", Colour::Faint),
        };
        let what = if change.what.is_empty() {
            String::new()
        } else {
            format!("  ({})", change.what.join(", "))
        };
        let line = format!("{letter} {}", printable(&change.path));
        writeln!(out, "{}{}", paint.text(colour, &line), paint.text(Colour::Faint, &what))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
