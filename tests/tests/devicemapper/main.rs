//! The devicemapper driver as a whole program, in a kernel that has a device mapper.
//!
//! Most tests boot a guest for ignored tests of this same program, which run there.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod cuts;
mod faults;
mod layout;
mod paths;
mod scripts;
mod sizes;

use std::time::Duration;

/// How long a guest may take that has a busy machine to itself in parts only; a quiet one needs a minute.
const PATIENCE: Duration = Duration::from_secs(500);
