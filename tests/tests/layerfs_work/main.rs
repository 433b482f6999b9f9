//! Work inside a layerfs mount: what programs do there ends as it does on a plain file system.

#![allow(clippy::expect_used, clippy::panic)]

mod model;
mod programs;
mod stage;
mod stress;
