//! The table of nodes: found by the kernel's number, and by the real inode.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Extra, Node, State};
use crate::union::{Found, Name, Place, RealId, Union, lock};

/// The root's number, which the protocol fixes.
pub const ROOT: u64 = 1;

const SHARDS: usize = 32;

#[derive(Debug)]
struct Slot {
    node: Arc<Node>,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
}

/// How many files and directories had been copied up when the layers were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

/// Directories that the kernel has forgotten and that other nodes still refer to.
///
/// Were they dropped, the next lookup would make a second node of the same directory, and the two would
/// know nothing of each other's copy-ups and renames.
#[derive(Debug, Default)]
struct Dozing {
    ids: Vec<u64>,
    /// How many were left the last time that the others were dropped.
    kept: usize,
}

/// So many directories may doze before it is asked who still refers to them.
const DOZING: usize = 64;

/// All nodes that the kernel knows, and those that these refer to.
///
/// Locks: a shard of `reals` before a shard of `nodes`, and a node's own before either.
#[derive(Debug)]
pub struct Table {
    nodes: [Mutex<HashMap<u64, Slot>>; SHARDS],
    reals: [Mutex<HashMap<RealId, u64>>; SHARDS],
    next: AtomicU64,
    copied: AtomicU64,
    dozing: Mutex<Dozing>,
}

impl Table {
    /// A table with the root alone.
    pub fn new(root: &Found) -> Self {
        let table = Self {
            nodes: std::array::from_fn(|_| Mutex::default()),
            reals: std::array::from_fn(|_| Mutex::default()),
            next: AtomicU64::new(ROOT + 1),
            copied: AtomicU64::new(0),
            dozing: Mutex::default(),
        };
        let state = State {
            parent: None,
            name: Name::from(OsStr::new("")),
            place: root.place.clone(),
            real: root.id,
            extra: None,
        };
        let node = Node::new(ROOT, root.ino, FileType::Directory, state);
        lock(table.node_shard(ROOT)).insert(ROOT, Slot { node, lookups: 1 });
        lock(table.real_shard(root.id)).insert(root.id, ROOT);
        table
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder below SHARDS")]
    fn node_shard(&self, id: u64) -> &Mutex<HashMap<u64, Slot>> {
        &self.nodes[(id % SHARDS as u64) as usize]
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder below SHARDS")]
    fn real_shard(&self, real: RealId) -> &Mutex<HashMap<RealId, u64>> {
        &self.reals[(real.ino.wrapping_add(real.fs.into()) % SHARDS as u64) as usize]
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether there is no node, which never happens while mounted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A node by its number.
    ///
    /// # Errors
    /// `STALE` when the kernel asks for one that it has forgotten.
    pub fn get(&self, id: u64) -> Result<Arc<Node>, Errno> {
        let shard = lock(self.node_shard(id));
        shard.get(&id).map(|slot| Arc::clone(&slot.node)).ok_or(Errno::STALE)
    }

    /// A node by its real inode, without counting it as told to the kernel.
    pub fn find(&self, real: RealId) -> Option<Arc<Node>> {
        let id = *lock(self.real_shard(real)).get(&real)?;
        self.get(id).ok()
    }

    /// The time from which on what is read of the layers is news to [`Self::intern`].
    pub fn moment(&self) -> Moment {
        Moment(self.copied.load(Ordering::Acquire))
    }

    /// Records that a file or a directory is in the upper layer now, before its lower inode leads to its
    /// node no more.
    pub fn copied_up(&self) {
        self.copied.fetch_add(1, Ordering::AcqRel);
    }

    /// The node for what a lookup found, counted as told to the kernel once more.
    ///
    /// None if something was copied up since `moment` and what was found may be out of date for it: what has no
    /// node, which may be this very file and would get a second one of what it was, and a file whose data was elsewhere, which
    /// may be with it by now. The layers have to be read again then.
    pub fn intern(
        &self,
        union: &Union,
        found: &Found,
        parent: &Arc<Node>,
        name: &OsStr,
        moment: Moment,
    ) -> Option<Arc<Node>> {
        let kind = FileType::from_raw_mode(found.stat.stx_mode.into());
        let outdated = || self.moment() != moment;
        if matches!(&found.place, Place::File { data: Some(_), .. }) && outdated() {
            return None;
        }
        let mut reals = lock(self.real_shard(found.id));
        if let Some(id) = reals.get(&found.id)
            && let Some(slot) = lock(self.node_shard(*id)).get_mut(id)
            && slot.node.kind == kind
        {
            slot.lookups += 1;
            let node = Arc::clone(&slot.node);
            drop(reals);
            Self::refresh(union, &node, found, parent, name);
            return Some(node);
        }
        if outdated() {
            return None;
        }
        Some(self.add(&mut reals, found, parent, name))
    }

    /// The node for a file that was just made, counted as told to the kernel.
    ///
    /// Whatever its inode leads to is the node of a file that was removed: the layer's file system gives
    /// the number out again before the removal is recorded here.
    pub fn made(&self, found: &Found, parent: &Arc<Node>, name: &OsStr) -> Arc<Node> {
        let node = self.add(&mut lock(self.real_shard(found.id)), found, parent, name);
        node.bare.store(true, Ordering::Release);
        node
    }

    fn add(
        &self,
        reals: &mut HashMap<RealId, u64>,
        found: &Found,
        parent: &Arc<Node>,
        name: &OsStr,
    ) -> Arc<Node> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let state = State {
            parent: Some(Arc::clone(parent)),
            name: name.into(),
            place: found.place.clone(),
            real: found.id,
            extra: None,
        };
        let kind = FileType::from_raw_mode(found.stat.stx_mode.into());
        let node = Node::new(id, found.ino, kind, state);
        let slot = Slot { node: Arc::clone(&node), lookups: 1 };
        lock(self.node_shard(id)).insert(id, slot);
        reals.insert(found.id, id);
        node
    }

    /// Takes over under which name a node was found last, so that a file with several names keeps
    /// one that is there.
    fn refresh(union: &Union, node: &Arc<Node>, found: &Found, parent: &Arc<Node>, name: &OsStr) {
        if node.is_dir() || node.id == parent.id {
            return;
        }
        let mut state = node.state();
        let is_filled = matches!((&found.place, &state.place), (
            Place::File { dir: new, data: Some(_), .. },
            Place::File { dir, data: None, .. },
        ) if union.is_upper(new) && union.is_upper(dir));
        if is_filled {
            // Its data is with it by now: this was found before.
            return;
        }
        let same = state.parent.as_ref().is_some_and(|known| known.id == parent.id);
        if !same || &*state.name != name {
            state.parent = Some(Arc::clone(parent));
            state.name = name.into();
        }
        if let (Place::File { dir: new, name: new_name, .. }, Place::File { dir, name, .. }) =
            (&found.place, &state.place)
            && (union.is_upper(new) || !union.is_upper(dir))
            && !(Arc::ptr_eq(new, dir) && new_name == name)
        {
            state.place = found.place.clone();
        }
        if let Some(extra) = &mut state.extra
            && union.is_upper_place(&found.place)
        {
            extra.orphan = None;
        }
    }

    /// Adds a node that takes another's place, not yet told to the kernel; it stays as long as the
    /// other, which counts as one telling.
    pub fn succeed(&self, old: &Node, state: State) -> Arc<Node> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let node = Node::new(id, old.ino, old.kind, state);
        let slot = Slot { node: Arc::clone(&node), lookups: 1 };
        lock(self.node_shard(id)).insert(id, slot);
        node
    }

    /// Adds a node for a file that has no name.
    pub fn insert_unnamed(&self, ino: u64, kind: FileType, state: State) -> Arc<Node> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let real = state.real;
        let node = Node::new(id, ino, kind, state);
        let slot = Slot { node: Arc::clone(&node), lookups: 1 };
        lock(self.node_shard(id)).insert(id, slot);
        lock(self.real_shard(real)).insert(real, id);
        node
    }

    /// Counts a node as told to the kernel once more.
    pub fn told(&self, node: &Node) {
        if let Some(slot) = lock(self.node_shard(node.id)).get_mut(&node.id) {
            slot.lookups += 1;
        }
    }

    /// Lets a real inode lead to a node.
    pub fn alias(&self, real: RealId, id: u64) {
        lock(self.real_shard(real)).insert(real, id);
    }

    /// Lets a real inode lead to this node no more.
    pub fn unalias(&self, real: RealId, id: u64) {
        let mut reals = lock(self.real_shard(real));
        if reals.get(&real) == Some(&id) {
            reals.remove(&real);
        }
    }

    /// Counts `lookups` tellings as forgotten, and drops the node with the last, unless it is a
    /// directory that others refer to; returns what takes system calls to drop.
    pub fn forget(&self, id: u64, lookups: u64) -> Option<Box<Extra>> {
        if id == ROOT {
            return None;
        }
        let mut shard = lock(self.node_shard(id));
        let slot = shard.get_mut(&id)?;
        slot.lookups = slot.lookups.saturating_sub(lookups);
        if slot.lookups > 0 {
            return None;
        }
        drop(shard);
        let unused = self.drop_unused(id);
        if unused.is_none() {
            self.doze(id);
        }
        unused?
    }

    /// Drops a node unless it is needed, and returns what it leaves; none if it has to be looked at
    /// later.
    fn drop_unused(&self, id: u64) -> Option<Option<Box<Extra>>> {
        let mut shard = lock(self.node_shard(id));
        let Some(slot) = shard.get(&id) else { return Some(None) };
        if slot.lookups > 0 {
            return Some(None);
        }
        // Nobody can get hold of it meanwhile: it is found through this shard alone.
        if slot.node.is_dir() && Arc::strong_count(&slot.node) > 1 {
            return None;
        }
        let gone = shard.remove(&id);
        drop(shard);
        Some(gone.and_then(|slot| self.removed(&slot.node)))
    }

    /// Keeps a directory until nothing refers to it, which is asked when there are many.
    fn doze(&self, id: u64) {
        let mut dozing = lock(&self.dozing);
        dozing.ids.push(id);
        if dozing.ids.len() < DOZING.max(2 * dozing.kept) {
            return;
        }
        let mut ids = std::mem::take(&mut dozing.ids);
        ids.sort_unstable();
        ids.dedup();
        // Those made later are rather below those made earlier.
        ids.reverse();
        ids.retain(|id| self.drop_unused(*id).is_none());
        dozing.kept = ids.len();
        dozing.ids = ids;
    }

    fn removed(&self, node: &Arc<Node>) -> Option<Box<Extra>> {
        let (real, extra) = {
            let mut state = node.state();
            (state.real, state.extra.take())
        };
        self.unalias(real, node.id);
        let mut extra = extra?;
        if let Some(lower) = extra.lower {
            self.unalias(lower, node.id);
        }
        if let Some(next) = extra.successor.take() {
            drop(self.forget(next.id, 1));
        }
        Some(extra)
    }
}
