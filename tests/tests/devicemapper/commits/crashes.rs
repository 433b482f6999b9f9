//! A daemon that dies while it commits or measures a mounted layer: its client goes on as soon as there is
//! another one, and nothing is lost or left.

use std::fs;

use drivers::State;

use super::client::Client;
use super::look::is_suspended;
use crate::bench::{Bench, id};
use crate::deaths::die;

/// What is killed, where, whether the client's device is frozen then, and what `check` says.
const CASES: [(&str, &str, bool, &str); 8] = [
    ("dies_in_a_measurement", "device frozen", true, ""),
    ("dies_in_a_measurement", "frozen device's snapshot made", true, "belongs to no layer"),
    ("dies_in_a_measurement", "snapshot lent", false, "belongs to no layer"),
    ("dies_in_a_commit", "device frozen", true, ""),
    ("dies_in_a_commit", "frozen device's snapshot made", true, "belongs to no layer"),
    ("dies_in_a_commit", "mounted layer's snapshot made", false, "belongs to no layer"),
    ("dies_in_a_commit", "file system sealed", false, "belongs to no layer"),
    ("dies_in_a_commit", "mounted layer sealed", false, "left over from its commit"),
];

#[test]
#[ignore = "runs in a guest"]
fn a_client_survives_the_daemon_that_froze_it() {
    for (test, point, is_frozen, said) in CASES {
        let case = format!("{test}, {point}");
        let mut bench = Bench::new(&[]);
        bench.create("1", None);
        bench.commit("1");
        bench.create("2", Some("1"));
        let client = Client::mount(&bench, "2");
        fs::write(client.path().join("before"), "before").unwrap();
        let device = client.device();
        bench.reopen_after(|home| {
            die(test, point, home);
            assert_eq!(is_suspended(&device), is_frozen, "{case}: the client's device");
        });
        client.can_write(&case);
        let findings = bench.findings();
        let expected = usize::from(!said.is_empty());
        assert!(findings.len() == expected, "{case}: {findings:?}");
        assert!(findings.iter().all(|finding| finding.contains(said)), "{case}: {findings:?}");
        bench.driver().repair().expect("repair");
        assert_eq!(bench.findings(), [""; 0], "{case}: after the repair");
        client.can_write(&case);
        assert_eq!(client.read("before"), "before", "{case}");
        assert_eq!(bench.driver().info(&id("2")).unwrap().state, State::Active, "{case}");
        bench.commit("2");
        bench.is_clean("2");
        assert_eq!(bench.changes("2", "1"), ["Added /alive", "Added /before"], "{case}: again");
        client.unmount();
        bench.until("the client's device is gone", || !bench.devices().contains(&device));
        bench.remove("2");
        assert_eq!(bench.findings(), [""; 0], "{case}: in the end");
    }
}

/// The layer is committed, and the daemon dies before it has let go of the device that the client has.
#[test]
#[ignore = "runs in a guest"]
fn what_a_commit_leaves_over_goes_at_the_next_start() {
    let mut bench = Bench::new(&[]);
    bench.create("2", None);
    let client = Client::mount(&bench, "2");
    fs::write(client.path().join("before"), "before").unwrap();
    let device = client.device();
    bench.reopen_after(|home| die("dies_in_a_commit", "commit is through", home));
    assert_eq!(bench.driver().info(&id("2")).unwrap().state, State::Committed);
    let findings = bench.findings();
    assert!(
        findings.len() == 1 && findings[0].contains("left over from its commit"),
        "{findings:?}"
    );
    bench.driver().repair().expect("repair");
    assert_eq!(bench.findings(), [""; 0], "after the repair");
    client.can_write("its client");
    bench.is_clean("2");
    assert_eq!(bench.lone_changes("2"), ["Added /before"]);
    client.unmount();
    bench.until("the client's device is gone", || !bench.devices().contains(&device));
    assert_eq!(bench.findings(), [""; 0], "in the end");
}
