//! Nodes: the inodes that the kernel knows, and where each is in the layers.

mod table;

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::FileType;

pub use table::{Moment, ROOT, Table};

use crate::passthrough::Backing;
use crate::union::{Name, Place, Places, RealId, lock};

/// A node.
///
/// The lock of its state is held while it is copied up or renamed, so that both see the name as it
/// is. Locks are taken from child to parent, and a parent's is never held over a system call by
/// someone who holds a child's.
#[derive(Debug)]
pub struct Node {
    /// What the kernel calls it; never used twice.
    pub id: u64,
    /// The inode number shown, which copy-up does not change.
    pub ino: u64,
    /// The type.
    pub kind: FileType,
    /// Whether it was made through this mount and nobody has set an extended attribute since.
    pub bare: AtomicBool,
    /// Whether somebody may have it mapped and write to it there, of which nobody is told.
    pub mapped: AtomicBool,
    state: Mutex<State>,
}

/// What changes about a node.
#[derive(Debug)]
pub struct State {
    /// The directory that it was last seen in; none for the root and for what has no name any more.
    pub parent: Option<Arc<Node>>,
    /// Its name there.
    pub name: Name,
    /// Where it is in the layers.
    pub place: Place,
    /// The identity by which the table finds it.
    pub real: RealId,
    /// What only few nodes have.
    pub extra: Option<Box<Extra>>,
}

/// What only nodes have that are open or were listed, or that lost their name.
#[derive(Debug, Default)]
pub struct Extra {
    /// How many open files there are.
    pub opens: u32,
    /// How many of them were opened to be executed.
    pub runs: u32,
    /// What the kernel reads and writes without us; after the last close it may stay for the next
    /// open.
    pub backing: Option<Arc<Backing>>,
    /// Whether the node is among those that keep their backing file while nobody has it open.
    pub parked: bool,
    /// Whether it was opened since it was last looked at there.
    pub again: bool,
    /// The real file, while it is open here.
    pub file: Option<File>,
    /// The real file of a node without a name.
    pub orphan: Option<Arc<OwnedFd>>,
    /// The identity that the other links of its lower file have.
    pub lower: Option<RealId>,
    /// The node that took this one's place when it was copied up while the kernel read the lower file
    /// without us: an inode's backing file cannot change while it is open.
    pub successor: Option<Arc<Node>>,
    /// The places of a directory's names, when its listing is not kept any more: somebody may have it
    /// open and go on at one of them.
    pub places: Option<Arc<Places>>,
}

/// A real file that is open here.
#[derive(Clone, Debug)]
pub struct File {
    /// The file.
    pub fd: Arc<OwnedFd>,
    /// Whether it can be written to.
    pub writable: bool,
}

impl Node {
    /// A node that no request knows yet.
    pub fn new(id: u64, ino: u64, kind: FileType, state: State) -> Arc<Self> {
        let (bare, mapped) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { id, ino, kind, bare, mapped, state: Mutex::new(state) })
    }

    /// Locks what changes.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// The node that stands for this file now.
    pub fn live(self: &Arc<Self>) -> Arc<Self> {
        let mut node = Arc::clone(self);
        loop {
            let next = node.state().extra.as_ref().and_then(|extra| extra.successor.clone());
            match next {
                Some(next) => node = next,
                None => return node,
            }
        }
    }

    /// Whether another node stands for this file now.
    pub fn is_superseded(&self) -> bool {
        self.state().extra.as_ref().is_some_and(|extra| extra.successor.is_some())
    }
}

impl State {
    /// What few nodes have, made when it is missing.
    pub fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Takes the backing file that nobody has open, to be given back.
    pub fn take_idle_backing(&mut self) -> Option<Arc<Backing>> {
        self.extra.as_mut().filter(|extra| extra.opens == 0)?.backing.take()
    }

    /// Takes the backing file of a node that nobody has open, unless it was opened since the last time
    /// and may be spared once more; says whether it stays among those to be looked at.
    pub fn unpark(&mut self, spare: bool) -> bool {
        let Some(extra) = &mut self.extra else { return false };
        if extra.backing.is_some() && spare && (extra.opens > 0 || extra.again) {
            extra.again = false;
            return true;
        }
        extra.parked = false;
        drop(self.take_idle_backing());
        self.trim();
        false
    }

    /// Gives the memory of what is not needed any more back.
    pub fn trim(&mut self) {
        let spare = self.extra.as_ref().is_some_and(|extra| {
            extra.opens == 0
                && extra.backing.is_none()
                && extra.orphan.is_none()
                && extra.lower.is_none()
                && extra.successor.is_none()
                && extra.places.is_none()
        });
        if spare {
            self.extra = None;
        }
    }
}

#[cfg(test)]
mod tests;
