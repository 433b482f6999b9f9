//! System calls and memory maps that need `unsafe`, behind safe functions.
//!
//! This is the only crate of the workspace in which `unsafe` may be written; everything that
//! `rustix` already offers safely is called from there directly and has no wrapper here.
//! [`mount`] and [`resolve`] are safe through and through: they are here because layers or drivers
//! and the runtime share them, and neither may know the other.

pub mod dedupe;
pub mod descriptors;
pub mod extents;
pub mod fuse;
pub mod fuse_ring;
pub mod handle;
pub mod map;
pub mod map_copy;
pub mod memory;
pub mod mount;
pub mod mount_attr;
pub mod resolve;
pub mod schedule;
pub mod signal;
pub mod user_namespace;
pub mod writeback;
pub mod xattr;

pub use map::Mmap;
