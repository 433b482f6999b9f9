//! The kernel's setting of FUSE's ring, which driver fuse switches on when it is asked to.
//!
//! A program of its own: the setting is the whole machine's, and mounts that use the ring end when it is taken
//! back, so nothing else may be mounted meanwhile.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed step is a failed test"
)]

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use drivers::ErrorKind;
use rustix::fs::{FlockOperation, flock};
use tests::host::provides;
use tests::layerfs::all_end_below;
use tests::root::TempRoot;

/// Whether FUSE mounts are offered the ring.
const ENABLE_URING: &str = "/sys/module/fuse/parameters/enable_uring";

/// That setting, alone with it: as it was once this is dropped.
struct Setting {
    before: String,
    _gate: File,
    _users: File,
}

impl Setting {
    /// Waits until layerfs's own tests, which keep these locks meanwhile, leave it alone; none if the
    /// kernel has no such setting.
    fn alone() -> Option<Self> {
        Path::new(ENABLE_URING).exists().then_some(())?;
        let open = |path| File::options().write(true).create(true).truncate(false).open(path);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let gate = open("/run/layerfs-enable-uring.gate").unwrap();
            let users = open("/run/layerfs-enable-uring").unwrap();
            flock(&gate, FlockOperation::LockExclusive).unwrap();
            if flock(&users, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let before = Self::value();
                return Some(Self { before, _gate: gate, _users: users });
            }
            assert!(Instant::now() < deadline, "{ENABLE_URING} stays in use");
            drop(gate);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn value() -> String {
        fs::read_to_string(ENABLE_URING).unwrap().trim().to_owned()
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(ENABLE_URING, &self.before);
    }
}

#[test]
fn the_ring_is_switched_on_for_the_machine_only_when_asked_for() {
    if !provides(&["/dev/fuse"]) {
        return;
    }
    let root = TempRoot::new("ring-setting");
    let open = |option: &str| {
        let options = tests::programs::options("fuse").into_iter();
        let options: Vec<_> =
            options.chain((!option.is_empty()).then(|| option.to_owned())).collect();
        drivers::open("fuse", &root.join("home"), &options).map(drop)
    };
    let Some(_setting) = Setting::alone() else {
        let error = open("fuse.enable_uring=1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("enable_uring"), "{error}");
        return;
    };
    fs::write(ENABLE_URING, "N").unwrap();
    for (option, expected) in [
        ("", "N"),
        ("fuse.enable_uring=0", "N"),
        ("fuse.enable_uring=1", "Y"),
        ("fuse.enable_uring=1", "Y"),
        ("fuse.enable_uring=0", "Y"),
        ("", "Y"),
    ] {
        open(option).unwrap_or_else(|error| panic!("{option:?}: {error}"));
        assert_eq!(Setting::value(), expected, "after opening with {option:?}");
    }
    all_end_below(&root.join("home"));
}
