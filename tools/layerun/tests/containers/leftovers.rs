//! What is left when a runtime is killed, and who clears it away.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::harness::{Machine, can_run, command, finish};

/// Starts a container that stays, and returns once it runs.
fn staying(machine: &Machine) -> Child {
    let spec = command(&["sh", "-c", "echo ready; sleep 600"]);
    let mut child = machine.command(&spec).stdout(Stdio::piped()).spawn().expect("layerun starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n", "the container runs");
    child
}

fn kill(mut child: Child) {
    let init = children(child.id());
    assert_eq!(init.len(), 1, "the runtime has one child: {init:?}");
    child.kill().expect("layerun lives");
    // The pipe ends when the last process of the container has: nothing outlives the runtime.
    let mut rest = Vec::new();
    let mut out = child.stdout.take().expect("a pipe");
    std::io::Read::read_to_end(&mut out, &mut rest).expect("the end of the container");
    child.wait().expect("an end");
}

fn children(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).expect("the runtime's children");
    text.split_whitespace().map(str::to_owned).collect()
}

fn mounts_of(machine: &Machine) -> usize {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let ours = machine.path("rt").display().to_string();
    text.lines().filter(|line| line.contains(&ours)).count()
}

#[test]
fn a_killed_runtime_takes_its_container_and_mounts_along() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let child = staying(&machine);
    assert_eq!(mounts_of(&machine), 0, "nothing is mounted in the host's namespace");
    kill(child);
    assert!(machine.path("rt").join(&machine.id).exists(), "plain files are left");
    assert_eq!(machine.shell("echo again"), "again\n", "the next run of the same id works");
    machine.assert_clean("after the next run");
}

#[test]
fn sweeping_removes_what_killed_runtimes_left() {
    if !can_run() {
        return;
    }
    let (machine, living) = (Machine::new(), Machine::new());
    kill(staying(&machine));
    let mut other = staying(&living);
    let outcome = finish(machine.layerun().arg("sweep"));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.err.contains(&machine.id), "it says what it removed: {}", outcome.err);
    machine.assert_clean("after sweeping");
    let outcome = finish(living.layerun().arg("sweep"));
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "living ones are left alone");
    assert!(Path::new(&format!("/proc/{}", other.id())).exists(), "the other one runs");
    other.kill().expect("layerun lives");
    other.wait().expect("an end");
    finish(living.layerun().arg("sweep"));
    living.assert_clean("after sweeping");
}

#[test]
fn a_container_runs_once_at_a_time() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let child = staying(&machine);
    let outcome = machine.run(&command(&["true"]));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.err.contains("is already running"), "{}", outcome.err);
    kill(child);
    finish(machine.layerun().arg("sweep"));
    machine.assert_clean("after both");
}

#[test]
fn a_root_that_cannot_be_mounted_leaves_nothing() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("work")).expect("no work directory");
    let outcome = machine.run(&command(&["true"]));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.err.contains("mount overlay"), "{}", outcome.err);
    machine.assert_clean("after a failed mount");
}
