//! The devicemapper driver as a whole program, in a kernel that has a device mapper.
//!
//! Most tests boot a guest for ignored tests of this same program, which run there.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs)]

mod cuts;
mod faults;
mod layout;
mod scripts;
