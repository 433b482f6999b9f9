//! Replies: what follows the header of one.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

/// How long the kernel may keep what it is told.
pub type Ttl = Duration;

/// `fuse_attr`: the attributes of one inode as the mount shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of stat(2)")]
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub blksize: u32,
}

/// `fuse_entry_out`: a name's node. Node 0 says that there is no such name, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryOut {
    /// The node id.
    pub node: u64,
    /// How long the name leads to the node.
    pub entry_ttl: Ttl,
    /// How long the attributes hold.
    pub attr_ttl: Ttl,
    /// The attributes.
    pub attr: Attr,
}

/// One entry of a directory listing that carries its node.
#[derive(Clone, Copy, Debug)]
pub struct DirentPlus<'a> {
    /// The node; node 0 when it is not known.
    pub entry: EntryOut,
    /// The inode number that a plain listing shows.
    pub ino: u64,
    /// The place after this entry.
    pub next: u64,
    /// The `DT_` type.
    pub kind: u8,
    /// The name.
    pub name: &'a OsStr,
}

/// The body of a reply, filled from the front, and what can wait until it was sent.
#[derive(Debug, Default)]
pub struct Out {
    bytes: Vec<u8>,
    later: Vec<Box<dyn Debug + Send>>,
    /// Whether other CPUs are left to those for whom it is not.
    pub behind: bool,
}

impl Out {
    /// For somebody behind the back of a client who goes on asking.
    pub fn behind() -> Self {
        Self { behind: true, ..Self::default() }
    }

    /// Forgets the content, and keeps the memory unless a large reply left much of it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > 2 << 20 {
            self.bytes.shrink_to(64 << 10);
        }
    }

    /// Drops something, such as an open file, when nobody waits for it ([`Self::let_go`]).
    pub fn later(&mut self, what: impl Debug + Send + 'static) {
        self.later.push(Box::new(what));
    }

    /// How much there is to let go of.
    pub fn left(&self) -> usize {
        self.later.len()
    }

    /// Drops what was left for later. [`Self::clear`] does not.
    pub fn let_go(&mut self) {
        self.later.clear();
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The buffer itself, for system calls that fill it.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Adds a 16-bit number.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_ne_bytes());
    }

    /// Adds a 32-bit number.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_ne_bytes());
    }

    /// Adds a 64-bit number.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_ne_bytes());
    }

    /// Adds bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn pad(&mut self, to: usize) {
        while !self.bytes.len().is_multiple_of(to) {
            self.bytes.push(0);
        }
    }

    /// Adds `fuse_attr` (88 bytes).
    pub fn attr(&mut self, attr: &Attr) {
        self.u64(attr.ino);
        self.u64(attr.size);
        self.u64(attr.blocks);
        for (secs, _) in [attr.atime, attr.mtime, attr.ctime] {
            self.bytes(&secs.to_ne_bytes());
        }
        for (_, nanos) in [attr.atime, attr.mtime, attr.ctime] {
            self.u32(nanos);
        }
        for value in [attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, attr.blksize, 0] {
            self.u32(value);
        }
    }

    /// Adds `fuse_attr_out`.
    pub fn attr_out(&mut self, attr: &Attr, ttl: Ttl) {
        self.u64(ttl.as_secs());
        self.u32(ttl.subsec_nanos());
        self.u32(0);
        self.attr(attr);
    }

    /// Adds `fuse_entry_out` (128 bytes). Node ids are never used twice, so the generation is 0.
    pub fn entry(&mut self, entry: &EntryOut) {
        self.u64(entry.node);
        self.u64(0);
        self.u64(entry.entry_ttl.as_secs());
        self.u64(entry.attr_ttl.as_secs());
        self.u32(entry.entry_ttl.subsec_nanos());
        self.u32(entry.attr_ttl.subsec_nanos());
        self.attr(&entry.attr);
    }

    /// Adds `fuse_open_out`.
    pub fn open(&mut self, handle: u64, flags: u32, backing: u32) {
        self.u64(handle);
        self.u32(flags);
        self.u32(backing);
    }

    /// Adds `fuse_dirent` if the listing stays within `limit` bytes; says whether it did.
    pub fn dirent(&mut self, limit: usize, ino: u64, next: u64, kind: u8, name: &OsStr) -> bool {
        let length = (24 + name.len()).next_multiple_of(8);
        if self.bytes.len() + length > limit {
            return false;
        }
        self.u64(ino);
        self.u64(next);
        self.u32(u32::try_from(name.len()).unwrap_or(0));
        self.u32(u32::from(kind));
        self.bytes(name.as_bytes());
        self.pad(8);
        true
    }

    /// Whether another `fuse_direntplus` with this name fits into `limit` bytes.
    pub fn fits_plus(&self, limit: usize, name: &OsStr) -> bool {
        self.bytes.len() + Self::plus_size(name) <= limit
    }

    /// The size of a `fuse_direntplus`.
    pub fn plus_size(name: &OsStr) -> usize {
        128 + (24 + name.len()).next_multiple_of(8)
    }

    /// Adds `fuse_direntplus`; the caller has asked [`Self::fits_plus`].
    pub fn dirent_plus(&mut self, item: &DirentPlus<'_>) {
        self.entry(&item.entry);
        self.dirent(usize::MAX, item.ino, item.next, item.kind, item.name);
    }
}
