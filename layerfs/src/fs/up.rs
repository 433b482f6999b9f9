//! Bringing nodes into the upper layer.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cow::meta::Meta;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Fs;
use crate::node::{Node, State};
use crate::stats::Stats;
use crate::union::{Bare, Lower, Name, Place, RealDir, marks};

/// How much of a file is to be in the upper layer.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// Its first bytes, and all that is not data.
    Data(u64),
    /// All that is not data.
    Metadata,
    /// The same, and the data is to be found under any name.
    Movable,
}

impl Fs {
    /// The upper directory of a directory node, made if it is not there, and those above it.
    ///
    /// # Errors
    /// What the upper's file system says; `ROFS` without an upper layer.
    pub(super) fn upper_dir(&self, node: &Arc<Node>) -> Result<Arc<RealDir>, Errno> {
        self.writable()?;
        let mut chain = vec![Arc::clone(node)];
        let mut upper = loop {
            let next = {
                let state = chain.last().ok_or(Errno::IO)?.state();
                match self.upper_of(&state)? {
                    Some(upper) => break upper,
                    None => state.parent.clone().ok_or(Errno::NOENT)?,
                }
            };
            chain.push(next);
        };
        chain.pop();
        while let Some(node) = chain.pop() {
            upper = self.copy_up_dir(&node, &upper)?;
        }
        Ok(upper)
    }

    fn upper_of(&self, state: &State) -> Result<Option<Arc<RealDir>>, Errno> {
        match &state.place {
            Place::Dir(stack) => {
                let top = stack.first().ok_or(Errno::IO)?;
                Ok(self.union.is_upper(top).then(|| Arc::clone(top)))
            }
            Place::File { .. } => Err(Errno::NOTDIR),
        }
    }

    fn copy_up_dir(&self, node: &Arc<Node>, to: &Arc<RealDir>) -> Result<Arc<RealDir>, Errno> {
        let mut state = node.state();
        if let Some(upper) = self.upper_of(&state)? {
            return Ok(upper);
        }
        let Place::Dir(stack) = &state.place else { return Err(Errno::NOTDIR) };
        let lower = stack.first().ok_or(Errno::IO)?;
        self.union.copy_up_dir(lower, to, &state.name)?;
        self.table.copied_up();
        Stats::add(&self.stats.copy_ups);
        let upper = RealDir::fresh(to, &state.name);
        let stack = std::iter::once(Arc::clone(&upper)).chain(stack.iter().cloned()).collect();
        state.place = Place::Dir(stack);
        Ok(upper)
    }

    /// Copies a node up unless it is in the upper layer, with its data or, where metadata is enough and
    /// `metacopy=on`, without.
    ///
    /// # Errors
    /// As [`Self::copy_up`].
    pub(super) fn copy_up_metadata(&self, node: &Arc<Node>) -> Result<(), Errno> {
        self.copy_up_as(node, None).map(drop)
    }

    /// The same for a node that is about to get another mode: a copy has it from the start. Says whether
    /// one was made.
    ///
    /// # Errors
    /// As [`Self::copy_up`].
    pub(super) fn copy_up_as(&self, node: &Arc<Node>, mode: Option<u16>) -> Result<bool, Errno> {
        self.bring_up(node, self.without_data(node, Wanted::Metadata), mode)
    }

    /// The same for a node that is about to get another name.
    ///
    /// # Errors
    /// As [`Self::copy_up`].
    pub(super) fn copy_up_to_move(&self, node: &Arc<Node>) -> Result<(), Errno> {
        self.bring_up(node, self.without_data(node, Wanted::Movable), None).map(drop)
    }

    /// What is wanted of a node of which metadata is enough; the kernel believes no other marks than
    /// root's.
    fn without_data(&self, node: &Node, wanted: Wanted) -> Wanted {
        let may = self.options.metacopy && self.union.prefix == marks::Prefix::Trusted;
        if may && node.kind == FileType::RegularFile { wanted } else { Wanted::Data(u64::MAX) }
    }

    /// Copies a node up unless it is in the upper layer; `length` is how much of its data is wanted,
    /// all if none.
    ///
    /// The node may be superseded by another afterwards ([`Node::live`]).
    ///
    /// # Errors
    /// What the file systems say; the node is then as it was.
    pub(super) fn copy_up(&self, node: &Arc<Node>, length: Option<u64>) -> Result<(), Errno> {
        self.bring_up(node, Wanted::Data(length.unwrap_or(u64::MAX)), None).map(drop)
    }

    /// Copies a node up; says whether it is a copy that was made now, and with this mode.
    fn bring_up(&self, node: &Arc<Node>, wanted: Wanted, mode: Option<u16>) -> Result<bool, Errno> {
        if node.is_dir() {
            return self.upper_dir(node).map(|_| false);
        }
        self.writable()?;
        loop {
            let parent = {
                let state = node.state();
                let Place::File { dir, .. } = &state.place else { return Err(Errno::IO) };
                if self.union.is_upper(dir) {
                    match &state.place {
                        Place::File { data: Some(_), .. } => {}
                        _ => return Ok(false),
                    }
                }
                state.parent.clone()
            };
            let upper = match &parent {
                Some(parent) => Some(self.upper_dir(parent)?),
                None => None,
            };
            let mut state = node.state();
            let same = match (&parent, &state.parent) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            if same {
                return self.copy_up_file(node, &mut state, upper.as_ref(), wanted, mode);
            }
        }
    }

    fn copy_up_file(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        to: Option<&Arc<RealDir>>,
        wanted: Wanted,
        mode: Option<u16>,
    ) -> Result<bool, Errno> {
        let Place::File { dir, name, data } = state.place.clone() else { return Err(Errno::IO) };
        if self.union.is_upper(&dir) {
            if data.is_some() {
                self.fill(node, state, wanted)?;
            }
            return Ok(false);
        }
        let mut stat = self.union.look(dir.layer, &*self.union.fds.get(&dir)?, &name)?;
        let several = stat.stx_nlink > 1 && data.is_none();
        let source = data.clone().unwrap_or_else(|| Box::new((Arc::clone(&dir), name.clone())));
        let bare = match wanted {
            Wanted::Metadata | Wanted::Movable if !several && to.is_some() && stat.stx_size > 0 => {
                let path = self.union.data_path(&source.0, &source.1)?;
                path.map(|path| Bare { length: stat.stx_size, path })
            }
            _ => None,
        };
        let length = match (wanted, &bare) {
            (_, Some(_)) => 0,
            (Wanted::Data(length), None) => length.min(stat.stx_size),
            (Wanted::Metadata | Wanted::Movable, None) => stat.stx_size,
        };
        let file = match node.kind {
            FileType::RegularFile if length > 0 => {
                let file = self.open_lower(&dir, &name, &data)?;
                let meta = match &data {
                    Some(_) => cow::at::meta_of(&file)?,
                    None => Meta::from(&stat),
                };
                Some((file, meta))
            }
            _ => None,
        };
        let index = several.then(|| self.union.index_name(&dir, &name)).flatten();
        let kept = bare.is_some().then_some(source);
        if let Some(mode) = mode {
            stat.stx_mode = stat.stx_mode & !0o7777 | mode;
        }
        let whole = data.is_none() && !several && length == stat.stx_size;
        let lower = Lower { dir: &dir, name: &name, data: file, length, stat: &stat, bare, whole };
        if to.is_none() && several && index.is_none() {
            // Another name leads to it; the kernel looks that up again.
            return Err(Errno::STALE);
        }
        let named = to.map(|to| (to, &*state.name));
        let (copied, file) = self.union.copy_up_file(&lower, named, index.as_deref())?;
        Stats::add(&self.stats.copy_ups);
        let place = match (to, &self.union.work, index) {
            (Some(to), ..) => {
                Place::File { dir: Arc::clone(to), name: state.name.clone(), data: kept }
            }
            (None, Some(work), Some(entry)) => {
                let dir = Arc::clone(work.index.as_ref().ok_or(Errno::ROFS)?);
                Place::File { dir, name: entry.into_boxed_os_str(), data: None }
            }
            (None, ..) => {
                let fd = Arc::new(file.ok_or(Errno::STALE)?);
                state.extra().orphan = Some(fd);
                let dir = Arc::clone(&self.union.layers[0].root);
                Place::File { dir, name: Name::from(std::ffi::OsStr::new("")), data: None }
            }
        };
        self.settle_copy(node, state, place, copied.id, several);
        Ok(true)
    }

    /// Gives a node whose metadata is in the upper layer its data there as well, if that is wanted.
    fn fill(&self, node: &Arc<Node>, state: &mut State, wanted: Wanted) -> Result<(), Errno> {
        let Place::File { dir, name, data } = state.place.clone() else { return Err(Errno::IO) };
        let length = match wanted {
            Wanted::Data(length) => length,
            Wanted::Metadata => return Ok(()),
            Wanted::Movable if self.union.may_move(&*self.union.fds.get(&dir)?, &name) => {
                return Ok(());
            }
            Wanted::Movable => u64::MAX,
        };
        let data = self.open_lower(&dir, &name, &data)?;
        self.union.fill(&self.open_real(state, true)?, &data, length)?;
        Stats::add(&self.stats.copy_ups);
        let place = Place::File { dir, name, data: None };
        self.settle_copy(node, state, place, state.real, false);
        Ok(())
    }

    /// Records that a node is in the upper layer now.
    fn settle_copy(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        place: Place,
        real: crate::union::RealId,
        several: bool,
    ) {
        let lower = state.real;
        self.table.copied_up();
        // What is open reads the same file as before if only the metadata was copied.
        let bare = matches!(place, Place::File { data: Some(_), .. });
        let passed = !bare
            && state.extra.as_ref().is_some_and(|extra| {
                extra.opens > 0 && extra.backing.as_ref().is_some_and(|backing| !backing.upper)
            });
        if let Some(extra) = &mut state.extra
            && !passed
            && !bare
            && extra.file.take().is_some()
        {
            self.file_closed();
        }
        if !passed {
            drop(state.take_idle_backing());
            state.place = place;
            state.real = real;
            self.table.alias(real, node.id);
            if several {
                state.extra().lower = Some(lower);
            } else if lower != real {
                self.table.unalias(lower, node.id);
            }
            return;
        }
        let mut fresh = State {
            parent: state.parent.clone(),
            name: state.name.clone(),
            place,
            real,
            extra: None,
        };
        if several {
            fresh.extra().lower = Some(lower);
        }
        // A copy without a name is reached by its fd alone.
        if let Some(orphan) = state.extra.as_mut().and_then(|extra| extra.orphan.take()) {
            fresh.extra().orphan = Some(orphan);
        }
        let next = self.table.succeed(node, fresh);
        self.table.alias(real, next.id);
        if several {
            self.table.alias(lower, next.id);
        } else {
            self.table.unalias(lower, node.id);
        }
        state.extra().successor = Some(next);
        self.forget_attributes(node.id);
    }

    /// Opens the file that holds a lower node's data.
    pub(super) fn open_lower(
        &self,
        dir: &Arc<RealDir>,
        name: &Name,
        data: &Option<Box<(Arc<RealDir>, Name)>>,
    ) -> Result<OwnedFd, Errno> {
        let (dir, name) = match data {
            Some(data) => (&data.0, &data.1),
            None => (dir, name),
        };
        let mut flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nothing of a lower layer changes, not even the access time.
        flags.set(OFlags::NOATIME, !self.union.is_upper(dir));
        let fd = self.union.fds.get(dir)?;
        match rustix::fs::openat(&*fd, &**name, flags, Mode::empty()) {
            // Only the owner may leave the access time alone.
            Err(Errno::PERM) => {
                rustix::fs::openat(&*fd, &**name, flags - OFlags::NOATIME, Mode::empty())
            }
            answer => answer,
        }
    }

    /// Tells the kernel that what it knows of a node's attributes holds no longer.
    pub(super) fn forget_attributes(&self, node: u64) {
        /// `FUSE_NOTIFY_INVAL_INODE`.
        const INVAL_INODE: i32 = 2;
        let Some(device) = self.device.get() else { return };
        let mut message = Vec::with_capacity(40);
        message.extend_from_slice(&40_u32.to_ne_bytes());
        message.extend_from_slice(&INVAL_INODE.to_ne_bytes());
        message.extend_from_slice(&0_u64.to_ne_bytes());
        message.extend_from_slice(&node.to_ne_bytes());
        // A negative offset leaves the file's pages alone.
        message.extend_from_slice(&(-1_i64).to_ne_bytes());
        message.extend_from_slice(&0_i64.to_ne_bytes());
        if let Err(error) = rustix::io::write(device, &message) {
            tracing::debug!(%error, node, "attributes stay cached");
        }
    }
}
