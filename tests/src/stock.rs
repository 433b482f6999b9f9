//! The snapshots that the btrfs driver makes beforehand, seen from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;

/// How long a spare may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(60);

/// The places in a stock, each with whether there is a finished snapshot in it.
///
/// # Panics
/// When the stock cannot be read.
#[must_use]
pub fn places(stock: &Path) -> Vec<(PathBuf, bool)> {
    let entries = fs::read_dir(stock).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("a place").path());
    paths.map(|path| (path.clone(), path.join("rw").exists())).collect()
}

/// Whether the layer in a directory came from the stock, as its metadata says.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn is_taken(layer: &Path) -> bool {
    fs::read_to_string(layer.join("layer.json")).expect("metadata").contains("\"begun\"")
}

/// How many snapshots can be taken, as the driver's status says; none without a stock.
#[must_use]
pub fn spares(status: &[(String, String)]) -> Option<usize> {
    let fact = status.iter().find(|(key, _)| key == "Stock")?;
    fact.1.split(' ').next()?.parse().ok()
}

/// Waits until a daemon's stock has a snapshot that can be taken.
///
/// # Panics
/// When none comes.
pub fn wait_for_spare(daemon: &Daemon) {
    let client = daemon.client();
    wait_until("no spare snapshot comes", || {
        spares(&client.info().expect("info").drivers["btrfs"]) == Some(1)
    });
}

/// Waits until a stock is empty.
///
/// # Panics
/// When something stays.
pub fn wait_until_empty(stock: &Path) {
    wait_until("spare snapshots stay", || places(stock).is_empty());
}

/// Waits until something is so, which is not when `what`.
///
/// # Panics
/// When it does not come to be so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}
