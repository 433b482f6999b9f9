//! The devicemapper driver as a whole program, in a kernel that has a device mapper.
//!
//! Most tests boot a guest for ignored tests of this same program, which run there.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs
)]

mod bench;
mod commits;
mod cuts;
mod deaths;
mod diffs;
mod faults;
mod layout;
mod loops;
mod paths;
mod scripts;
mod sizes;
mod suites;

use std::time::Duration;

/// How long a guest may take that has a busy machine to itself in parts only; a quiet one needs a minute.
const PATIENCE: Duration = Duration::from_secs(500);

/// What a layer may be, with the driver's options for it.
const FILE_SYSTEMS: [(&str, &[&str]); 2] = [("ext4", &[]), ("xfs", &["dm.fs=xfs"])];
