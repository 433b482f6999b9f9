//! Unions of layers, mounted: the kernel's overlay, fuse-overlayfs and layerfs over the same lowers.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::{Failure, program, run};

/// Who makes the union.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The kernel's overlay.
    Kernel,
    /// Debian's fuse-overlayfs.
    FuseOverlayfs,
    /// layerfs, with further options.
    Layerfs(String),
}

impl Maker {
    /// The name in the table.
    pub fn name(&self) -> String {
        match self {
            Self::Kernel => "kernel".to_owned(),
            Self::FuseOverlayfs => "fuse-overlayfs".to_owned(),
            Self::Layerfs(more) => format!("layerfs {}", more.trim_start_matches("transport=")),
        }
    }
}

/// The option by which layerfs takes the ring or fails.
pub const RING: &str = "transport=ring";

/// One maker's place: its upper directories and its mount point, over lowers that all share.
///
/// What is mounted is taken off when this is dropped.
#[derive(Debug)]
pub struct Stand {
    maker: Maker,
    lowers: Vec<PathBuf>,
    dir: PathBuf,
    round: usize,
    mounted: bool,
}

impl Stand {
    /// A place below `dir`, with nothing mounted yet; `lowers` are named from the top.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn new(maker: Maker, lowers: &[PathBuf], dir: PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(dir.join("merged"))?;
        Ok(Self { maker, lowers: lowers.to_vec(), dir, round: 0, mounted: false })
    }

    /// Who makes this union.
    pub fn maker(&self) -> &Maker {
        &self.maker
    }

    /// Where the union is mounted.
    pub fn root(&self) -> PathBuf {
        self.dir.join("merged")
    }

    fn layer(&self, kind: &str) -> PathBuf {
        self.dir.join(format!("{kind}-{}", self.round))
    }

    /// Takes a new upper directory, and removes the last.
    ///
    /// # Errors
    /// When something cannot be unmounted or removed.
    pub fn renew(&mut self) -> Result<(), Failure> {
        self.unmount()?;
        for kind in ["upper", "work"] {
            let old = self.layer(kind);
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        self.round += 1;
        for kind in ["upper", "work"] {
            fs::create_dir(self.layer(kind))?;
        }
        self.mount()
    }

    /// Mounts anew with the same upper directory: the union's own caches are then cold, those of the
    /// layers' file system are not.
    ///
    /// # Errors
    /// What umount and mount say.
    pub fn remount(&mut self) -> Result<(), Failure> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<(), Failure> {
        let lowers: Vec<_> = self.lowers.iter().map(|path| path.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lowers.join(":"),
            self.layer("upper").display(),
            self.layer("work").display()
        );
        let root = self.root();
        match &self.maker {
            Maker::Kernel => {
                let options = CString::new(options)?;
                let flags = MountFlags::empty();
                rustix::mount::mount("overlay", &root, "overlay", flags, options.as_c_str())?;
            }
            Maker::FuseOverlayfs => {
                run(Command::new("fuse-overlayfs").arg("-o").arg(options).arg(&root))?;
            }
            Maker::Layerfs(more) => {
                let mut command = Command::new(program("layerfs"));
                command.arg("-o").arg(options);
                if !more.is_empty() {
                    command.arg("-o").arg(more);
                }
                run(command.arg(&root))?;
            }
        }
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), Failure> {
        if self.mounted {
            rustix::mount::unmount(self.root(), UnmountFlags::empty())?;
            self.mounted = false;
        }
        Ok(())
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if self.mounted {
            let _ = rustix::mount::unmount(self.root(), UnmountFlags::DETACH);
        }
    }
}

/// A file system of its own for the layers: ext4 with its defaults, in a file behind a loop device, so
/// that the figures do not depend on what the disk of this machine was formatted with.
///
/// The loop device passes by the cache (`--direct-io`): with a second copy of everything in memory, who waits for the disk
/// would wait for memory, and that much less of it would be there for the layers.
#[derive(Debug)]
pub struct Ground {
    dir: PathBuf,
}

impl Ground {
    /// Makes and mounts it below `dir`.
    ///
    /// # Errors
    /// When mkfs.ext4 or mount fail.
    pub fn new(dir: &Path, size: u64) -> Result<Self, Failure> {
        let image = dir.join("ground.img");
        fs::File::create(&image)?.set_len(size)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0"]).arg(&image))?;
        let ground = Self { dir: dir.join("ground") };
        fs::create_dir(&ground.dir)?;
        let attach = ["--find", "--show", "--direct-io=on"];
        let device = run(Command::new("losetup").args(attach).arg(&image))?;
        let mounted = run(Command::new("mount").arg(device.trim()).arg(&ground.dir));
        // It goes when the mount does.
        run(Command::new("losetup").args(["--detach", device.trim()]))?;
        mounted.map(|_| ground)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Writes everything back.
    ///
    /// # Errors
    /// What syncfs says.
    pub fn sync(&self) -> Result<(), Failure> {
        Ok(rustix::fs::syncfs(fs::File::open(&self.dir)?)?)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
    }
}
