//! What the whole-program benchmarks share: rounds, medians, tables, and the peers as processes.
//!
//! Every figure is a ratio to a peer or to the kernel in the same run: rounds are interleaved
//! (A B C A B C ...), so that a machine whose speed drifts treats all alike, and the median is quoted.

pub mod engines;
pub mod rounds;
pub mod unions;
pub mod work;

use std::path::{Path, PathBuf};
use std::process::Command;

/// An error of a benchmark: whatever stopped it, said to the person who started it.
pub type Failure = Box<dyn std::error::Error>;

/// The directory of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program of ours, as `make build` leaves it.
pub fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| workspace().join("target")).join("release").join(name)
}

/// Where benchmarks keep what is dear to build, such as the Debian image.
pub fn cache() -> PathBuf {
    std::env::var_os("LAYERD_BENCH_DIR")
        .map_or_else(|| workspace().join(".work/bench"), PathBuf::from)
}

/// The 500 MB, four-layer Debian image in every kind of archive; built on first use.
///
/// # Errors
/// When the script that builds it fails.
pub fn debian_image() -> Result<PathBuf, Failure> {
    let dir = cache().join("debian-large");
    let script = workspace().join("tests/scripts/debian-image.sh");
    run(Command::new(script).arg(&dir).arg("large"))?;
    Ok(dir)
}

/// Runs a command to its end and fails with what it printed when it fails.
///
/// # Errors
/// When it cannot be started or its exit status is not zero.
pub fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{said}", output.status).into())
}
