//! Gathering how two trees differ.

use cow::compare::Differences;
use cow::stack::{Difference, File, compare};
use serde::Serialize;

use crate::inspect::{Contents, FileFacts, Kind, Subject, Texts, path_text, unified};

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What is compared.
    pub(crate) a: Side,
    /// With what.
    pub(crate) b: Side,
    /// Totals.
    pub(crate) summary: Summary,
    /// The paths that differ, in order.
    pub(crate) changes: Vec<Change>,
}

/// One side.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    kind: Kind,
    pub(crate) name: String,
    id: Option<String>,
}

/// Totals of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Paths that only B has.
    pub(crate) added: u64,
    /// Paths that only A has.
    pub(crate) removed: u64,
    /// Paths that differ.
    pub(crate) changed: u64,
    /// Bytes of content of the files that only B has or that are larger there, as far as they are.
    pub(crate) grown: u64,
    /// Bytes of content of the files that only A has or that are smaller in B, as far as they are.
    pub(crate) shrunk: u64,
}

/// One path.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) path: String,
    /// `added`, `removed` or `changed`.
    pub(crate) change: &'static str,
    /// In what: `kind`, `mode`, `owner`, `mtime`, `size`, `content`, `link`, `xattrs`.
    pub(crate) what: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) old: Option<FileFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) new: Option<FileFacts>,
    /// A unified diff, where it was asked for and both are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) diff: Option<String>,
    /// Whether the content differs and is no text, or too much.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) binary: bool,
}

/// Compares two subjects.
pub(crate) fn gather(
    a: &Subject,
    b: &Subject,
    ignored: Differences,
    contents: bool,
) -> anyhow::Result<Report> {
    let (old, new) = (a.tree(Contents::Digest)?, b.tree(Contents::Digest)?);
    let mut texts = (Texts::default(), Texts::default());
    if contents {
        for difference in compare(&old, &new) {
            let (old, new) = sides(&difference);
            if content_differs(&difference) {
                old.iter().for_each(|file| texts.0.want(file));
                new.iter().for_each(|file| texts.1.want(file));
            }
        }
        texts.0.read(a)?;
        texts.1.read(b)?;
    }
    let mut summary = Summary::default();
    let mut changes = Vec::new();
    for difference in compare(&old, &new) {
        let Some(mut change) = change(&difference, ignored) else { continue };
        if contents && content_differs(&difference) {
            add_diff(&mut change, &difference, &texts);
        }
        summary.count(&change);
        changes.push(change);
    }
    let side = |subject: &Subject| Side {
        kind: subject.kind,
        name: subject.name.clone(),
        id: subject.id.clone(),
    };
    Ok(Report { a: side(a), b: side(b), summary, changes })
}

fn sides<'a, 'b>(difference: &Difference<'a, 'b>) -> (Option<File<'a>>, Option<File<'b>>) {
    match difference {
        Difference::Removed(file) => (Some(*file), None),
        Difference::Added(file) => (None, Some(*file)),
        Difference::Changed(old, new, _) => (Some(*old), Some(*new)),
    }
}

fn content_differs(difference: &Difference<'_, '_>) -> bool {
    let is_file = |file: Option<File<'_>>| file.is_some_and(|file| file.facts.is_file());
    let (old, new) = sides(difference);
    match difference {
        Difference::Changed(_, _, what) if !what.contains(Differences::KIND) => {
            what.contains(Differences::CONTENT)
        }
        _ => is_file(old) || is_file(new),
    }
}

fn change(difference: &Difference<'_, '_>, ignored: Differences) -> Option<Change> {
    let (old, new) = sides(difference);
    let (change, what) = match difference {
        Difference::Removed(_) => ("removed", Differences::NONE),
        Difference::Added(_) => ("added", Differences::NONE),
        Difference::Changed(_, _, what) => ("changed", what.without(ignored)),
    };
    if change == "changed" && what.is_empty() {
        return None;
    }
    let path = old.map(|file| file.path).or(new.map(|file| file.path)).unwrap_or_default();
    let facts = |file: Option<File<'_>>| file.map(|file| FileFacts::of(&file.facts));
    Some(Change {
        path: path_text(path),
        change,
        what: what.names().collect(),
        old: facts(old),
        new: facts(new),
        diff: None,
        binary: false,
    })
}

fn add_diff(change: &mut Change, difference: &Difference<'_, '_>, texts: &(Texts, Texts)) {
    let (old, new) = sides(difference);
    let is_file = |file: &File<'_>| file.facts.is_file();
    let (old, new) = (old.filter(is_file), new.filter(is_file));
    let before = old.as_ref().map(|file| texts.0.get(file));
    let after = new.as_ref().map(|file| texts.1.get(file));
    // A file that was too large to be read is as good as binary.
    let too_large = before == Some(None) || after == Some(None);
    let names = (format!("a{}", change.path), format!("b{}", change.path));
    if !too_large {
        change.diff = unified(before.flatten(), after.flatten(), &names.0, &names.1);
    }
    change.binary = change.diff.is_none();
}

impl Summary {
    fn count(&mut self, change: &Change) {
        match change.change {
            "added" => self.added += 1,
            "removed" => self.removed += 1,
            _ => self.changed += 1,
        }
        let size = |facts: &Option<FileFacts>| facts.as_ref().map_or(0, |facts| facts.size);
        let (old, new) = (size(&change.old), size(&change.new));
        self.grown += new.saturating_sub(old);
        self.shrunk += old.saturating_sub(new);
    }
}
