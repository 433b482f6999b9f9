//! The same table on devicemapper, which this machine's kernel may lack: in a kernel of its own.

use std::time::Duration;

use tests::uml::{self, Guest};

use crate::bench::GUEST;

/// Runs the cases whose names hold one of `filters` in a guest.
fn run(file_system: &str, filters: &[&str]) {
    if std::env::var_os(GUEST).is_some() || !uml::available() {
        return;
    }
    let guest = Guest::new()
        .disk(4096)
        .variable(GUEST, file_system)
        .variable("RUST_TEST_THREADS", "1")
        .patience(Duration::from_secs(500));
    let me = std::env::current_exe().expect("the path of this program");
    let finished = guest.run(&me, filters.iter().chain(&["--skip", "in_a_guest"]));
    assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
    let passed = finished.stdout.lines().find(|line| line.starts_with("test result: ok."));
    assert!(passed.is_some_and(|line| !line.contains(" 0 passed")), "{}", finished.stdout);
}

#[test]
fn devicemapper_in_a_guest() {
    run("ext4", &[]);
}

#[test]
fn devicemapper_on_xfs_in_a_guest() {
    run("xfs", &["layers::", "mounting::", "crash::", "id_maps::"]);
}
