//! Gathering how two trees differ.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use cow::compare::Differences;
use cow::stack::{Difference, File, Tree, compare};
use serde::Serialize;

use crate::inspect::{Contents, FileFacts, Kind, Subject, Texts, path_text, unified};

/// The report.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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
    /// The bytes of all changes that add some.
    pub(crate) grown: u64,
    /// The bytes of all changes that free some.
    pub(crate) shrunk: u64,
    /// Bytes of content that B has and A has not at the same path.
    pub(crate) written: u64,
    /// How many bytes more the files take that do not differ: names of one file in A may be several files in B, or
    /// the other way round.
    pub(crate) links: i64,
}

/// One path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) path: String,
    /// `added`, `removed` or `changed`.
    pub(crate) change: &'static str,
    /// In what: `kind`, `mode`, `owner`, `mtime`, `size`, `content`, `link`, `xattrs`.
    pub(crate) what: Vec<&'static str>,
    /// How many bytes of content B has more by it: fewer than none if it frees some. A file with several names
    /// counts at one of them.
    pub(crate) bytes: i64,
    /// Bytes of content that B has at this path and A has not: all of a file that is new or whose content differs.
    pub(crate) written: u64,
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
    let carriers = (Carriers::of(&old, &new), Carriers::of(&new, &old));
    for difference in compare(&old, &new) {
        let Some(mut change) = change(&difference, ignored) else { continue };
        let (was, is) = sides(&difference);
        change.bytes = carriers.1.bytes(is).saturating_sub(carriers.0.bytes(was));
        if content_differs(&difference) {
            change.written = carriers.1.bytes(is).unsigned_abs();
        }
        if contents && content_differs(&difference) {
            add_diff(&mut change, &difference, &texts);
        }
        summary.count(&change);
        changes.push(change);
    }
    let net = summary.grown.cast_signed().saturating_sub_unsigned(summary.shrunk);
    summary.links = carriers.1.total.saturating_sub(carriers.0.total).saturating_sub(net);
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
        bytes: 0,
        written: 0,
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
        self.written += change.written;
        match change.bytes {
            bytes @ 0.. => self.grown += bytes.unsigned_abs(),
            bytes => self.shrunk += bytes.unsigned_abs(),
        }
    }
}

/// Which names carry the bytes of a tree's files: of several names of one file the first, or the first that both trees
/// have, so that another name of a file that stays is no growth.
struct Carriers<'a> {
    names: HashMap<(usize, usize), &'a [u8]>,
    /// All bytes.
    total: i64,
}

impl<'a> Carriers<'a> {
    fn of(tree: &'a Tree, other: &Tree) -> Self {
        let (mut names, mut total) = (HashMap::<_, &[u8]>::new(), 0_i64);
        for file in tree.files().filter(|file| file.facts.is_file()) {
            match names.entry((file.stored.layer(), file.facts.inode())) {
                Entry::Vacant(entry) => {
                    entry.insert(file.path);
                    total = total.saturating_add(stored(&file));
                }
                Entry::Occupied(mut entry) => {
                    if other.find(entry.get()).is_none() && other.find(file.path).is_some() {
                        entry.insert(file.path);
                    }
                }
            }
        }
        Self { names, total }
    }

    fn bytes(&self, file: Option<File<'_>>) -> i64 {
        let Some(file) = file else { return 0 };
        match self.names.get(&(file.stored.layer(), file.facts.inode())) {
            Some(name) if *name == file.path => stored(&file),
            _ => 0,
        }
    }
}

fn stored(file: &File<'_>) -> i64 {
    i64::try_from(file.facts.stored()).unwrap_or(i64::MAX)
}
