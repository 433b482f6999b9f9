//! Requests that meet: what one thread removes, renames or copies up while another makes or looks.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::stage::{Stage, has_program, may_mount, run};

#[test]
fn root_directories_made_beside_removals_are_new() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    thread::scope(|scope| {
        for thread in 0..8 {
            let dir = mount.join(thread.to_string());
            scope.spawn(move || {
                fs::create_dir(&dir).expect("a directory of its own");
                for round in 0..600 {
                    // The layer's file system gives the inode of what one removes to what another makes.
                    let name = dir.join(round.to_string());
                    let told = |what| move |error| panic!("{thread}, {round}, {what}: {error}");
                    fs::create_dir(&name).unwrap_or_else(told("mkdir"));
                    fs::remove_dir(&name).unwrap_or_else(told("rmdir"));
                }
            });
        }
    });
    stage.unmount(&mount);
}

#[test]
fn root_a_directory_that_was_forgotten_is_the_one_that_its_files_know() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    for dir in ["one", "two"] {
        fs::create_dir(low.join(dir)).expect("a directory");
    }
    fs::write(low.join("two/b"), "old").expect("a file");
    fs::hard_link(low.join("two/b"), low.join("one/a")).expect("its other name");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    let file = fs::File::open(mount.join("two/b")).expect("a file");
    assert!(mount.join("one/a").exists(), "its other name, which is the last that it is known by");
    // The kernel lets go of the directory of that name, and of the name; the file stays.
    let remount = rustix::mount::mount_remount(&mount, rustix::mount::MountFlags::empty(), c"");
    remount.expect("remounted, which empties the kernel's cache of names");
    assert!(mount.join("one").is_dir(), "looked up anew");
    file.set_permissions(fs::Permissions::from_mode(0o600)).expect("a copy-up");
    fs::write(mount.join("one/new"), "").expect("a file beside the one that was copied up");
    fs::rename(mount.join("one"), mount.join("moved")).expect("a rename");
    let mode = |name: &str| fs::metadata(mount.join(name)).expect("a file").mode() & 0o777;
    assert_eq!(mode("moved/a"), 0o600, "the name by which it was copied up");
    assert_eq!(mode("two/b"), 0o600, "the other one");
    drop(file);
    stage.unmount(&mount);
}

#[test]
fn root_an_open_file_is_seen_while_it_is_renamed() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    fs::write(stage.path("low").join("lower"), "x").expect("a file");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    fs::write(mount.join("upper"), "x").expect("a file");
    for first in ["lower", "upper"] {
        let file = fs::File::open(mount.join(first)).expect("a file");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let look = || {
                while !done.load(Ordering::Relaxed) {
                    let length = file.metadata().map(|meta| meta.len());
                    assert_eq!(length.ok(), Some(1), "{first} by its fd");
                }
            };
            scope.spawn(look);
            scope.spawn(look);
            let mut name = mount.join(first);
            for round in 0..1500 {
                let next = mount.join(format!("{first}-{round}"));
                fs::rename(&name, &next).expect("a rename");
                name = next;
            }
            done.store(true, Ordering::Relaxed);
        });
        drop(file);
    }
    stage.unmount(&mount);
}

#[test]
fn root_a_program_that_runs_cannot_be_cut() {
    if !may_mount() || !has_program("sleep") {
        return;
    }
    let mut stage = Stage::new();
    let sleep = PathBuf::from("/bin/sleep");
    // By another program: who is started meanwhile by another test would have our copy open for writing.
    let copy = |to: PathBuf| run("cp", &[sleep.as_os_str(), to.as_os_str()]);
    copy(stage.path("low").join("lower"));
    let options = stage.layers(&["low"], "top");
    for more in ["passthrough=1", "passthrough=0"] {
        let mount = stage.layerfs("m", &format!("{options},{more}"));
        copy(mount.join("upper"));
        for name in ["lower", "upper"] {
            let path = mount.join(name);
            let mut program = Command::new(&path).arg("100").spawn().expect("it runs");
            // Flags that the standard library refuses.
            let cut = || {
                let flags = OFlags::RDONLY | OFlags::TRUNC | OFlags::CLOEXEC;
                rustix::fs::open(&path, flags, Mode::empty()).map(drop)
            };
            for flags in [OFlags::WRONLY, OFlags::RDWR] {
                let opened = rustix::fs::open(&path, flags, Mode::empty()).map(drop);
                assert_eq!(opened, Err(Errno::TXTBSY), "{more}, {name}, {flags:?}");
            }
            assert_eq!(cut(), Err(Errno::TXTBSY), "{more}, {name}, cut");
            let length = fs::metadata(&path).expect("stat").len();
            assert_eq!(length, fs::metadata(&sleep).expect("stat").len(), "{more}, {name}, whole");
            assert!(program.try_wait().expect("its state").is_none(), "{more}, {name}, it runs");
            program.kill().expect("kill");
            program.wait().expect("wait");
            if name == "lower" && more == "passthrough=1" {
                // It is to run below the next mount as well.
                continue;
            }
            // The kernel tells of its end without waiting for an answer.
            let deadline = Instant::now() + Duration::from_secs(20);
            while let Err(error) = cut() {
                let busy = error == Errno::TXTBSY && Instant::now() < deadline;
                assert!(busy, "{more}, {name}, cut at rest: {error}");
                thread::yield_now();
            }
            assert_eq!(fs::metadata(&path).expect("stat").len(), 0, "{more}, {name}, cut at rest");
        }
        stage.unmount(&mount);
    }
}
