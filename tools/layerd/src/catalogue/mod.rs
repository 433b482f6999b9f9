//! The catalogue: an index of what the drivers and the image files hold.

pub mod records;

pub use records::{Container, Image, Labels, Layer, Snapshot, SnapshotKind, Status};
