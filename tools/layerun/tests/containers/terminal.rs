//! Containers with a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use layerd_api::types::ContainerSpec;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::harness::{Machine, can_run, command, settings};

/// The user's terminal: what is typed into, and where layerun runs.
struct Terminal {
    keyboard: File,
    line: OwnedFd,
    seen: String,
}

impl Terminal {
    fn new(rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let keyboard = openpt(flags).expect("a pseudo-terminal");
        grantpt(&keyboard).expect("its other end");
        unlockpt(&keyboard).expect("its other end");
        let name = ptsname(&keyboard, Vec::new()).expect("its name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = openat(CWD, &name, flags, Mode::empty()).expect("its other end");
        let mut terminal = Self { keyboard: keyboard.into(), line, seen: String::new() };
        terminal.resize(rows, columns);
        terminal
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("a size");
    }

    fn run(&self, machine: &Machine, spec: &ContainerSpec) -> Child {
        let stream = || Stdio::from(self.line.try_clone().expect("a stream"));
        let mut command = machine.command(spec);
        command.stdin(stream()).stdout(stream()).stderr(stream());
        command.spawn().expect("layerun starts")
    }

    fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("typing");
    }

    /// Reads the screen until it shows a text.
    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 1024];
        while !self.seen.contains(text) {
            match self.keyboard.read(&mut buffer) {
                Ok(0) => panic!("the screen ends without {text:?}: {:?}", self.seen),
                Ok(length) => self.seen += &String::from_utf8_lossy(&buffer[..length]),
                Err(error) => panic!("no {text:?} on the screen ({error}): {:?}", self.seen),
            }
        }
    }

    /// What is on the screen once nobody has it open.
    fn rest(self) -> String {
        let Self { mut keyboard, line, mut seen } = self;
        drop(line);
        let mut bytes = Vec::new();
        match keyboard.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{error}"),
        }
        seen += &String::from_utf8_lossy(&bytes);
        seen
    }
}

fn interactive(args: &[&str]) -> ContainerSpec {
    ContainerSpec { terminal: true, stdin: true, ..command(args) }
}

#[test]
fn a_shell_is_talked_to_over_a_terminal() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let mut terminal = Terminal::new(33, 77);
    let before = settings(&terminal.line);
    let mut child = terminal.run(&machine, &interactive(&["sh"]));
    terminal.wait_for("# ");
    assert_ne!(settings(&terminal.line), before, "the user's terminal is raw meanwhile");
    // What is looked for is not what is typed, which the terminal shows as well.
    terminal.type_in("tty; stty size; echo te''rm=$TERM; readlink /proc/self/fd/0\n");
    terminal.wait_for("term=xterm");
    terminal.wait_for("33 77");
    terminal.wait_for("/dev/pts/0");
    terminal.resize(40, 100);
    kill_process(Pid::from_child(&child), Signal::WINCH).expect("layerun lives");
    terminal.type_in("while [ \"$(stty size)\" != '40 100' ]; do :; done; echo resi''zed\n");
    terminal.wait_for("resized");
    let script = "(trap 'echo inter''rupted; exit' INT; echo wai''ting; while :; do :; done)\n";
    terminal.type_in(script);
    terminal.wait_for("waiting");
    terminal.type_in("\u{3}");
    terminal.wait_for("interrupted");
    assert!(!terminal.seen.contains("job control"), "the terminal is its own: {}", terminal.seen);
    terminal.type_in("exit 7\n");
    assert_eq!(child.wait().expect("an end").code(), Some(7), "the shell's exit code");
    assert_eq!(settings(&terminal.line), before, "the user's terminal is as before");
    machine.assert_clean("after a terminal");
}

#[test]
fn output_is_complete_and_lines_end_as_on_terminals() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let terminal = Terminal::new(24, 80);
    let script = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done";
    let spec = ContainerSpec { terminal: true, ..command(&["sh", "-c", script]) };
    let mut keyboard = terminal.keyboard.try_clone().expect("the screen");
    let mut child = terminal.run(&machine, &spec);
    let reader = std::thread::spawn(move || {
        let (mut seen, mut buffer) = (String::new(), [0; 4096]);
        while let Ok(length @ 1..) = keyboard.read(&mut buffer) {
            seen += &String::from_utf8_lossy(&buffer[..length]);
        }
        seen
    });
    assert_eq!(child.wait().expect("an end").code(), Some(0), "exit code");
    // The last holder of the other end: the reader's next read ends.
    drop(terminal.line);
    let seen = reader.join().expect("the reader");
    let lines: Vec<_> =
        seen.split_terminator("\r\n").map(|line| line.trim_end_matches('\r')).collect();
    let expected: Vec<_> = (0..500).map(|number| format!("line {number}")).collect();
    assert_eq!(lines, expected, "every line, in order");
}

#[test]
fn another_users_terminal_is_its_own() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let terminal = Terminal::new(24, 80);
    let script = "ls -n $(tty) > /dev/stdout";
    let spec =
        ContainerSpec { user: "app".into(), terminal: true, ..command(&["sh", "-c", script]) };
    let mut child = terminal.run(&machine, &spec);
    let code = child.wait().expect("an end").code();
    let seen = terminal.rest();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.starts_with("crw--w----") && seen.contains(" 1000 "), "owner and mode: {seen}");
}
