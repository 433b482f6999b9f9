//! The thin container runtime: a bundle from a container's description, run by `libcontainer`.
//!
//! The daemon knows what a container is (image config merged with the command line) and how its
//! root file system is mounted; this crate turns that into a running process and an exit code. It
//! knows no driver: mounts are descriptions.
//!
//! | module | one idea |
//! | --- | --- |
//! | [`spec`] | description to OCI runtime description; pure |
//! | [`user`] | who the process is, from the container's own files |
//! | [`dirs`] | the runtime directory, locked; leftovers of killed runs |
//! | [`rootfs`] | the root file system, in a mount namespace of the runtime's own |
//! | [`cgroup`] | control groups on v1 and v2, fast |
//! | [`net`] | loopback |
//! | [`seccomp`] | the system-call filter, compiled when this crate is |
//! | [`executor`] | the last steps in the container |
//! | [`console`] | terminals |
//! | [`signals`] | which signals go where |
//! | [`run`] | the life of a container in the foreground |
//!
//! Nothing here starts a thread: the library forks, and a process that is to change its namespaces
//! must have one thread.

pub mod cgroup;
pub mod console;
pub mod dirs;
pub mod error;
pub mod executor;
pub mod net;
pub mod rootfs;
pub mod run;
pub mod seccomp;
pub mod signals;
pub mod spec;
pub mod user;

pub use error::{Error, Result};
