//! Switching FUSE over io_uring on for as long as somebody tests it.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Whether mounts made from now on are offered the ring.
const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";
/// What the parameter was before the first of its present users; their locks count them.
const USERS: &str = "/run/layerfs-enable-uring";
/// Held while a user comes, while it is looked whether there is one left, and while the ring is off.
const GATE: &str = "/run/layerfs-enable-uring.gate";

/// Keeps the parameter on, in all processes together, and restores it when the last of them is dropped.
///
/// A process that was killed restores nothing; the next one to come restores what that found.
#[derive(Debug)]
pub(crate) struct Enabled(File);

fn open(path: &str) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn gate() -> io::Result<File> {
    let gate = open(GATE)?;
    flock(&gate, FlockOperation::LockExclusive)?;
    Ok(gate)
}

/// Why the ring cannot be used here, and whether the kernel has it at all.
pub(crate) fn unavailable() -> Option<(&'static str, bool)> {
    match File::options().write(true).open(PARAMETER) {
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(("a kernel with FUSE over io_uring (Linux 6.14)", false))
        }
        Err(_) => Some(("to write /sys/module/fuse/parameters/enable_uring", true)),
    }
}

/// Notes what the parameter was, unless that is noted, and switches it on.
fn switch_on(users: &mut File) -> io::Result<()> {
    if users.metadata()?.len() == 0 {
        users.rewind()?;
        users.write_all(fs::read_to_string(PARAMETER)?.trim().as_bytes())?;
    }
    cow_sys::fuse::enable_uring()
}

/// Makes the parameter what it was, unless that is done.
fn restore(users: &mut File) -> io::Result<()> {
    let mut before = String::new();
    users.rewind()?;
    users.read_to_string(&mut before)?;
    if !before.is_empty() {
        fs::write(PARAMETER, before)?;
    }
    users.set_len(0)
}

impl Enabled {
    /// Switches the parameter on.
    pub(crate) fn hold() -> io::Result<Self> {
        let _gate = gate()?;
        let mut users = open(USERS)?;
        flock(&users, FlockOperation::LockShared)?;
        switch_on(&mut users)?;
        Ok(Self(users))
    }

    /// Waits until there is no other user, and switches the parameter off while something is done.
    pub(crate) fn off<T>(&mut self, work: impl FnOnce() -> T) -> io::Result<T> {
        flock(&self.0, FlockOperation::Unlock)?;
        let _gate = loop {
            let gate = gate()?;
            if self.waits_for_the_others()? {
                break gate;
            }
            // One of them may wait for somebody who is to come yet.
            drop(gate);
            thread::sleep(Duration::from_millis(20));
        };
        switch_on(&mut self.0)?;
        fs::write(PARAMETER, "N")?;
        let done = work();
        cow_sys::fuse::enable_uring()?;
        flock(&self.0, FlockOperation::LockShared)?;
        Ok(done)
    }
}

impl Enabled {
    /// Waits for a while, in which nobody else comes, until there is no other user.
    fn waits_for_the_others(&self) -> io::Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        // Not by closing the file, which a child that is just being started may have as well.
        let _ = flock(&self.0, FlockOperation::Unlock);
        let _gate = gate();
        if flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = restore(&mut self.0);
            let _ = flock(&self.0, FlockOperation::Unlock);
        }
    }
}

#[test]
fn root_the_parameter_is_restored_when_the_last_user_leaves() {
    if !crate::stage::may_mount() || unavailable().is_some() {
        return;
    }
    let one = Enabled::hold().expect("switched on");
    let panicked = thread::spawn(|| {
        let _other = Enabled::hold().expect("switched on");
        panic!("as a failing test does");
    });
    assert!(panicked.join().is_err(), "it panicked");
    assert_eq!(fs::read_to_string(PARAMETER).expect("read"), "Y\n", "on while it is held");
    let noted = fs::read_to_string(USERS).expect("what it was");
    drop(one);
    let _gate = gate().expect("the gate");
    // Unless another test holds it by now, it is what it was.
    if fs::read_to_string(USERS).expect("read").is_empty() {
        assert_eq!(fs::read_to_string(PARAMETER).expect("read").trim(), noted, "restored");
    }
}

#[test]
fn root_the_parameter_is_on_for_everybody_who_holds_it() {
    if !crate::stage::may_mount() || unavailable().is_some() {
        return;
    }
    // The last one leaves again and again while another comes, and children have copies of what is open.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..100 {
                    let held = Enabled::hold().expect("switched on");
                    let value = fs::read_to_string(PARAMETER).expect("read");
                    assert_eq!(value, "Y\n", "on in round {round}");
                    drop(held);
                    let status = std::process::Command::new("true").status().expect("a child");
                    assert!(status.success(), "true: {status}");
                }
            });
        }
    });
}
