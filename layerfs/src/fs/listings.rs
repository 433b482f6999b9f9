//! Listings that are kept for readers who come back for more.

use std::sync::{Arc, Mutex};

use super::Fs;
use crate::node::Moment;
use crate::union::{Listing, lock};

/// How many listings of directories are kept.
const LISTINGS: usize = 64;

/// When the layers were read: how much had been copied up, and how often a name had been removed or
/// given to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The former.
    pub moment: Moment,
    removals: u64,
}

/// The listing of a directory.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its names.
    pub listing: Arc<Listing>,
    /// When they were read.
    pub read: Reading,
}

/// The listings of late, the one that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<Vec<(u64, Kept)>>);

impl Listings {
    /// The listing of a node, if it is kept.
    pub(super) fn get(&self, node: u64) -> Option<Kept> {
        let mut all = lock(&self.0);
        let at = all.iter().position(|(id, _)| *id == node)?;
        let found = all.remove(at);
        let kept = found.1.clone();
        all.push(found);
        Some(kept)
    }

    /// Keeps a listing instead of the one before.
    fn put(&self, node: u64, kept: Kept) {
        let mut all = lock(&self.0);
        all.retain(|(id, _)| *id != node);
        all.push((node, kept));
    }

    /// The listing that has to go when one of another node comes.
    fn surplus(&self, node: u64) -> Option<(u64, Arc<Listing>)> {
        let all = lock(&self.0);
        let full = all.len() >= LISTINGS && all.iter().all(|(id, _)| *id != node);
        let (oldest, kept) = all.first().filter(|_| full)?;
        Some((*oldest, Arc::clone(&kept.listing)))
    }

    /// Lets go of a listing, unless there is a newer one of that node.
    fn remove(&self, node: u64, listing: &Arc<Listing>) {
        lock(&self.0).retain(|(id, kept)| *id != node || !Arc::ptr_eq(&kept.listing, listing));
    }

    /// Lets go of what is kept of a directory that is no more.
    pub(super) fn forget(&self, node: u64) {
        lock(&self.0).retain(|(id, _)| *id != node);
    }
}

impl Fs {
    /// Which state of the layers is read from now on.
    pub(super) fn reading(&self) -> Reading {
        let removals = self.removals.load(std::sync::atomic::Ordering::Acquire);
        Reading { moment: self.table.moment(), removals }
    }

    /// Keeps the listing of a node. Of the one that makes room for it the places are left to its node.
    pub(super) fn keep_listing(&self, node: u64, kept: Kept) {
        if let Some((oldest, listing)) = self.listings.surplus(node) {
            // First: who comes back meanwhile finds the one or the other.
            if let Ok(oldest) = self.table.get(oldest) {
                oldest.state().extra().places = Some(Arc::new(listing.places()));
            }
            self.listings.remove(oldest, &listing);
        }
        self.listings.put(node, kept);
    }
}
