//! Switching FUSE over io_uring on for as long as somebody tests it.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};

use rustix::fs::{FlockOperation, flock};

/// Whether mounts made from now on are offered the ring.
const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";
/// What the parameter was before the first of its present users; its lock counts them.
const USERS: &str = "/run/layerfs-enable-uring";
/// Held while users come and go.
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

impl Enabled {
    /// Switches the parameter on.
    pub(crate) fn hold() -> io::Result<Self> {
        let _gate = gate()?;
        let mut users = open(USERS)?;
        if flock(&users, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let mut before = String::new();
            users.read_to_string(&mut before)?;
            if before.is_empty() {
                users.write_all(fs::read_to_string(PARAMETER)?.trim().as_bytes())?;
            }
            cow_sys::fuse::enable_uring()?;
        }
        flock(&users, FlockOperation::LockShared)?;
        Ok(Self(users))
    }

    /// Waits until there is no other user, and switches the parameter off while something is done.
    pub(crate) fn off<T>(&mut self, work: impl FnOnce() -> T) -> io::Result<T> {
        let mut before = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut before)?;
        // For a moment it is nobody's lock: who leaves then takes himself for the last.
        flock(&self.0, FlockOperation::LockExclusive)?;
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(before.as_bytes())?;
        fs::write(PARAMETER, "N")?;
        let done = work();
        cow_sys::fuse::enable_uring()?;
        flock(&self.0, FlockOperation::LockShared)?;
        Ok(done)
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        let _gate = gate();
        if flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        let mut before = String::new();
        let _ = self.0.rewind();
        if self.0.read_to_string(&mut before).is_ok() && !before.is_empty() {
            let _ = fs::write(PARAMETER, before);
        }
        let _ = self.0.set_len(0);
    }
}

#[test]
fn root_the_parameter_is_restored_when_the_last_user_leaves() {
    if !crate::stage::may_mount() || unavailable().is_some() {
        return;
    }
    let one = Enabled::hold().expect("switched on");
    let panicked = std::thread::spawn(|| {
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
