//! Servers that end while requests are in flight: every caller gets an answer.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;

use crate::stage::{OVER_RING, Stage, may_mount};

/// So long nobody may wait for the end of a request.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client does over and over.
fn round(dir: &Path, number: u32) -> io::Result<()> {
    let name = dir.join(format!("f{number}"));
    if fs::exists(dir.join(format!("missing{number}")))? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut file = File::create_new(&name)?;
    file.write_all(&[7; 5000])?;
    if number.is_multiple_of(8) {
        // Carried out by a thread of the pool, where there is one.
        file.sync_all()?;
    }
    drop(file);
    if fs::read(&name)?.len() != 5000 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    fs::rename(&name, dir.join("renamed"))?;
    fs::set_permissions(dir.join("lower"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    fs::remove_file(dir.join("lower"))?;
    fs::hard_link(dir.join("renamed"), dir.join("lower"))?;
    match fs::read_dir(dir)?.count() {
        2 | 3 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Clients that work in directories of their own until something fails.
struct Clients {
    mount: PathBuf,
    ends: Receiver<(usize, u32)>,
    running: usize,
}

impl Clients {
    /// Starts them and waits until each has done something.
    fn start(mount: &Path, count: usize) -> Self {
        let (sender, ends): (Sender<(usize, u32)>, _) = channel();
        let (begun, begins) = channel();
        for client in 0..count {
            let (dir, sender, begun) =
                (mount.join(format!("c{client}")), sender.clone(), begun.clone());
            thread::spawn(move || {
                let rounds = (0..).find(|number| {
                    let failed = round(&dir, *number).is_err();
                    if *number == 2 || failed {
                        let _ = begun.send(());
                    }
                    failed
                });
                let _ = sender.send((client, rounds.unwrap_or(u32::MAX)));
            });
        }
        let clients = Self { mount: mount.to_owned(), ends, running: count };
        for _ in 0..count {
            if begins.recv_timeout(PATIENCE).is_err() {
                clients.give_up("begin");
            }
        }
        clients
    }

    /// Waits for the end of all; returns how many rounds they did.
    fn end(mut self) -> u32 {
        let mut rounds = 0;
        while self.running > 0 {
            match self.ends.recv_timeout(PATIENCE) {
                Ok((_, done)) => {
                    rounds += done;
                    self.running -= 1;
                }
                Err(RecvTimeoutError::Timeout) => self.give_up("end"),
                Err(RecvTimeoutError::Disconnected) => panic!("a client panicked"),
            }
        }
        rounds
    }

    /// Frees who hangs, so that the test can fail.
    fn give_up(&self, what: &str) -> ! {
        let flags = rustix::fs::AtFlags::STATX_DONT_SYNC;
        let mask = rustix::fs::StatxFlags::empty();
        if let Ok(stat) = rustix::fs::statx(rustix::fs::CWD, &self.mount, flags, mask) {
            let control = format!("/sys/fs/fuse/connections/{}/abort", stat.stx_dev_minor);
            let _ = fs::write(control, "1");
        }
        panic!("{} clients hang and do not {what}", self.running);
    }
}

/// A stage with a lower file for each client.
fn set(count: usize) -> (Stage, String) {
    let stage = Stage::new();
    for client in 0..count {
        let dir = stage.path(&format!("low/c{client}"));
        fs::write(dir.join("lower"), vec![1; 300_000]).expect("a lower file");
    }
    let options = stage.layers(&["low"], "top");
    (stage, options)
}

/// What the layers hold mounts again and can be worked with.
fn assert_usable(stage: &mut Stage, options: &str) {
    let mount = stage.layerfs("m", options);
    for entry in fs::read_dir(&mount).expect("the root") {
        let dir = entry.expect("an entry").path();
        for file in fs::read_dir(&dir).expect("a client's directory") {
            fs::remove_file(file.expect("an entry").path()).expect("unlink");
        }
        assert_eq!(fs::read_dir(&dir).expect("readdir").count(), 0, "{}", dir.display());
    }
    stage.unmount(&mount);
}

#[test]
fn root_a_killed_server_fails_every_request_at_once() {
    if !may_mount() {
        return;
    }
    for way in ["", ",passthrough=0"] {
        let (mut stage, options) = set(24);
        let mount = stage.layerfs("m", &(options.clone() + way));
        let clients = Clients::start(&mount, 24);
        stage.crash();
        assert!(clients.end() > 0, "they had done something");
        assert_usable(&mut stage, &options);
    }
}

#[test]
fn root_a_forced_unmount_fails_every_request_at_once() {
    if !may_mount() {
        return;
    }
    let (mut stage, options) = set(8);
    let mount = stage.layerfs("m", &options);
    let clients = Clients::start(&mount, 8);
    // EBUSY as long as somebody is inside, but the connection is gone.
    let _ = rustix::mount::unmount(&mount, UnmountFlags::FORCE);
    assert!(clients.end() > 0, "they had done something");
    stage.unmount_forced(&mount);
    assert_usable(&mut stage, &options);
}

#[test]
fn root_a_signal_lets_those_inside_finish() {
    if !may_mount() {
        return;
    }
    let (mut stage, options) = set(8);
    let mount = stage.layerfs("m", &options);
    let mut inside = File::create(mount.join("c0/inside")).expect("a file that stays open");
    let clients = Clients::start(&mount, 8);
    let pid = stage.server().id().to_string();
    let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
    assert!(status.success(), "kill: {status}");
    assert!(clients.end() > 0, "they had done something");
    inside.write_all(b"still there").expect("a file that is open stays usable");
    drop(inside);
    stage.left(&mount);
    let kept = fs::read(stage.path("top/up").join("c0/inside")).expect("the upper file");
    assert_eq!(kept, b"still there", "what was written after the signal");
    assert_usable(&mut stage, &options);
}

#[test]
fn root_a_failed_thread_of_the_ring_fails_every_request_at_once() {
    if !OVER_RING || !may_mount() {
        return;
    }
    for after in [0, 1, 300] {
        let (mut stage, options) = set(8);
        let mount = stage.layerfs("m", &format!("{options},x-layerfs.ring-fault={after}"));
        let clients = Clients::start(&mount, 8);
        let _ = clients.end();
        let status = stage.server().wait().expect("the server's end");
        assert_eq!(status.code(), Some(1), "it ends with an error after {after} requests");
        stage.unmount_forced(&mount);
        assert_usable(&mut stage, &options);
    }
}

#[test]
fn root_a_ring_that_is_switched_off_under_a_mount_leaves_nobody_waiting() {
    if !OVER_RING || !may_mount() {
        return;
    }
    let (mut stage, options) = set(8);
    let mount = stage.layerfs("m", &options);
    fs::metadata(mount.join("c0/lower")).expect("over the ring");
    stage.without_ring(|| Clients::start(&mount, 8).end());
    let status = stage.server().wait().expect("the server's end");
    assert_eq!(status.code(), Some(1), "it ends with an error");
    stage.unmount_forced(&mount);
    assert_usable(&mut stage, &options);
}

/// The names of a process's threads.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the server's threads");
    let name = |task: io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).map(|name| name.trim().to_owned()).collect()
}

#[test]
fn root_the_ring_is_done_without_where_it_cannot_be_set_up() {
    if !OVER_RING || !may_mount() {
        return;
    }
    // A refusal in the middle, too few files for more than the layers, one thread wanted, and none.
    for (files, more, over_ring) in [
        (1000, ",transport=auto", true),
        (1000, ",transport=auto,x-layerfs.ring-fault=registration", false),
        (12, ",transport=auto", false),
        (1000, ",transport=auto,threaded=0", false),
        (1000, ",transport=device", false),
    ] {
        let (mut stage, options) = set(4);
        let mount = stage.layerfs_below("m", &(options.clone() + more), files);
        // The mount is there before the ring is, or is given up.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let names = threads(stage.server().id());
            let reads = names.contains(&"layerfs-0".to_owned());
            if reads && over_ring == names.iter().any(|name| name.starts_with("layerfs-cpu")) {
                break;
            }
            assert!(Instant::now() < deadline, "{more} with {files} files: {names:?}");
            thread::sleep(Duration::from_millis(2));
        }
        if files > 100 {
            round(&mount.join("c0"), 0).unwrap_or_else(|error| panic!("{more}: {error}"));
        }
        stage.unmount(&mount);
        assert_usable(&mut stage, &options);
    }
}

#[test]
fn root_a_user_who_insists_on_the_ring_is_told_why_there_is_none() {
    if !OVER_RING || !may_mount() {
        return;
    }
    let (stage, options) = set(1);
    let point = stage.path("m");
    for (files, more, reason) in [
        (1000, "x-layerfs.ring-fault=registration", "set up the ring"),
        (12, "xino=on", "too few files"),
    ] {
        let output = Command::new("prlimit")
            .arg(format!("--nofile={files}:{files}"))
            .args([env!("CARGO_BIN_EXE_layerfs"), "-o"])
            .arg(format!("{options},transport=ring,{more}"))
            .arg(&point)
            .output()
            .expect("layerfs runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more}: {said}");
        assert!(said.contains(reason), "{more}: {said}");
        assert_eq!(fs::read_dir(&point).expect("the directory").count(), 0, "{more}: not mounted");
    }
}
