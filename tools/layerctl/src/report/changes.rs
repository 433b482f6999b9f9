//! What each layer did to the files below it.

use cow::meta::FileKind;
use cow::stack::{Change, Event, Stack};
use serde::Serialize;

/// How many files that are no directories a layer touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Changes {
    /// New ones.
    pub(crate) added: u64,
    /// Other content or other metadata.
    pub(crate) changed: u64,
    /// Stored again exactly as they were.
    pub(crate) repeated: u64,
    /// Gone.
    pub(crate) deleted: u64,
}

/// Counts for each layer, the lowest first.
pub(super) fn changes(stack: &Stack) -> Vec<Changes> {
    let mut layers = vec![Changes::default(); stack.layers().len()];
    let is_dir = |event: &Event| {
        let facts = event.place.and_then(|place| stack.facts(place));
        facts.is_some_and(|facts| facts.kind() == Some(FileKind::Dir))
    };
    stack.walk(|history| {
        let mut was_dir = false;
        for event in history.events {
            let (before, counts) = (was_dir, &mut layers[event.layer]);
            was_dir = is_dir(event);
            match event.change {
                Change::Deleted if before => {}
                Change::Deleted => counts.deleted += 1,
                _ if was_dir => {}
                Change::Added => counts.added += 1,
                Change::Modified(_) => counts.changed += 1,
                Change::Repeated => counts.repeated += 1,
            }
        }
    });
    layers
}
