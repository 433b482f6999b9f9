//! The kernel's FUSE protocol (`linux/fuse.h`, version 7): requests parsed, replies laid out.
//!
//! Both transports, the character device and the ring, carry these same bytes. `fuser` is not used:
//! it knows no `FUSE_TMPFILE`, ties the node id of the protocol to `st_ino` (a copied-up file that is
//! still open through its lower one needs two nodes with one number), hides the flags that tell the
//! server to drop set-id bits, and has no way to feed it from a ring.

mod init;
mod reply;
mod request;

pub use init::{Capabilities, InitIn, InitOut};
pub use reply::{Attr, DirentPlus, EntryOut, Out, Ttl};
pub use request::{Args, Header, SetAttr};

/// The size of `fuse_in_header`.
pub const IN_HEADER: usize = 40;
/// The size of `fuse_out_header`.
pub const OUT_HEADER: usize = 16;

/// Operation numbers of the protocol.
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    /// One past the last operation that is counted.
    pub const END: u32 = 53;
}

/// The name of an operation, for logs and counters.
pub fn op_name(opcode: u32) -> &'static str {
    match opcode {
        op::LOOKUP => "lookup",
        op::FORGET => "forget",
        op::GETATTR => "getattr",
        op::SETATTR => "setattr",
        op::READLINK => "readlink",
        op::SYMLINK => "symlink",
        op::MKNOD => "mknod",
        op::MKDIR => "mkdir",
        op::UNLINK => "unlink",
        op::RMDIR => "rmdir",
        op::RENAME => "rename",
        op::RENAME2 => "rename2",
        op::LINK => "link",
        op::OPEN => "open",
        op::READ => "read",
        op::WRITE => "write",
        op::STATFS => "statfs",
        op::RELEASE => "release",
        op::FSYNC => "fsync",
        op::SETXATTR => "setxattr",
        op::GETXATTR => "getxattr",
        op::LISTXATTR => "listxattr",
        op::REMOVEXATTR => "removexattr",
        op::FLUSH => "flush",
        op::INIT => "init",
        op::OPENDIR => "opendir",
        op::READDIR => "readdir",
        op::READDIRPLUS => "readdirplus",
        op::RELEASEDIR => "releasedir",
        op::FSYNCDIR => "fsyncdir",
        op::CREATE => "create",
        op::TMPFILE => "tmpfile",
        op::INTERRUPT => "interrupt",
        op::DESTROY => "destroy",
        op::BATCH_FORGET => "batch_forget",
        op::FALLOCATE => "fallocate",
        op::LSEEK => "lseek",
        op::COPY_FILE_RANGE => "copy_file_range",
        op::SYNCFS => "syncfs",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests;
