//! Two populated lower layers under layerfs, and the same files on the plain file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::daemon::{Finish as _, Finished};
use tests::disk;
use tests::host;
use tests::programs;
use tests::root::TempRoot;

/// Whether a test can run here: with FUSE and these programs.
pub(crate) fn provides(programs: &[&str]) -> bool {
    host::provides(&["/dev/fuse"]) && host::provides(programs)
}

/// A union of layers, taken down whatever happens.
#[derive(Debug)]
pub(crate) struct Stage {
    root: TempRoot,
}

impl Stage {
    /// Has `fill` write the lower layers, given the bottom and the top one, and mounts layerfs on them.
    pub(crate) fn new(label: &str, fill: impl FnOnce(&Path, &Path)) -> Self {
        Self::in_root(TempRoot::new(label), fill)
    }

    /// The same on a disk with a journal, on which layerfs answers before the disk has what it copied up.
    pub(crate) fn on_journal(label: &str, fill: impl FnOnce(&Path, &Path)) -> Self {
        let root = TempRoot::new(label);
        disk::mount_new("ext4", 2048, root.path());
        Self::in_root(root, fill)
    }

    fn in_root(root: TempRoot, fill: impl FnOnce(&Path, &Path)) -> Self {
        let stage = Self { root };
        for name in ["bottom", "top", "upper", "work", "merged", "plain"] {
            fs::create_dir(stage.root.join(name)).expect("a directory of the stage");
        }
        fill(&stage.root.join("bottom"), &stage.root.join("top"));
        stage.mount();
        stage
    }

    /// The union.
    pub(crate) fn merged(&self) -> PathBuf {
        self.root.join("merged")
    }

    /// A copy of the lower layers, one over the other, without a union.
    pub(crate) fn plain(&self) -> PathBuf {
        let plain = self.root.join("plain");
        for layer in ["bottom", "top"] {
            let from = self.root.join(layer).join(".");
            Command::new("cp").arg("-a").arg(from).arg(&plain).finish().ok();
        }
        plain
    }

    fn mount(&self) {
        let path = |name| self.root.join(name).display().to_string();
        let mut options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            path("top"),
            path("bottom"),
            path("upper"),
            path("work")
        );
        if let Ok(more) = std::env::var("LAYERFS_STRESS_OPTIONS") {
            options = format!("{options},{more}");
        }
        let mut layerfs = Command::new(programs::path("layerfs"));
        layerfs.arg("-o").arg(options).arg(self.merged()).finish().ok();
    }

    /// Unmounts, and mounts the same layers again.
    pub(crate) fn remount(&self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.merged(), flags).expect("it is mounted");
        self.mount();
    }
}

/// Runs a script in a directory, with an environment in which nothing differs between two places.
pub(crate) fn run(script: &str, dir: &Path, more: &[(&str, &str)]) -> Finished {
    let path = std::env::var_os("PATH").expect("a search path");
    Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .env_clear()
        .env("PATH", path)
        .env("HOME", dir)
        .env("LC_ALL", "C")
        .envs(more.iter().copied())
        .finish()
}
