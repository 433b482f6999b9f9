//! Rendering how two trees differ.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::report::{Change, Report, Summary};
use crate::inspect::FileFacts;
use crate::names::printable;
use crate::paint::{Colour, Paint};
use crate::units;

/// A change for a template.
pub(crate) fn value(change: &Change) -> Value {
    let size = |facts: &Option<FileFacts>| facts.as_ref().map(|facts| facts.size);
    json!({
        "Change": letter(change).0,
        "Path": change.path,
        "What": change.what.join(","),
        "OldSize": size(&change.old),
        "NewSize": size(&change.new),
        "Bytes": change.bytes,
    })
}

fn letter(change: &Change) -> (&'static str, Colour) {
    match change.change {
        "added" => ("A", Colour::Added),
        "removed" => ("D", Colour::Removed),
        _ => ("C", Colour::Changed),
    }
}

/// A path a line, with what differs.
pub(crate) fn list(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let paint = Paint::stdout();
    for change in &report.changes {
        let (letter, colour) = letter(change);
        let line = format!("{letter} {}", printable(&change.path));
        let details = printable(&details(change));
        writeln!(out, "{}{}", paint.text(colour, &line), paint.text(Colour::Faint, &details))?;
    }
    Ok(())
}

/// What differs and how, in brackets; empty for what only one side has.
fn details(change: &Change) -> String {
    let parts = differences(change, |_| true);
    if parts.is_empty() { parts } else { format!("  ({parts})") }
}

/// What differs and how, of what is asked for; empty for what only one side has.
pub(crate) fn differences(change: &Change, wanted: impl Fn(&str) -> bool) -> String {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return String::new() };
    let part = |what: &&'static str| match *what {
        "kind" => format!("kind {} -> {}", old.kind, new.kind),
        "mode" => format!("mode {} -> {}", old.mode, new.mode),
        "owner" => format!("owner {}:{} -> {}:{}", old.uid, old.gid, new.uid, new.gid),
        "size" => format!("size {} -> {}", units::size(old.size), units::size(new.size)),
        "link" => format!(
            "link {} -> {}",
            old.link.as_deref().unwrap_or_default(),
            new.link.as_deref().unwrap_or_default()
        ),
        "xattrs" => format!("xattrs {}", xattrs(old, new).join(" ")),
        other => other.to_owned(),
    };
    let parts: Vec<_> = change.what.iter().filter(|what| wanted(what)).map(part).collect();
    parts.join(", ")
}

/// The names of the attributes that differ.
fn xattrs<'a>(old: &'a FileFacts, new: &'a FileFacts) -> Vec<&'a str> {
    let both = old.xattrs.keys().chain(new.xattrs.keys());
    let names: BTreeSet<_> = both.map(String::as_str).collect();
    names.into_iter().filter(|name| old.xattrs.get(*name) != new.xattrs.get(*name)).collect()
}

/// Sizes before and after, and totals.
pub(crate) fn stat(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let paint = Paint::stdout();
    for change in &report.changes {
        let size = |facts: &Option<FileFacts>| match facts {
            Some(facts) if facts.kind == "file" => units::size(facts.size),
            Some(facts) => facts.kind.to_owned(),
            None => "-".to_owned(),
        };
        let (letter, colour) = letter(change);
        let line = format!("{letter} {:>8} {:>8}  ", size(&change.old), size(&change.new));
        writeln!(out, "{}{}", paint.text(colour, &line), printable(&change.path))?;
    }
    let Summary { added, removed, changed, grown, shrunk, .. } = report.summary;
    writeln!(
        out,
        "{added} added, {removed} deleted, {changed} changed; +{} -{}",
        units::size(grown),
        units::size(shrunk)
    )
}

/// Unified diffs; a line for what has none.
pub(crate) fn contents(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let paint = Paint::stdout();
    for change in &report.changes {
        match &change.diff {
            Some(diff) if !diff.is_empty() => {
                for line in diff.lines() {
                    let shown = printable_line(line);
                    let colour = match line.as_bytes().first() {
                        Some(b'+') => Some(Colour::Added),
                        Some(b'-') => Some(Colour::Removed),
                        Some(b'@') => Some(Colour::Changed),
                        _ => None,
                    };
                    match colour {
                        Some(colour) => writeln!(out, "{}", paint.text(colour, &shown))?,
                        None => writeln!(out, "{shown}")?,
                    }
                }
            }
            _ => {
                let (letter, colour) = letter(change);
                let binary = if change.binary { "  (no text)" } else { "" };
                let line = format!("{letter} {}", printable(&change.path));
                let details = printable(&details(change));
                writeln!(out, "{}{details}{binary}", paint.text(colour, &line))?;
            }
        }
    }
    Ok(())
}

/// A line of a stranger's file, tabs kept.
fn printable_line(line: &str) -> String {
    line.split('\t').map(printable).collect::<Vec<_>>().join("\t")
}
