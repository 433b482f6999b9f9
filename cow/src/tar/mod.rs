//! Reading and writing tar streams: ustar, GNU, PAX and old v7 headers, parsed here.
//!
//! [`Reader`] is bounded in memory whatever the stream says, hands file content out of its own
//! buffer, and allocates nothing per entry once its buffers have grown. [`Writer`] writes the same
//! bytes for the same input, with PAX records only where a plain header cannot say it.
//!
//! The `tar` crate is not used: it splits PAX records at every newline instead of by their length,
//! so a binary xattr (`security.capability`) that holds the byte 0x0a makes an archive unreadable.
//!
//! Formats: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Header Block"; GNU tar manual,
//! "Basic Tar Format" and "Storing Sparse Files".

mod header;
mod pax;
mod reader;
mod recipe;
mod sparse;
mod writer;

pub use reader::{Content, Reader};
pub use recipe::rebuild;
pub use writer::Writer;

use crate::meta::{Device, Time};

/// The unit of a tar stream in bytes.
pub const BLOCK: usize = 512;

/// The bounds that a [`Reader`] holds a stream to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest path or link text in bytes (Linux's PATH_MAX without its end).
    pub path: usize,
    /// The longest component of a path in bytes (Linux's NAME_MAX).
    pub component: usize,
    /// The largest PAX header or GNU long name in bytes.
    pub header: u64,
    /// The largest xattr value in bytes (Linux's XATTR_SIZE_MAX).
    pub xattr: usize,
    /// The most segments of one sparse file.
    pub segments: usize,
    /// The most entries of one archive.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            path: 4095,
            component: 255,
            header: 1 << 20,
            xattr: 1 << 16,
            segments: 1 << 18,
            entries: 8 << 20,
        }
    }
}

/// What an entry makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file, with content.
    #[default]
    File,
    /// A further name of the file at [`Entry::link`].
    HardLink,
    /// A symbolic link with the text [`Entry::link`].
    Symlink,
    /// A character device.
    Char(Device),
    /// A block device.
    Block(Device),
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// A run of bytes that a sparse file holds; everything outside of runs is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Where in the file the run begins.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
}

/// One entry of an archive, long names, PAX records and sparse maps already merged in.
///
/// A reader fills the caller's entry again and again, so that its buffers are allocated once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The path as written, neither normalized nor checked for `..`; without NUL.
    pub path: Vec<u8>,
    /// What the entry makes.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last change of content.
    pub mtime: Time,
    /// The length of a regular file, holes included; 0 for every other kind.
    pub size: u64,
    /// The target of a hard link or the text of a symbolic link.
    pub link: Vec<u8>,
    /// Extended attributes (`SCHILY.xattr.` and `LIBARCHIVE.xattr.`), each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content of a sparse file lies; none for a file stored whole.
    pub sparse: Option<Vec<Segment>>,
}

impl Entry {
    /// Makes it blank, keeping its buffers.
    pub(crate) fn clear(&mut self) {
        self.path.clear();
        self.link.clear();
        self.xattrs.clear();
        self.sparse = None;
        self.kind = EntryKind::File;
        (self.mode, self.uid, self.gid, self.size) = (0, 0, 0, 0);
        self.mtime = Time::default();
    }
}
