//! What the tree shows: chosen paths of the forest, with what became of each.
//!
//! Made anew, in the background, whenever another layer, filter or order is chosen; which directories
//! are open is not its business. Whatever is asked for, making it takes a few passes over all paths.

use std::collections::HashSet;

use cow::compare::Differences;
use cow::stack::{Change as Done, Place, differences};

use super::forest::{Forest, Id};
use super::matcher::Matcher;

/// What is looked at. Layers are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// What one layer did.
    Changes(usize),
    /// The tree as of a layer.
    Tree(usize),
    /// What is different as of the second layer from as of the first.
    Compare(usize, usize),
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new.
    Added,
    /// It is different.
    Changed,
    /// It is gone.
    Removed,
    /// It is stored once more, just as it was.
    Repeated,
    /// Nothing.
    Same,
}

/// The kinds of changes that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    /// [`Change::Added`].
    pub(super) added: bool,
    /// [`Change::Changed`].
    pub(super) changed: bool,
    /// [`Change::Removed`].
    pub(super) removed: bool,
    /// The rest.
    pub(super) unchanged: bool,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { added: true, changed: true, removed: true, unchanged: true }
    }
}

impl Kinds {
    fn has(self, change: Change) -> bool {
        match change {
            Change::Added => self.added,
            Change::Changed => self.changed,
            Change::Removed => self.removed,
            Change::Repeated | Change::Same => self.unchanged,
        }
    }
}

/// The order within a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Byte-wise.
    #[default]
    Name,
    /// The largest first.
    Size,
}

/// Everything that a view depends on.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// What is looked at.
    pub(super) show: Show,
    /// Which names.
    pub(super) matcher: Matcher,
    /// Which changes.
    pub(super) kinds: Kinds,
    /// In which order.
    pub(super) sort: Sort,
}

/// One line of the tree when every directory is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The path.
    pub(super) id: Id,
    /// Where its facts are: as it was before, if it is gone.
    pub(super) place: Place,
    /// What became of it.
    pub(super) change: Change,
    /// In what it differs, if it does.
    pub(super) what: Differences,
    /// Bytes of it and of all below it that is shown; of what is gone only if it is gone itself.
    pub(super) bytes: u64,
    /// Behind the last row in it.
    pub(super) end: u32,
    /// Whether it is asked for, and not only on the way to what is.
    pub(super) listed: bool,
    /// Whether its own name is what was looked for.
    pub(super) hit: bool,
    /// Whether it is a directory.
    pub(super) is_dir: bool,
    /// Whether something that is shown below it is new, different or gone.
    pub(super) stirred: bool,
}

impl Row {
    /// Whether it is new, different or gone.
    pub(super) fn is_change(&self) -> bool {
        matches!(self.change, Change::Added | Change::Changed | Change::Removed)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct View {
    /// What it was made from.
    pub(super) spec: Spec,
    /// A directory before what is in it.
    pub(super) rows: Vec<Row>,
    /// How many paths became what, in the order of [`Kinds`], whether or not they are shown.
    pub(super) counts: [u32; 4],
    /// How many files have a name that was looked for.
    pub(super) hits: u32,
}

/// How many paths are looked at between two looks whether the view is still wanted.
const CHUNK: Id = 8192;

impl View {
    /// Makes a view; none if `wanted` says that nobody waits for it any more.
    pub(super) fn make(forest: &Forest, spec: &Spec, wanted: impl Fn() -> bool) -> Option<Self> {
        let mut rows: Vec<Row> = Vec::new();
        let mut counts = [0; 4];
        let mut hits = 0;
        // What is in a directory whose name was looked for is shown too.
        let mut hit_until = 0;
        for id in 0..forest.len() {
            if id % CHUNK == 0 && !wanted() {
                return None;
            }
            let Some((change, what, place, theirs)) = status(forest, id, spec.show) else {
                continue;
            };
            if theirs {
                counts[index(change)] += 1;
            }
            let hit =
                !spec.matcher.is_all() && spec.matcher.matches(forest.path(id), forest.name(id));
            if hit {
                hit_until = hit_until.max(forest.end(id));
            }
            let named = spec.matcher.is_all() || id < hit_until;
            let listed = theirs && named && spec.kinds.has(change);
            hits += u32::from(listed && hit);
            let is_dir = forest.facts(place).is_some_and(|facts| facts.is_dir());
            if listed || is_dir {
                rows.push(Row {
                    id,
                    place,
                    change,
                    what,
                    bytes: 0,
                    end: 0,
                    listed,
                    hit,
                    is_dir,
                    stirred: false,
                });
            }
        }
        let parents = keep_ways(forest, &mut rows);
        measure(forest, &mut rows, &parents);
        if spec.sort == Sort::Size {
            rows = by_size(&rows, &parents);
        }
        Some(Self { spec: spec.clone(), rows, counts, hits })
    }
}

fn index(change: Change) -> usize {
    match change {
        Change::Added => 0,
        Change::Changed => 1,
        Change::Removed => 2,
        Change::Repeated | Change::Same => 3,
    }
}

/// What became of a path and where its facts are; none if it is not there at all. Last, whether it
/// is something to list, or only a directory on the way.
fn status(forest: &Forest, id: Id, show: Show) -> Option<(Change, Differences, Place, bool)> {
    let none = Differences::NONE;
    match show {
        Show::Changes(layer) | Show::Tree(layer) => {
            let events = forest.events(id);
            let upto = events.partition_point(|event| event.layer <= layer);
            let here = upto - events.partition_point(|event| event.layer < layer);
            let now = events[..upto].last()?;
            // A layer may delete a path and have it anew: what was there before tells which.
            let before = events[..upto - here].last().and_then(|event| event.place);
            let changes = matches!(show, Show::Changes(_));
            if here == 0 {
                return Some((Change::Same, none, now.place?, !changes));
            }
            let Some(place) = now.place else {
                // Gone, and never there before: nothing.
                return Some((Change::Removed, none, before?, true));
            };
            let (change, what) = match (now.change, before) {
                (Done::Modified(what), _) => (Change::Changed, what),
                (Done::Repeated, _) => (Change::Repeated, none),
                (_, None) => (Change::Added, none),
                (_, Some(before)) => compared(forest, before, place, Change::Repeated),
            };
            Some((change, what, place, true))
        }
        Show::Compare(a, b) => match (forest.state(id, a + 1), forest.state(id, b + 1)) {
            (None, None) => None,
            (None, Some(place)) => Some((Change::Added, none, place, true)),
            (Some(place), None) => Some((Change::Removed, none, place, true)),
            (Some(before), Some(now)) => {
                let (change, what) = compared(forest, before, now, Change::Same);
                Some((change, what, now, change != Change::Same))
            }
        },
    }
}

fn compared(forest: &Forest, before: Place, now: Place, same: Change) -> (Change, Differences) {
    if before == now {
        return (same, Differences::NONE);
    }
    let found = match (forest.facts(before), forest.facts(now)) {
        (Some(before), Some(now)) => differences(&before, &now),
        _ => Differences::KIND,
    };
    if found.is_empty() { (same, found) } else { (Change::Changed, found) }
}

/// Drops directories that lead to nothing; gives the place of each row's directory, its own for a top.
fn keep_ways(forest: &Forest, rows: &mut Vec<Row>) -> Vec<u32> {
    // From the last to the first, what is kept begins behind the directory.
    let mut next_kept = Id::MAX;
    let mut keep = vec![false; rows.len()];
    for (at, row) in rows.iter().enumerate().rev() {
        keep[at] = row.listed || next_kept < forest.end(row.id);
        if keep[at] {
            next_kept = row.id;
        }
    }
    let mut keep = keep.into_iter();
    rows.retain(|_| keep.next().unwrap_or_default());
    let mut parents = Vec::with_capacity(rows.len());
    let mut around: Vec<(Id, u32)> = Vec::new();
    for (at, row) in rows.iter_mut().enumerate() {
        let at = narrow(at);
        while around.last().is_some_and(|(end, _)| *end <= row.id) {
            around.pop();
        }
        parents.push(around.last().map_or(at, |(_, parent)| *parent));
        around.push((forest.end(row.id), at));
        row.end = at + 1;
    }
    for at in (0..rows.len()).rev() {
        let end = rows[at].end;
        let parent = &mut rows[parents[at] as usize].end;
        *parent = end.max(*parent);
    }
    parents
}

/// Adds up sizes, each file once whatever its names.
fn measure(forest: &Forest, rows: &mut [Row], parents: &[u32]) {
    let mut seen = HashSet::new();
    let mut gone = vec![0_u64; rows.len()];
    for (at, row) in rows.iter_mut().enumerate() {
        let Some(facts) = forest.facts(row.place).filter(|facts| facts.is_file()) else { continue };
        let removed = row.change == Change::Removed;
        let once = forest.shared_file(row.place).is_none_or(|file| seen.insert((file, removed)));
        let bytes = if once { facts.size() } else { 0 };
        *if removed { &mut gone[at] } else { &mut row.bytes } = bytes;
    }
    for at in (0..rows.len()).rev() {
        let parent = parents[at] as usize;
        if parent != at {
            gone[parent] += gone[at];
            rows[parent].bytes += rows[at].bytes;
            rows[parent].stirred |= rows[at].stirred || rows[at].is_change();
        }
    }
    for (row, gone) in rows.iter_mut().zip(gone) {
        if row.change == Change::Removed {
            row.bytes = gone;
        }
    }
}

/// The rows with the largest of each directory first.
fn by_size(rows: &[Row], parents: &[u32]) -> Vec<Row> {
    // The rows of each directory after each other, the largest last: taken from the end.
    let mut order: Vec<u32> = (0..narrow(rows.len())).collect();
    let parent = |at: u32| if parents[at as usize] == at { u32::MAX } else { parents[at as usize] };
    order.sort_by_key(|at| (parent(*at), rows[*at as usize].bytes, std::cmp::Reverse(*at)));
    let children = |dir: u32| {
        let from = order.partition_point(|at| parent(*at) < dir);
        let to = order.partition_point(|at| parent(*at) <= dir);
        &order[from..to]
    };
    let mut sorted = Vec::with_capacity(rows.len());
    let mut waiting: Vec<u32> = children(u32::MAX).to_vec();
    while let Some(at) = waiting.pop() {
        let row = rows[at as usize];
        let place = narrow(sorted.len());
        sorted.push(Row { end: place + (row.end - at), ..row });
        if row.end > at + 1 {
            waiting.extend_from_slice(children(at));
        }
    }
    sorted
}

/// There are no more rows than paths.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
