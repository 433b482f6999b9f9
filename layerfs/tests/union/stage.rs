//! A directory with layers, and the mounts on it, which are taken off whatever happens.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::RwLock;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;

use crate::uring::{Enabled, unavailable};

/// The program under test.
pub(crate) const LAYERFS: &str = env!("CARGO_BIN_EXE_layerfs");

/// Whether this test program is the one whose mounts use the ring.
pub(crate) const OVER_RING: bool = env!("CARGO_CRATE_NAME").len() == "ring".len();

/// Whether this test may mount; says why not, and fails where CI promised it.
pub(crate) fn may_mount() -> bool {
    let lacks_ring = if OVER_RING { unavailable() } else { None };
    let (missing, promised) =
        match (rustix::process::geteuid().is_root(), Path::new("/dev/fuse").exists(), lacks_ring) {
            (true, true, None) => return true,
            (true, true, Some(missing)) => missing,
            (false, _, _) => ("root", true),
            (_, false, _) => ("/dev/fuse", true),
        };
    let promised = promised && std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!promised, "this test needs {missing}, which CI promises");
    eprintln!("skipped: this test needs {missing}");
    false
}

/// Whether a program is there that a test needs; says so and fails as [`may_mount`].
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(name).exists()) {
        return true;
    }
    let promised = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!promised, "this test needs {name}, which CI promises");
    eprintln!("skipped: this test needs {name}");
    false
}

/// Kept from being written by whoever counts on the end of a mount, and written while a mount namespace is made: that
/// has copies of all mounts, and with them the file systems.
pub(crate) static NAMESPACES: RwLock<()> = RwLock::new(());

/// Layers, and mounts of them.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
    mounts: Vec<PathBuf>,
    servers: Vec<Child>,
    /// The mounts that they serve.
    served: Vec<PathBuf>,
    // Last: restored when the mounts are off.
    ring: Option<Enabled>,
}

impl Stage {
    /// An empty stage.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the layers");
        let ring = OVER_RING.then(|| Enabled::hold().expect("the ring switched on"));
        Self { dir, mounts: Vec::new(), servers: Vec::new(), served: Vec::new(), ring }
    }

    /// Does something while the kernel refuses the ring, to mounts that have it too.
    pub(crate) fn without_ring<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let ring = self.ring.as_mut().expect("a test over the ring");
        ring.off(work).expect("the ring switched off")
    }

    /// A directory of the stage, made when it is not there.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).expect("a directory of the stage");
        path
    }

    /// The option string for these layers.
    pub(crate) fn layers(&self, lower: &[&str], upper: &str) -> String {
        let lower: Vec<_> =
            lower.iter().map(|name| self.path(name).display().to_string()).collect();
        let upper_dir = self.path(&format!("{upper}/up"));
        let work = self.path(&format!("{upper}/work"));
        format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper_dir.display(),
            work.display()
        )
    }

    /// Mounts layerfs, served by a child of this process.
    pub(crate) fn layerfs(&mut self, name: &str, options: &str) -> PathBuf {
        self.serve(Command::new(LAYERFS), name, options)
    }

    /// Mounts layerfs with a limit on open files.
    pub(crate) fn layerfs_below(&mut self, name: &str, options: &str, files: u32) -> PathBuf {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}:{files}")).arg(LAYERFS);
        self.serve(command, name, options)
    }

    /// Mounts layerfs as users do, in the background.
    pub(crate) fn background(&mut self, name: &str, options: &str) -> PathBuf {
        let point = self.path(name);
        // The one before is no child of ours, and may be about to end.
        let deadline = Instant::now() + Duration::from_secs(60);
        while crate::faults::server_of(&point).is_some() {
            assert!(Instant::now() < deadline, "a server outlives its mount");
            std::thread::sleep(Duration::from_millis(1));
        }
        let transport = if OVER_RING { "ring" } else { "device" };
        let options = format!("transport={transport},{options}");
        let status = Command::new(LAYERFS).arg("-o").arg(options).arg(&point).status();
        assert!(status.expect("layerfs runs").success(), "mounted");
        self.adopt(point)
    }

    /// Gives a mount other flags, as `mount -o remount` has its helper do; says whether that went well.
    pub(crate) fn remount(&self, point: &Path, options: &str) -> bool {
        let status = Command::new(LAYERFS).args(["source", "-o", options]).arg(point).status();
        status.expect("layerfs runs").success()
    }

    fn serve(&mut self, mut command: Command, name: &str, options: &str) -> PathBuf {
        let point = self.path(name);
        let before = device(&point);
        let transport = if OVER_RING { "ring" } else { "device" };
        // What the test says itself comes later and holds.
        let options = &format!("transport={transport},{options}");
        let mut server = command
            .args(["-f", "-o", options])
            .arg(&point)
            .stdin(Stdio::null())
            .spawn()
            .expect("layerfs starts");
        let deadline = Instant::now() + Duration::from_secs(30);
        while device(&point) == before {
            if let Some(status) = server.try_wait().expect("the server's state") {
                panic!("layerfs -o {options}: {status}");
            }
            assert!(Instant::now() < deadline, "layerfs -o {options} did not mount in time");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.servers.push(server);
        self.served.push(point.clone());
        self.mounts.push(point.clone());
        point
    }

    /// Mounts the kernel's overlay.
    pub(crate) fn kernel(&mut self, name: &str, options: &str) -> PathBuf {
        let point = self.path(name);
        let data = std::ffi::CString::new(options).expect("no NUL");
        let flags = rustix::mount::MountFlags::empty();
        let mount = || rustix::mount::mount("overlay", &point, "overlay", flags, data.as_c_str());
        // An earlier mount of the same upper lives until its last fd is closed; see `unmount`.
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = mount() {
            let busy = error == rustix::io::Errno::BUSY && Instant::now() < deadline;
            assert!(busy, "mount -t overlay -o {options}: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.mounts.push(point.clone());
        point
    }

    /// Mounts a file system of its own on a directory of the stage.
    pub(crate) fn tmpfs(&mut self, name: &str) -> PathBuf {
        let point = self.path(name);
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("stage", &point, "tmpfs", flags, None).expect("mount -t tmpfs");
        self.mounts.push(point.clone());
        point
    }

    /// Takes a mount that another program made into care.
    pub(crate) fn adopt(&mut self, point: PathBuf) -> PathBuf {
        self.mounts.push(point.clone());
        point
    }

    /// Takes a mount off and waits for its server to end.
    pub(crate) fn unmount(&mut self, point: &Path) {
        // A program that another test starts holds copies of this process's fds until it runs.
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = rustix::mount::unmount(point, UnmountFlags::empty()) {
            let busy = error == rustix::io::Errno::BUSY && Instant::now() < deadline;
            assert!(busy, "umount {}: {error}", point.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        let at = self.mounts.iter().position(|mount| mount == point).expect("a mount of the stage");
        self.mounts.remove(at);
        self.served.retain(|mount| mount != point);
        self.reap();
    }

    /// Takes a mount off that is in use, and leaves its server to the end of that.
    pub(crate) fn detach(&mut self, point: &Path) {
        rustix::mount::unmount(point, UnmountFlags::DETACH).expect("umount -l");
        self.mounts.retain(|mount| mount != point);
    }

    /// Takes off what is left of a mount whose connection is gone, and waits for its server to end.
    pub(crate) fn unmount_forced(&mut self, point: &Path) {
        let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
        self.left(point);
    }

    /// Waits for the end of the server of a mount that is off already.
    pub(crate) fn left(&mut self, point: &Path) {
        self.mounts.retain(|mount| mount != point);
        self.served.retain(|mount| mount != point);
        self.reap();
    }

    /// Kills the newest server as a crash would.
    pub(crate) fn crash(&mut self) {
        let mut server = self.servers.pop().expect("a server");
        server.kill().expect("kill");
        server.wait().expect("wait");
        let point = self.served.pop().expect("its mount");
        self.mounts.retain(|mount| *mount != point);
        let _ = rustix::mount::unmount(&point, UnmountFlags::DETACH);
    }

    /// The newest server.
    pub(crate) fn server(&mut self) -> &mut Child {
        self.servers.last_mut().expect("a server")
    }

    /// Waits until there is no server without a mount.
    fn reap(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            self.servers.retain_mut(|server| !matches!(server.try_wait(), Ok(Some(_))));
            if self.servers.len() <= self.served.len() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("a server outlives its mount");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for point in self.mounts.drain(..).rev() {
            let _ = rustix::mount::unmount(&point, UnmountFlags::DETACH);
        }
        for mut server in self.servers.drain(..) {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The device of a directory, by which a mount on it is told.
fn device(path: &Path) -> Option<u64> {
    rustix::fs::lstat(path).ok().map(|stat| stat.st_dev)
}

/// Runs a program to its end.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) {
    let status = Command::new(program).args(args).stdin(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program}: {status}");
}
