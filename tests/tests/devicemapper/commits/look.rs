//! What is on the devices of a layer, and of a pool.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::daemon::Finish as _;

use crate::bench::{Bench, POOL, id};

impl Bench {
    /// Sees that a committed layer's file system is whole, and that its journal holds nothing.
    pub(crate) fn is_clean(&self, name: &str) {
        let keys = self.driver().metadata(&id(name)).expect(name);
        let (number, device) = (&keys["DeviceId"], &keys["DeviceName"]);
        let size: u64 = keys["DeviceSize"].parse().expect("a number");
        let shown = Raw::new(&format!("{device}-look"), number, size, true);
        let kind = self.driver().status().into_iter().find(|(key, _)| key == "Backing Filesystem");
        if kind.is_some_and(|(_, kind)| kind == "xfs") {
            let said = Command::new("xfs_repair").arg("-n").arg(shown.path()).finish();
            assert_eq!(said.code, Some(0), "{name}: {said:?}");
            let log = Command::new("xfs_logprint").arg("-t").arg(shown.path()).finish();
            assert!(log.stdout.contains("<CLEAN>"), "{name}: {log:?}");
        } else {
            let said = Command::new("e2fsck").args(["-f", "-n"]).arg(shown.path()).finish();
            assert_eq!(said.code, Some(0), "{name}: {said:?}");
            let head = Command::new("dumpe2fs").arg("-h").arg(shown.path()).finish().ok();
            let line = |key: &str| head.lines().find(|line| line.starts_with(key)).expect(key);
            assert!(!line("Filesystem features").contains("needs_recovery"), "{name}: {head}");
            assert!(line("Filesystem state").ends_with("clean"), "{name}: {head}");
            let orphans = head.lines().find(|line| line.starts_with("First orphan inode"));
            assert_eq!(orphans, None, "{name}: deleted files are left");
        }
    }

    /// The names of all devices of the driver's.
    pub(crate) fn devices(&self) -> Vec<String> {
        let listed = Command::new("dmsetup").arg("ls").finish().ok();
        let names = listed.lines().filter_map(|line| line.split_whitespace().next());
        names.filter(|name| name.starts_with("layerd-")).map(str::to_owned).collect()
    }

    /// The lines of the changes of a layer without a parent.
    pub(crate) fn lone_changes(&self, name: &str) -> Vec<String> {
        let changes = self.driver().changes(&id(name), None).expect(name).changes;
        let changes = changes.iter().filter(|change| !change.path.as_os_str().is_empty());
        changes.map(|change| format!("{:?} /{}", change.kind, change.path.display())).collect()
    }

    /// Waits for what the driver or the kernel does behind the calls.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.devices());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A thin device of the pool under a name of the test's own.
pub(crate) struct Raw(String);

impl Raw {
    pub(crate) fn new(name: &str, number: &str, size: u64, is_sealed: bool) -> Self {
        let table = format!("0 {} thin /dev/mapper/{POOL} {number}", size / 512);
        let mut create = Command::new("dmsetup");
        create.args(["create", name, "--table", &table]);
        if is_sealed {
            create.arg("--readonly");
        }
        create.finish().ok();
        Command::new("dmsetup").args(["mknodes", name]).finish().ok();
        Self(name.to_owned())
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/dev/mapper").join(&self.0)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let removed = Command::new("dmsetup").args(["remove", "--retry", &self.0]).finish();
        if !std::thread::panicking() {
            removed.ok();
        }
    }
}

/// Whether a device is frozen.
pub(crate) fn is_suspended(device: &str) -> bool {
    let words = ["info", "--columns", "--noheadings", "-o", "suspended", device];
    Command::new("dmsetup").args(words).finish().ok().trim() == "Suspended"
}
