//! How one path came to be as it is.

use super::Place;
use crate::compare::Differences;

/// What a layer did to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Added,
    /// It was there, and differs now in this.
    Modified(Differences),
    /// The layer has it again exactly as it was: a file that was copied up and not changed. It takes
    /// space and changes nothing.
    Repeated,
    /// It is gone.
    Deleted,
}

/// One layer's part in the history of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The layer, 0 at the bottom.
    pub layer: usize,
    /// What it did.
    pub change: Change,
    /// The layer's row of the path; none for a deletion.
    pub place: Option<Place>,
}

/// All that layers did to one path, the lowest layer first. Lent by
/// [`Stack::walk`](super::Stack::walk) for one call.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// The path, relative, without a leading slash; empty for the root.
    pub path: &'a [u8],
    /// What happened.
    pub events: &'a [Event],
    /// What the merged tree shows in the end; none if it is deleted.
    pub now: Option<Place>,
}

/// Which layers gave a file what it has: the last ones that changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The layer that added the path, after its last deletion.
    pub added: usize,
    /// The layer that gave it its content, link text, kind or device number.
    pub content: usize,
    /// The layer that gave it its permission bits.
    pub mode: usize,
    /// The layer that gave it owner and group.
    pub owner: usize,
    /// The layer that gave it its attributes.
    pub xattrs: usize,
    /// The layer that gave it its modification time.
    pub mtime: usize,
    /// The layer that deleted it, if one did.
    pub deleted: Option<usize>,
}

impl History<'_> {
    /// Which layers gave the file what it has, or had when it was deleted; none for a path without
    /// events.
    pub fn origin(&self) -> Option<Origin> {
        let mut origin: Option<Origin> = None;
        for event in self.events {
            let layer = event.layer;
            let fresh = Origin {
                added: layer,
                content: layer,
                mode: layer,
                owner: layer,
                xattrs: layer,
                mtime: layer,
                deleted: None,
            };
            match (event.change, &mut origin) {
                (Change::Added, _) | (Change::Modified(_), None) => origin = Some(fresh),
                (Change::Modified(what), Some(known)) => {
                    if what.contains(Differences::KIND) {
                        *known = Origin { added: known.added, ..fresh };
                        continue;
                    }
                    let any = |set: &[Differences]| set.iter().any(|one| what.contains(*one));
                    let content = [Differences::CONTENT, Differences::SIZE, Differences::LINK];
                    for (field, changed) in [
                        (&mut known.content, any(&content)),
                        (&mut known.mode, what.contains(Differences::MODE)),
                        (&mut known.owner, what.contains(Differences::OWNER)),
                        (&mut known.xattrs, what.contains(Differences::XATTRS)),
                        (&mut known.mtime, what.contains(Differences::MTIME)),
                    ] {
                        if changed {
                            *field = layer;
                        }
                    }
                }
                (Change::Deleted, Some(known)) => known.deleted = Some(layer),
                (Change::Repeated, _) | (Change::Deleted, None) => {}
            }
        }
        origin
    }
}
