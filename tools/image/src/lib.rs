//! Container images in files, read in place.
//!
//! A [`Source`] is a docker-archive, an OCI layout (in a directory or a tar) or the tar of a root
//! file system, told by its content. It gives [`Image`]s, whose manifests and configs are verified;
//! an image has [`Layer`]s; a layer opens as a [`LayerStream`], the uncompressed tar, which
//! decompresses and digests on threads of its own while it is consumed and says at its end whether
//! every promised digest was kept:
//!
//! ```no_run
//! # fn main() -> image::Result<()> {
//! let source = image::Source::open("debian.tar")?;
//! for image in source.images(None)? {
//!     for layer in &image.layers {
//!         let stream = layer.open()?;
//!         // ... read the tar ...
//!         println!("{}", stream.finish()?.diff_id);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The input is whatever a client hands over, so nothing in it is believed: numbers and nesting are
//! bounded, names cannot leave the source, and a file that changes while it is read is an error and
//! no more. What an applier of a layer must beware of is in the tar, and not this crate's to judge.

mod blocks;
mod codec;
mod config;
mod digested;
mod docker;
mod error;
mod file;
mod gzip;
mod image;
mod index;
mod layer;
mod manifest;
mod mapped;
mod oci;
mod platform;
mod pool;
mod recipe;
mod reference;
mod source;
mod spool;
mod store;
mod stream;

#[cfg(test)]
mod fixtures;

pub use codec::Compression;
pub use config::{Config, History, ImageConfig, RootFs, RunConfig};
pub use error::{Error, Place, Result};
pub use image::Image;
pub use layer::Layer;
pub use mapped::{Mapped, MappedReader};
pub use platform::Platform;
pub use reference::Reference;
pub use source::{Kind, Options, Source};
pub use stream::{LayerStream, Progress, Verified};
