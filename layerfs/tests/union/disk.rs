//! A disk of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLockReadGuard};

use crate::stage::{NAMESPACES, Stage, run};

/// A disk of its own for the upper layer, whose power can be cut.
pub(crate) struct Disk {
    image: PathBuf,
    top: PathBuf,
    _alone: RwLockReadGuard<'static, ()>,
}

impl Disk {
    pub(crate) fn new(stage: &mut Stage) -> Self {
        let image = stage.path(".").join("disk");
        fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a disk");
        run("mkfs.ext4", &["-q".as_ref(), "-b".as_ref(), "4096".as_ref(), image.as_os_str()]);
        let alone = NAMESPACES.read().unwrap_or_else(PoisonError::into_inner);
        let disk = Self { image, top: stage.path("top"), _alone: alone };
        disk.mount(stage);
        disk
    }

    fn mount(&self, stage: &mut Stage) {
        self.mount_with(stage, "loop");
    }

    /// Mounts it with these options.
    fn mount_with(&self, stage: &mut Stage, options: &str) {
        run("mount", &["-o".as_ref(), options.as_ref(), self.image.as_os_str(), self.top.as_os_str()]);
        stage.adopt(self.top.clone());
    }

    /// Unmounts it, and mounts it with other options; read-only, its loop device is writable all the same, and stays.
    pub(crate) fn remount(&self, stage: &mut Stage, options: &str) {
        let found = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.top).output();
        let device = String::from_utf8(found.expect("findmnt").stdout).expect("UTF-8");
        let device = Path::new(device.trim());
        let held = fs::File::open(device).expect("the device");
        stage.unmount(&self.top);
        let words = ["-o".as_ref(), options.as_ref(), device.as_os_str(), self.top.as_os_str()];
        run("mount", &words);
        stage.adopt(self.top.clone());
        drop(held);
    }

    /// Loses all that is not on the disk yet.
    pub(crate) fn cut(&self) {
        // EXT4_IOC_SHUTDOWN without a flush of the journal.
        const CUT: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run("python3", &["-c".as_ref(), CUT.as_ref(), self.top.as_os_str()]);
    }

    /// What a file of the upper layer has on the disk.
    pub(crate) fn read(&self, stage: &mut Stage, name: &str) -> Option<Vec<u8>> {
        stage.unmount(&self.top);
        self.mount(stage);
        let found = fs::read(self.top.join("up").join(name)).ok();
        stage.unmount(&self.top);
        found
    }
}
