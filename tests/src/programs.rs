//! Our own programs, as the tests run them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::uml;

/// The path of `layerd`, `layerctl`, `layerun` or `layerfs`, built from the sources as they are.
///
/// Cargo builds the programs of other packages neither for a test of this one nor tells where they
/// are, so the first call has it build them, which is a matter of a moment when they are fresh.
///
/// # Panics
/// When they cannot be built.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        // target/PROFILE/deps/TEST
        let test = std::env::current_exe().expect("the path of this program");
        let dir = test.parent().and_then(|deps| deps.parent()).expect("a cargo target directory");
        // A guest is booted by a test that has built them.
        if !uml::inside() {
            build(dir.ends_with("release"));
        }
        dir.to_owned()
    });
    dir.join(name)
}

/// The options without which a driver that is opened by a test, not by layerd, does not work.
#[must_use]
pub fn options(driver: &str) -> Vec<String> {
    // layerd finds it beside itself.
    let program = || format!("fuse.program={}", path("layerfs").display());
    (driver == "fuse").then(program).into_iter().collect()
}

fn build(release: bool) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--bins", "-p", "layerd", "-p", "layerctl", "-p", "layerun"]);
    cargo.args(["-p", "layerfs"]);
    if release {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "our programs do not build");
}
