//! The handshake: what the kernel offers and what the server takes.

use rustix::io::Errno;

use super::{Args, Out};

/// Capability bits of `FUSE_INIT`, the low and the high word as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

#[expect(missing_docs, reason = "the names are the protocol's own")]
impl Capabilities {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const ABORT_ERROR: u64 = 1 << 21;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const CREATE_SUPP_GROUP: u64 = 1 << 34;
    pub const PASSTHROUGH: u64 = 1 << 37;
    pub const ALLOW_IDMAP: u64 = 1 << 40;
    pub const OVER_IO_URING: u64 = 1 << 41;
}

impl Capabilities {
    /// Whether all these bits are set.
    pub fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }
}

/// `fuse_init_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitIn {
    /// The kernel's protocol version, 7 as long as FUSE exists.
    pub major: u32,
    /// The kernel's minor version.
    pub minor: u32,
    /// The longest read-ahead that the kernel does.
    pub max_readahead: u32,
    /// What the kernel can do.
    pub offered: Capabilities,
}

impl InitIn {
    /// Takes the structure off a request.
    pub fn parse(args: &mut Args<'_>) -> Result<Self, Errno> {
        let (major, minor) = (args.u32()?, args.u32()?);
        let (max_readahead, low) = (args.u32()?, args.u32()?);
        let high = if u64::from(low) & Capabilities::INIT_EXT == 0 { 0 } else { args.u32()? };
        let offered = Capabilities(u64::from(low) | u64::from(high) << 32);
        Ok(Self { major, minor, max_readahead, offered })
    }
}

/// `fuse_init_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitOut {
    /// What the server takes of it.
    pub taken: Capabilities,
    /// The longest read-ahead.
    pub max_readahead: u32,
    /// The longest write in one request.
    pub max_write: u32,
    /// How many stacked file systems a backing file may lie below, plus one.
    pub max_stack_depth: u32,
}

impl InitOut {
    /// The minor version of the protocol that the server speaks.
    pub const MINOR: u32 = 41;

    /// Lays the structure out (64 bytes).
    #[expect(clippy::cast_possible_truncation, reason = "the two words of one number")]
    pub fn lay_out(&self, out: &mut Out) {
        out.u32(7);
        out.u32(Self::MINOR);
        out.u32(self.max_readahead);
        out.u32(self.taken.0 as u32);
        out.u16(64);
        out.u16(48);
        out.u32(self.max_write);
        out.u32(1);
        out.u16(u16::try_from(self.max_write.div_ceil(4096)).unwrap_or(u16::MAX));
        out.u16(0);
        out.u32((self.taken.0 >> 32) as u32);
        out.u32(self.max_stack_depth);
        out.bytes(&[0; 24]);
    }
}
