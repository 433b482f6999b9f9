//! The life of a pool, and every crash between pool and home, as scripts with a transcript.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::daemon::Finished;
use tests::uml::{self, Guest};
use tests::{host, programs};

/// Runs a script of `tests/scripts` in a guest with some disks of so many MiB.
fn run(script: &str, disks: &[u64], more: &[&Path]) -> Finished {
    let bin = programs::path("layerd").parent().expect("a directory").to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script);
    let guest = Guest::new().patience(Duration::from_secs(500));
    let guest = disks.iter().fold(guest, |guest, mib| guest.disk(*mib));
    let arguments: Vec<PathBuf> =
        [script, bin].into_iter().chain(more.iter().map(|path| path.to_path_buf())).collect();
    guest.run(Path::new("/bin/bash"), arguments)
}

#[test]
fn a_pool_is_set_up_grows_is_full_and_recovers() {
    if !uml::available() || !host::provides(&["buildah", "mmdebstrap", "curl"]) {
        return;
    }
    let image = host::debian_image().join("docker.tar").canonicalize().expect("an image");
    let finished = run("direct-lvm.sh", &[512, 512, 512], &[&image]);
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    print!("{}", finished.stdout);
    for part in ["data extended", "dm.min_free_space", "works again", "ubdd"] {
        assert!(finished.stdout.contains(part), "{part}: {}", finished.stdout);
    }
    // A pool that fills quickly may be full before it is seen to be low, and grows now and then.
    let told = finished.stdout.lines().filter_map(|line| line.strip_prefix("pool "));
    let told: Vec<_> = told.filter_map(|line| line.split(' ').next()).collect();
    let (grown, states): (Vec<&str>, Vec<_>) = told.iter().partition(|action| **action == "extend");
    let states: Vec<_> = states.into_iter().filter(|action| *action != "low").collect();
    let expected = ["full", "recover", "add-device", "read-only", "recover"];
    assert_eq!(states, expected, "what is told of the pool: {told:?}");
    assert!(!grown.is_empty() && told.first() == Some(&"extend"), "it grew first: {told:?}");
}

#[test]
fn every_step_can_be_the_last() {
    if !uml::available() {
        return;
    }
    let finished = run("pool-crash.sh", &[256, 256], &[]);
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.ends_with("every step was survived\n"), "{}", finished.stdout);
}
