//! A stock of snapshots that were written to beforehand.
//!
//! ```text
//! stock/<n>/rw    a writable snapshot of a committed layer; `new` until it can be taken
//! ```
//!
//! What the first write into a snapshot costs grows with the tree, up to some hundred blocks for each of its ends, and
//! whoever ends the transaction pays for it: a commit right after. So a thread makes
//! a snapshot of a layer that is built upon again and again, writes to it ([`spare`]) and ends the transaction, and the
//! next layer takes it by a rename. Which layers, and when, is in [`shelf`].
//!
//! A spare promises nothing: what a crash leaves is removed by a repair, as the store's next start does. There is none where
//! it would be counted for somebody ([`Accounting::Full`]), and none while space is short.

mod shelf;
mod spare;

use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use cow::error::{Error, Result};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::quota::{self, Accounting};
use super::removal::Subvolumes;
use super::{RW, removal};
use crate::home::crew::{Crew, Shared, State};
use crate::home::freeing::Delete as _;
use crate::home::fs;
use crate::id::LayerId;
use shelf::{Order, Shelf, Spare};

/// The directory of the spares in a home.
pub(super) const DIR: &str = "stock";
/// Space is short when less than one part in so many is free.
const SHORT: u64 = 20;

/// The stock of one home. Dropping it deletes the spares.
#[derive(Debug)]
pub(super) struct Stock {
    root: Arc<OwnedFd>,
    crew: Crew<Shelf>,
}

impl Stock {
    /// The stock of the home with this directory.
    pub(super) fn new(root: BorrowedFd<'_>) -> std::io::Result<Self> {
        Ok(Self { root: Arc::new(root.try_clone_to_owned()?), crew: Crew::default() })
    }

    /// Notes that a layer is made on `parent`, whose tree is `origin`, and puts a spare in its place if there is one. The
    /// value is the transaction from which on what is written to it is the layer's.
    pub(super) fn take(&self, parent: &LayerId, origin: &str, dir: BorrowedFd<'_>) -> Option<u64> {
        let mut state = self.crew.lock();
        let planned = state.todo.next();
        let Some(Spare { place, begun }) = state.todo.take(parent, origin, Instant::now()) else {
            self.see_to(state, planned);
            return None;
        };
        drop(state);
        let taken = self.place(&place, dir).unwrap_or_else(|error| {
            tracing::warn!(%parent, %error, "a spare snapshot is not taken");
            false
        });
        let mut state = self.crew.lock();
        state.todo.waste(place, Instant::now());
        self.see_to(state, planned);
        taken.then_some(begun)
    }

    /// Puts a spare in its place; whether it may be.
    fn place(&self, place: &str, dir: BorrowedFd<'_>) -> Result<bool> {
        if quota::accounting(&self.root) == Accounting::Full {
            return Ok(false);
        }
        let from: PathBuf = [DIR, place, RW].iter().collect();
        fs::rename(&self.root, from, dir, RW).map(|()| true)
    }

    /// Notes that a layer was imported, whose tree is `origin`.
    pub(super) fn expect(&self, parent: &LayerId, origin: &str) {
        let mut state = self.crew.lock();
        let planned = state.todo.next();
        state.todo.expect(parent, origin, Instant::now());
        self.see_to(state, planned);
    }

    /// Drops what there is of a layer that is removed.
    pub(super) fn forget(&self, parent: &LayerId) {
        let mut state = self.crew.lock();
        let planned = state.todo.next();
        state.todo.forget(parent, Instant::now());
        self.see_to(state, planned);
    }

    /// What an administrator is told: how many spares can be taken now.
    pub(super) fn fact(&self) -> String {
        format!("{} of at most {}", self.crew.lock().todo.spares(), shelf::MOST)
    }

    /// Sees that a thread does what is to be done, if that is sooner than what was planned.
    fn see_to(&self, mut state: MutexGuard<'_, State<Shelf>>, planned: Option<Instant>) {
        let Some(next) = state.todo.next() else { return };
        if state.threads() == 0 {
            let root = Arc::clone(&self.root);
            let started = self.crew.start(&mut state, "stock", move |shared| run(shared, &root));
            if let Err(error) = started {
                tracing::warn!(%error, "no thread to keep spare snapshots");
                state.todo.clear(Instant::now());
                let waste = state.todo.all_wasted();
                drop(state);
                discard(&self.root, &waste);
            }
        } else if planned.is_none_or(|planned| next < planned) {
            drop(state);
            self.crew.wake();
        }
    }
}

fn run<'s>(shared: &'s Shared<Shelf>, root: &OwnedFd) -> MutexGuard<'s, State<Shelf>> {
    let mut state = shared.lock();
    loop {
        let now = Instant::now();
        state.todo.expire(now);
        let waste = match state.ending {
            true => {
                state.todo.clear(now);
                state.todo.all_wasted()
            }
            false => state.todo.wasted(now),
        };
        let orders = state.todo.orders(now);
        if !waste.is_empty() || !orders.is_empty() {
            drop(state);
            discard(root, &waste);
            let made = fill(root, &orders);
            state = shared.lock();
            waste.iter().for_each(|place| state.todo.deleted(place));
            settle_orders(&mut state.todo, orders, made, now);
            continue;
        }
        let Some(next) = state.todo.next() else { return state };
        let wait = next.saturating_duration_since(now);
        state = shared.wait(state, wait, |state| {
            !state.ending && state.todo.next().is_some_and(|sooner| sooner >= next)
        });
    }
}

/// What became of each order, and the transaction from which on the spares can be taken; none where there must be no
/// spares now.
type Filled = Option<(Vec<Result<()>>, u64)>;

/// Makes what was ordered, if there may be spares.
fn fill(root: &OwnedFd, orders: &[Order]) -> Filled {
    if orders.is_empty() || quota::accounting(root) == Accounting::Full || is_short(root) {
        return None;
    }
    spare::make(root, orders)
        .inspect_err(|error| tracing::warn!(%error, "no spare snapshots are kept"))
        .ok()
}

/// Puts on the shelf what was made since a moment.
fn settle_orders(shelf: &mut Shelf, orders: Vec<Order>, filled: Filled, since: Instant) {
    let now = Instant::now();
    let Some((made, begun)) = filled else {
        if !orders.is_empty() {
            orders.into_iter().for_each(|order| shelf.fail(order, now));
            shelf.clear(now);
        }
        return;
    };
    for (order, made) in orders.into_iter().zip(made) {
        match made {
            Ok(()) => shelf.put(order, begun, now),
            Err(error) => {
                tracing::debug!(parent = %order.parent, %error, "no spare snapshot is kept");
                shelf.fail(order, now);
            }
        }
    }
    shelf.rest(now.duration_since(since), now);
}

/// Whether the file system has little space left.
fn is_short(root: &OwnedFd) -> bool {
    rustix::fs::fstatvfs(root).is_ok_and(|space| space.f_bavail < space.f_blocks / SHORT)
}

/// Deletes directories of the stock, of which a failure is logged.
fn discard(root: &OwnedFd, places: &[String]) {
    if places.is_empty() {
        return;
    }
    let deleted = fs::open_dir(root, DIR).and_then(|stock| delete(&stock, places));
    if let Err(error) = deleted {
        tracing::warn!(%error, "spare snapshots stay");
    }
}

/// The names in the stock of a home that nobody knows: what a crash left.
pub(super) fn leftovers(root: BorrowedFd<'_>, stock: Option<&Stock>) -> Result<Vec<OsString>> {
    let dir = match fs::open_dir(root, DIR) {
        Err(error) if error.kind() == cow::ErrorKind::NotFound => return Ok(Vec::new()),
        dir => dir?,
    };
    // A place is known before it is there, and until it is gone.
    let state = stock.map(|stock| stock.crew.lock());
    let known = |name: &OsString| {
        state.as_ref().zip(name.to_str()).is_some_and(|(state, name)| state.todo.knows(name))
    };
    Ok(fs::names(&dir)?.into_iter().filter(|name| !known(name)).collect())
}

/// Deletes what a crash left in the stock of a home.
pub(super) fn clear(root: BorrowedFd<'_>, names: &[OsString]) -> Result<()> {
    match names {
        [] => Ok(()),
        names => delete(&fs::open_dir(root, DIR)?, names),
    }
}

/// Deletes directories in the stock with what is in them; what is gone is no error. Those from which a spare was taken are
/// empty.
fn delete(stock: &OwnedFd, places: &[impl AsRef<OsStr>]) -> Result<()> {
    let mut full = Vec::new();
    for place in places.iter().map(AsRef::as_ref) {
        match rustix::fs::unlinkat(stock, place, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => full.push(place),
            Err(errno) => return Err(Error::sys("rmdir", place, errno)),
        }
    }
    if full.is_empty() {
        return Ok(());
    }
    removal::settle(stock)?;
    full.into_iter().try_for_each(|place| Subvolumes.delete(stock, place))
}
