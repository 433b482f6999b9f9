//! A disk of a test's own.

use std::fs;
use std::path::PathBuf;

use crate::stage::{Stage, run};

/// A disk of its own for the upper layer, whose power can be cut.
pub(crate) struct Disk {
    image: PathBuf,
    top: PathBuf,
}

impl Disk {
    pub(crate) fn new(stage: &mut Stage) -> Self {
        let image = stage.path(".").join("disk");
        fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a disk");
        run("mkfs.ext4", &["-q".as_ref(), "-b".as_ref(), "4096".as_ref(), image.as_os_str()]);
        let disk = Self { image, top: stage.path("top") };
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

    /// Unmounts it, and mounts it with other options.
    pub(crate) fn remount(&self, stage: &mut Stage, options: &str) {
        stage.unmount(&self.top);
        self.mount_with(stage, &format!("loop,{options}"));
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
