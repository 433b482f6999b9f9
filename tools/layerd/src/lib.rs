//! The layer store behind layerd: catalogue, import, garbage collection, check and repair.
//!
//! [`store::Store`] is the whole service, without a socket: it blocks, and any number of threads may
//! call it. How a backend works is the drivers' business; what travels over the socket is the
//! server's.

pub mod catalogue;
pub mod check;
pub mod clock;
pub mod config;
pub mod error;
mod events;
mod gc;
mod image_files;
pub mod import;
mod metrics;
mod reconcile;
mod root;
pub mod server;
pub mod store;
#[cfg(test)]
mod testing;

pub use config::Config;
pub use error::{Error, ErrorKind, Result};
pub use store::Store;
