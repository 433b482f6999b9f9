//! What the tests share.

// All of it is for tests, where a panic is how a failure is told.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::unwrap_used)]

pub mod archive;
pub mod browser;
pub mod daemon;
pub mod disk;
pub mod docker;
pub mod engines;
pub mod exposition;
pub mod grpc;
pub mod host;
pub mod layerfs;
pub mod life;
pub mod load;
pub mod logwrites;
pub mod mapped;
pub mod ops;
pub mod programs;
pub mod random;
pub mod recorded;
pub mod root;
pub mod stock;
pub mod terminal;
pub mod thinpool;
pub mod tree;
pub mod uml;
mod xstate;
