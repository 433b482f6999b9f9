//! What the btrfs driver alone does: changes told by the file system, subvolumes inside layers,
//! quotas, and stores that were moved.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs)]

mod bench;
mod dedupe;
mod entries;
mod nodes;
mod properties;
mod quota;
mod random;
mod stock;
mod subvolumes;
