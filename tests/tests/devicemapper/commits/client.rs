//! A client that has a layer mounted for itself.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use drivers::{Access, Mount};
use tests::root::TempRoot;

use crate::bench::{Bench, id};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a client mounts a layer.
pub(crate) type Way = fn(&Bench, &str) -> Client;

/// A mount of a layer.
pub(crate) struct Client {
    root: TempRoot,
    shown: PathBuf,
    device: String,
    /// Who has it mounted in a namespace of his own, and ends when it hears something.
    elsewhere: Option<Child>,
}

impl Client {
    fn description(bench: &Bench, name: &str, access: Access) -> Mount {
        let mut mounts = bench.driver().mounts(&id(name), access).expect(name);
        assert_eq!(mounts.len(), 1, "a device alone: {mounts:?}");
        mounts.remove(0)
    }

    fn of(mount: &Mount, root: TempRoot) -> Self {
        let device = mount.source.file_name().unwrap().to_str().unwrap().to_owned();
        Self { shown: root.path().to_owned(), root, device, elsewhere: None }
    }

    fn with(mount: &Mount) -> Self {
        let root = TempRoot::new("client");
        let target = File::open(root.path()).unwrap();
        cow_sys::mount::mount_at(&mount.fstype, &mount.source, &mount.options, target)
            .expect("a mount");
        Self::of(mount, root)
    }

    /// As it is described.
    pub(crate) fn mount(bench: &Bench, name: &str) -> Self {
        Self::with(&Self::description(bench, name, Access::Default))
    }

    /// Read-only, which no other mount of the device can change then.
    pub(crate) fn read_only(bench: &Bench, name: &str) -> Self {
        Self::with(&Self::description(bench, name, Access::ReadOnly))
    }

    /// In a place where only a bind mount of it is left.
    pub(crate) fn bind(bench: &Bench, name: &str) -> Self {
        let mount = Self::description(bench, name, Access::Default);
        let root = TempRoot::new("client");
        let script = format!(
            "cd {root} && mkdir first second && mount -t {fstype} -o {options} {source} first && \
             mount --bind first second && umount first",
            root = root.path().display(),
            fstype = mount.fstype,
            options = mount.options.join(","),
            source = mount.source.display(),
        );
        assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success(), "{script}");
        let mut client = Self::of(&mount, root);
        client.shown = client.root.join("second");
        client
    }

    /// In a mount namespace of a process of its own.
    pub(crate) fn elsewhere(bench: &Bench, name: &str) -> Self {
        let mount = Self::description(bench, name, Access::Default);
        let root = TempRoot::new("client");
        let script = format!(
            "mount -t {fstype} -o {options} {source} {root}; echo mounted; read end",
            root = root.path().display(),
            fstype = mount.fstype,
            options = mount.options.join(","),
            source = mount.source.display(),
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "{script}");
        let shown = format!("/proc/{}/root{}", child.id(), root.path().display());
        let mut client = Self::of(&mount, root);
        client.shown = shown.into();
        client.elsewhere = Some(child);
        client
    }

    /// Where it sees the layer.
    pub(crate) fn path(&self) -> &Path {
        &self.shown
    }

    /// The name of the device that it has.
    pub(crate) fn device(&self) -> String {
        self.device.clone()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.shown.join(name)).expect(name)
    }

    /// A write that must not wait for ever, and is on the disk.
    pub(crate) fn can_write(&self, what: &str) {
        let path = self.shown.join("alive");
        let writing = std::thread::spawn(move || {
            File::create(path)
                .and_then(|mut file| file.write_all(b"x").and_then(|()| file.sync_all()))
        });
        let deadline = Instant::now() + PATIENCE;
        while !writing.is_finished() {
            assert!(Instant::now() < deadline, "{what}: its client is frozen");
            std::thread::sleep(Duration::from_millis(10));
        }
        writing.join().unwrap().unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    /// Ends it; nobody has the device open after that.
    pub(crate) fn unmount(self) {}

    /// Writes files one after another until it is stopped.
    pub(crate) fn write_on(&self) -> Writer {
        let (written, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (dir, count, ends) = (self.shown.clone(), Arc::clone(&written), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !ends.load(Ordering::Relaxed) {
                let mut file = File::create(dir.join(format!("w{number}"))).expect("a file");
                file.write_all(&content(number)).expect("room");
                file.sync_all().expect("a disk");
                number += 1;
                count.store(number, Ordering::Relaxed);
            }
        });
        Writer { written, stop, thread: Some(thread) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(mut child) = self.elsewhere.take() {
            drop(child.stdin.take());
            child.wait().expect("its end");
        }
        // Not detached if it can be helped: the device is free after that.
        let _ = cow_sys::mount::unmount(&self.shown, false);
    }
}

/// What a writer writes into its files.
pub(crate) fn content(number: u32) -> Vec<u8> {
    number.to_string().repeat(2000).into_bytes()
}

/// A thread that writes files.
pub(crate) struct Writer {
    written: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// How many files it has written at least.
    pub(crate) fn written(&self) -> u32 {
        // One may be whole on the disk and not counted yet.
        self.written.load(Ordering::Relaxed) + 1
    }

    pub(crate) fn wait_for(&self, count: u32) {
        let deadline = Instant::now() + PATIENCE;
        while self.written.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "it does not write on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it, and tells how many files it has written.
    pub(crate) fn stop(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("a thread").join().expect("all were written");
        self.written.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
