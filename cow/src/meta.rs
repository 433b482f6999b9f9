//! The metadata of one file: what `statx` says and what a tar header carries.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// The extended attributes of one file, ordered by name as reproducible output needs them.
pub type Xattrs = BTreeMap<OsString, Vec<u8>>;

/// A time stamp: seconds since the epoch (negative before it) and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

/// The number of a device node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The major number (12 bits in Linux).
    pub major: u32,
    /// The minor number (20 bits in Linux).
    pub minor: u32,
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device; 0:0 is overlayfs's whiteout.
    Char(Device),
    /// A block device.
    Block(Device),
    /// A unix socket, which no layer carries.
    Socket,
}

/// What is known of one file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The type.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: the low twelve bits of `st_mode`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last change of content.
    pub mtime: Time,
    /// The time of the last change of the inode; zero where the source has none (tar).
    pub ctime: Time,
    /// The length in bytes of a file or of a link's text.
    pub size: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// How many names the inode has.
    pub nlink: u32,
    /// The inode number.
    pub ino: u64,
    /// The device that holds the inode, as `makedev` would write it.
    pub dev: u64,
}

impl Meta {
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Dir
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether this is overlayfs's whiteout: a character device with number 0:0.
    pub fn is_whiteout_device(&self) -> bool {
        self.kind == FileKind::Char(Device { major: 0, minor: 0 })
    }

    /// What two names of one inode share.
    pub fn inode(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}
