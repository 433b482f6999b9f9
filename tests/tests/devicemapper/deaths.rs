//! Processes that die in the middle of what they do with a home, and leave it to the next.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use drivers::LayerRecord;

use crate::bench::{self, id};

/// Says to a process of its own on which home it is to die.
const HOME: &str = "LAYERD_TEST_HOME";

fn home() -> Box<dyn drivers::Driver> {
    bench::open(std::env::var_os(HOME).expect("a home").as_ref(), &[])
}

#[test]
#[ignore = "runs in a guest"]
fn dies_in_a_commit() {
    let _ = home().commit(&id("2"), &LayerRecord::default());
}

#[test]
#[ignore = "runs in a guest"]
fn dies_in_a_measurement() {
    let _ = home().usage(&id("2"));
}

#[test]
#[ignore = "runs in a guest"]
fn dies_in_a_comparison() {
    let _ = home().changes(&id("2"), None);
}

/// Lets a process die at a point of one of these.
pub(crate) fn die(test: &str, point: &str, home: &Path) {
    let me = std::env::current_exe().expect("the path of this program");
    let output = Command::new(me)
        .args(["--ignored", "--exact", &format!("deaths::{test}")])
        .env(HOME, home)
        .env("LAYERD_CRASH_AT", point)
        .output();
    let output = output.expect("a process");
    assert_eq!(output.status.signal(), Some(9), "{test}, {point}: it was not killed: {output:?}");
}
