//! The storage drivers: one trait, one contract, every backend.
//!
//! [`Driver`] is written method by method in [`driver`]; the conformance table in `tests/` holds
//! every backend to it and compares what they show with `vfs`, which keeps full copies and is
//! therefore the oracle. [`open()`] makes a driver by its name. Drivers know directories and layers; they know neither images nor sockets
//! nor each other.

mod backend;
mod backing;
mod btrfs;
mod call;
mod devicemapper;
pub mod driver;
pub mod error;
mod fuse;
mod home;
pub mod id;
pub mod id_map;
pub mod mountinfo;
mod options;
mod overlay;
mod overlay2;
mod private;
mod quota;
mod registry;
mod spawning;
mod vfs;
mod whole;

pub use driver::{
    Access, Applied, Capabilities, CreateOptions, Driver, Fill, Finding, LayerInfo, LayerRecord,
    Mount, Pool, PoolReport, State, Usage,
};
pub use error::{Error, ErrorKind, Result};
pub use id::LayerId;
pub use id_map::{IdMap, IdMaps};
pub use registry::{NAMES, open, probe};
