//! One table of cases, run over every driver.
//!
//! Each module is one part of the contract in `drivers::driver`; [`bench::backends`] is the list of
//! drivers. A new driver is one more line there. What a layer must *show* is not written down: it is
//! what `vfs`, which keeps full copies, shows after the same steps.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs)]

mod bench;
mod changes;
mod content;
mod crash;
mod depth;
mod guest;
mod id_maps;
mod layerfs;
mod layers;
mod mounting;
mod options;
mod stacks;
mod tars;
mod threads;
