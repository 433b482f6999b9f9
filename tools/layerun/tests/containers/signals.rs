//! Signals to the runtime are the container's.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use layerd_api::types::ContainerSpec;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Machine, can_run, command};

/// Starts a container that prints a line when it is ready, and waits for that line.
fn ready(machine: &Machine, spec: &ContainerSpec) -> Child {
    let mut child = machine.command(spec).stdout(Stdio::piped()).spawn().expect("layerun starts");
    let mut line = String::new();
    let out = child.stdout.as_mut().expect("a pipe");
    BufReader::new(out).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n", "the container runs");
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("layerun lives");
}

#[test]
fn signals_reach_the_first_process() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        let script = format!("trap 'exit 42' {name}; sleep 60 & echo ready; wait");
        let mut child = ready(&machine, &command(&["sh", "-c", &script]));
        send(&child, signal);
        assert_eq!(child.wait().expect("an end").code(), Some(42), "{name} is trapped");
        machine.assert_clean(name);
    }
}

#[test]
fn a_container_that_does_not_listen_is_killed_in_the_end() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let mut child =
        ready(&machine, &command(&["sh", "-c", "trap '' TERM INT; echo ready; sleep 60"]));
    // One at a time: equal signals that wait are one signal.
    for signal in [Signal::TERM, Signal::INT] {
        send(&child, signal);
    }
    while child.try_wait().expect("a state").is_none() {
        send(&child, Signal::TERM);
        std::thread::yield_now();
    }
    assert_eq!(child.wait().expect("an end").code(), Some(137), "128 and SIGKILL's number");
    machine.assert_clean("after a kill");
}
