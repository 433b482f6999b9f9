//! What a test needs of the machine: privilege, programs, a Debian image, a small file system.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cow_sys::mount;
use layerd_api::{Client, SnapshotRequest};
use tempfile::TempDir;

use crate::daemon::Finish as _;
use crate::disk;

/// The drivers that need nothing of the machine but an ordinary kernel and a disk. devicemapper, which
/// needs a pool, is tested in a kernel of its own.
pub const DRIVERS: [&str; 4] = ["overlay2", "btrfs", "fuse", "vfs"];

/// Whether the test can run here: as root, with these programs, or files where a path is absolute.
///
/// A test that cannot run says why and ends; where `CI=true` promises a machine that has everything it
/// fails instead.
///
/// # Panics
/// With `CI=true`, when something is missing.
#[must_use]
pub fn provides(programs: &[&str]) -> bool {
    let lacks = |program: &&&str| {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
        !found
    };
    let missing = match programs.iter().find(lacks) {
        _ if !rustix::process::geteuid().is_root() => "root".to_owned(),
        Some(file) if file.starts_with('/') => (*file).to_owned(),
        Some(program) => format!("the program {program}"),
        None => return true,
    };
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs {missing}");
    eprintln!("cannot run here: needs {missing}");
    false
}

/// The directory of archives of the four-layer Debian image, built by the first test that asks.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn debian_image() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = workspace.join(".work/debian-small");
        let built = Command::new(workspace.join("tests/scripts/debian-image.sh"))
            .arg(&dir)
            .arg("small")
            .finish();
        assert_eq!(built.code, Some(0), "{built:?}");
        dir
    })
}

/// A mount that ends with its owner.
#[derive(Debug)]
pub struct Mounted {
    dir: TempDir,
    then: Option<(Client, String)>,
}

impl Mounted {
    /// The mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Shows an image's file tree, read-only.
    ///
    /// # Panics
    /// When the image is not there or cannot be mounted.
    #[must_use]
    pub fn image(client: &Client, reference: &str) -> Self {
        let layers = client.image(reference).expect("the image").image.layers;
        Self::layer(client, layers.last().cloned())
    }

    /// Shows a committed layer, or nothing at all, read-only.
    ///
    /// # Panics
    /// When the layer is not there or cannot be mounted.
    #[must_use]
    pub fn layer(client: &Client, parent: Option<String>) -> Self {
        let dir = TempDir::new().expect("a mount point");
        let key = format!("test {}", dir.path().display());
        let view = SnapshotRequest { key: key.clone(), parent, view: true, ..Default::default() };
        let mounts = client.prepare(&view).expect("a view of the image");
        let mounted = Self { dir, then: Some((Client::new(client.socket()), key)) };
        for each in mounts {
            let target = std::fs::File::open(mounted.path()).expect("the mount point");
            mount::mount_at(&each.fstype, Path::new(&each.source), &each.options, target)
                .expect("the mounts of the view");
        }
        mounted
    }

    /// A new ext4 file system of this many MiB on a loop device.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn small_disk(mib: u64) -> Self {
        let dir = TempDir::new().expect("a mount point");
        disk::mount_new("ext4", mib, dir.path());
        Self { dir, then: None }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        while mount::unmount(self.path(), false).is_ok() {}
        let _ = mount::unmount(self.path(), true);
        if let Some((client, key)) = self.then.take() {
            // Gone already, with its daemon.
            drop(client.remove_snapshot(&key));
        }
    }
}
