//! Limits, where the machine has the control groups for them.

use layerd_api::types::ContainerSpec;

use crate::harness::{Machine, can_run, command, has_controller};

/// Reads the first of a control group's files that there is, v1's name and v2's.
fn either(v1: &str, v2: &str) -> String {
    format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}")
}

#[test]
fn limits_are_seen_in_the_container() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let cases: [(&str, ContainerSpec, String, &str); 3] = [
        (
            "memory",
            ContainerSpec { memory: Some(64 << 20), ..ContainerSpec::default() },
            either("memory/memory.limit_in_bytes", "memory.max"),
            "67108864",
        ),
        (
            "pids",
            ContainerSpec { pids_limit: Some(33), ..ContainerSpec::default() },
            either("pids/pids.max", "pids.max"),
            "33",
        ),
        (
            "cpu",
            ContainerSpec { milli_cpus: Some(500), ..ContainerSpec::default() },
            either("cpu/cpu.cfs_quota_us", "cpu.max"),
            "50000",
        ),
    ];
    for (controller, spec, script, expected) in cases {
        if has_controller(controller) {
            let value = machine.shell_with(&script, spec);
            assert_eq!(value.split_whitespace().next(), Some(expected), "{controller}");
        } else {
            let spec = ContainerSpec { args: command(&["true"]).args, ..spec };
            let outcome = machine.run(&spec);
            assert_eq!(outcome.code, Some(125), "{controller} cannot be limited: {outcome:?}");
            assert!(outcome.err.contains("cannot limit"), "{}", outcome.err);
        }
        machine.assert_clean(controller);
    }
}

#[test]
fn processes_are_limited() {
    if !can_run() || !has_controller("pids") {
        return;
    }
    let machine = Machine::new();
    let spec = ContainerSpec {
        pids_limit: Some(4),
        ..command(&["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 60 & done; echo all"])
    };
    let outcome = machine.run(&spec);
    assert!(!outcome.out.contains("all"), "the fourth sleep cannot be forked: {outcome:?}");
    assert!(outcome.err.contains("fork"), "and the shell says so: {outcome:?}");
    machine.assert_clean("after the limit was met");
}

#[test]
fn memory_is_limited() {
    if !can_run() || !has_controller("memory") {
        return;
    }
    let machine = Machine::new();
    let script = "head -c 200000000 /dev/zero > /dev/shm/fill; echo survived";
    let spec = ContainerSpec { memory: Some(16 << 20), ..command(&["sh", "-c", script]) };
    let outcome = machine.run(&spec);
    // 64 MiB of shared memory are more than 16 and as much swap: somebody is killed.
    assert!(outcome.code == Some(137) || outcome.err.contains("Killed"), "{outcome:?}");
    machine.assert_clean("after the memory was used up");
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let spec = ContainerSpec { memory: Some(1), ..command(&["true"]) };
    let outcome = machine.run(&spec);
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.err.contains("the minimum is 6 MiB"), "{}", outcome.err);
    machine.assert_clean("after a refused limit");
}
