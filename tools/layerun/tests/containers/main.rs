//! Real containers, run by the real program, on a root file system of one static busybox.

// A failed step is a failed test.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod confinement;
mod daemon;
mod harness;
mod leftovers;
mod limits;
mod process;
mod signals;
mod terminal;
mod volumes;
