//! Programs in the making, which hold copies of this process's file descriptors until they are executed.
//!
//! A mount that is held by a file descriptor alone does not end when it is closed meanwhile, but a
//! moment later.

use std::process::{Child, Command};
use std::sync::{PoisonError, RwLock};

static SPAWNING: RwLock<()> = RwLock::new(());

/// Starts a program.
pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let _spawning = SPAWNING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Waits until no program holds a copy of what was closed before.
pub(crate) fn wait() {
    drop(SPAWNING.write().unwrap_or_else(PoisonError::into_inner));
}
