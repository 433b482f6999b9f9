//! Requests: a header, then arguments that are taken off the front one by one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;

/// `fuse_in_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The length of the whole request.
    pub len: u32,
    /// Which operation.
    pub opcode: u32,
    /// The number that the reply carries back.
    pub unique: u64,
    /// The node that is operated on.
    pub node: u64,
    /// The file-system uid of the caller.
    pub uid: u32,
    /// The file-system gid of the caller.
    pub gid: u32,
    /// The caller's process.
    pub pid: u32,
}

/// What is left of a request's arguments.
///
/// Every taker answers `INVAL` when the request is shorter than the operation needs.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a>(&'a [u8]);

impl<'a> Args<'a> {
    /// Arguments in these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Takes `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Errno> {
        let (front, rest) = self.0.split_at_checked(n).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(front)
    }

    /// Takes what is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        self.bytes(N)?.try_into().map_err(|_| Errno::INVAL)
    }

    /// Takes a 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Errno> {
        Ok(u32::from_ne_bytes(self.array()?))
    }

    /// Takes a 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Errno> {
        Ok(u64::from_ne_bytes(self.array()?))
    }

    /// Takes a signed 64-bit number.
    pub fn i64(&mut self) -> Result<i64, Errno> {
        Ok(i64::from_ne_bytes(self.array()?))
    }

    /// Takes a string that a NUL ends.
    pub fn string(&mut self) -> Result<&'a OsStr, Errno> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::INVAL)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(OsStr::from_bytes(text))
    }

    /// Takes a file name: one component that is neither empty, `.` nor `..`.
    pub fn name(&mut self) -> Result<&'a OsStr, Errno> {
        let name = self.string()?;
        match name.as_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
            bytes if bytes.len() > 255 => Err(Errno::NAMETOOLONG),
            _ => Ok(name),
        }
    }

    /// Takes the header of a request.
    pub fn header(&mut self) -> Result<Header, Errno> {
        let header = Header {
            len: self.u32()?,
            opcode: self.u32()?,
            unique: self.u64()?,
            node: self.u64()?,
            uid: self.u32()?,
            gid: self.u32()?,
            pid: self.u32()?,
        };
        self.u32()?;
        Ok(header)
    }
}

/// `fuse_setattr_in`: which attributes change, and to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Bits of the constants below.
    pub valid: u32,
    /// The new length.
    pub size: u64,
    /// The new access time.
    pub atime: (i64, u32),
    /// The new modification time.
    pub mtime: (i64, u32),
    /// The new mode, with the file type.
    pub mode: u32,
    /// The new owner.
    pub uid: u32,
    /// The new group.
    pub gid: u32,
}

#[expect(missing_docs, reason = "the names are the protocol's own")]
impl SetAttr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

impl SetAttr {
    /// Takes the structure off a request.
    pub fn parse(args: &mut Args<'_>) -> Result<Self, Errno> {
        let valid = args.u32()?;
        args.bytes(4 + 8)?;
        let size = args.u64()?;
        args.u64()?;
        let (atime, mtime, _ctime) = (args.i64()?, args.i64()?, args.i64()?);
        let (atime_ns, mtime_ns, _ctime_ns) = (args.u32()?, args.u32()?, args.u32()?);
        let mode = args.u32()?;
        args.u32()?;
        let (uid, gid) = (args.u32()?, args.u32()?);
        Ok(Self { valid, size, atime: (atime, atime_ns), mtime: (mtime, mtime_ns), mode, uid, gid })
    }

    /// Whether this is what the kernel sends when it writes back the times that it keeps itself.
    pub fn only_notes_change(&self) -> bool {
        self.valid & !Self::FH == Self::MTIME | Self::CTIME
    }

    /// Whether any of these bits is set.
    pub fn has(&self, bits: u32) -> bool {
        self.valid & bits != 0
    }
}
