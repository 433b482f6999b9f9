//! Readers of a directory that changes before they come back for more.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawDir};

use crate::stage::{Stage, may_mount};

/// How much musl's readdir(3) asks for at once.
const BUFFER: usize = 2048;
/// Files of a directory that takes many calls.
const FILES: usize = 600;

fn open(dir: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).expect("a directory")
}

/// Gives names and types to `each`, the next call being made when those of one are through, until it
/// says that it has enough.
fn read(dir: &OwnedFd, mut each: impl FnMut(&str, FileType) -> bool) {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.expect("an entry");
        let (name, kind) = (entry.file_name().to_str().expect("UTF-8").to_owned(), entry.file_type());
        let last = entries.is_buffer_empty();
        let enough = name != "." && name != ".." && !each(&name, kind);
        if enough && last {
            return;
        }
    }
}

/// What one call tells, and what is left for others of these names.
fn first(dir: &OwnedFd, all: &[String]) -> (Vec<String>, Vec<String>) {
    let mut told = Vec::new();
    read(dir, |name, _| {
        told.push(name.to_owned());
        false
    });
    let left: Vec<_> = all.iter().filter(|name| !told.contains(name)).cloned().collect();
    assert!(left.len() > all.len() / 2, "one call tells of all: {}", told.len());
    (told, left)
}

/// The rest.
fn rest(dir: &OwnedFd) -> Vec<(String, FileType)> {
    let mut told = Vec::new();
    read(dir, |name, kind| {
        told.push((name.to_owned(), kind));
        true
    });
    told
}

fn file_names() -> Vec<String> {
    (0..FILES).map(|number| format!("file-{number}")).collect()
}

/// A mount of a lower directory of files that has an upper part as well.
fn merged(stage: &mut Stage, options: &str) -> std::path::PathBuf {
    let low = stage.path("low/dir");
    for name in file_names() {
        fs::write(low.join(name), "lower").expect("a file");
    }
    let layers = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &format!("{options},{layers}"));
    fs::write(mount.join("dir/made"), "").expect("a file");
    mount
}

#[test]
fn root_a_reader_comes_back_to_its_place_after_many_other_directories() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let layers = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &format!("prefetch=0,{layers}"));
    let dir = mount.join("dir");
    for number in 0..FILES {
        for below in ["a", "b", "c", "d"] {
            let below = dir.join(format!("dir-{number}")).join(below);
            fs::create_dir_all(below).expect("directories");
        }
        fs::write(dir.join(format!("file-{number}")), "").expect("a file");
    }
    // What removes the files of a tree does: each directory is read when it is met.
    let mut told = Vec::new();
    read(&open(&dir), |name, kind| {
        told.push(name.to_owned());
        match kind {
            FileType::Directory => {
                for below in ["", "a", "b", "c", "d"] {
                    rest(&open(&dir.join(name).join(below)));
                }
            }
            _ => fs::remove_file(dir.join(name)).expect("removed"),
        }
        true
    });
    let names: BTreeSet<_> = told.iter().collect();
    assert_eq!((names.len(), told.len()), (2 * FILES, 2 * FILES), "each name was told once");
    stage.unmount(&mount);
}

#[test]
fn root_what_changes_ahead_of_a_reader_stays_so() {
    if !may_mount() {
        return;
    }
    for options in ["prefetch=0", "prefetch=0,passthrough=0"] {
        let mut stage = Stage::new();
        let dir = merged(&mut stage, options).join("dir");
        let reader = open(&dir);
        let (told, left) = first(&reader, &file_names());
        // Who asks for attributes is told of them with the names from now on.
        for name in &told {
            fs::metadata(dir.join(name)).expect("attributes");
        }
        let (changed, left) = left.split_at(100);
        let (removed, left) = left.split_at(100);
        let replaced = &left[..100];
        for name in changed {
            let mut file = fs::File::options().append(true).open(dir.join(name)).expect("open");
            std::io::Write::write_all(&mut file, b" and more").expect("written");
        }
        for name in removed {
            fs::remove_file(dir.join(name)).expect("removed");
        }
        for name in replaced {
            fs::write(dir.join("new"), "another").expect("a file");
            fs::rename(dir.join("new"), dir.join(name)).expect("renamed");
        }
        for (name, _) in rest(&reader) {
            fs::metadata(dir.join(name)).expect("what is told is there");
        }
        for (names, expected) in [(changed, "lower and more"), (replaced, "another")] {
            for name in names {
                let found = fs::read_to_string(dir.join(name));
                assert_eq!(found.ok().as_deref(), Some(expected), "{options}: {name}");
            }
        }
        for name in removed {
            assert!(!dir.join(name).exists(), "{options}: {name} was removed");
        }
        drop(reader);
        stage.unmount(dir.parent().expect("the mount"));
    }
}

#[test]
fn root_a_directory_copied_up_ahead_of_a_reader_shows_what_was_made_in_it() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    for name in file_names() {
        stage.path(&format!("low/dir/{name}"));
    }
    let layers = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &format!("prefetch=0,{layers}"));
    let dir = mount.join("dir");
    fs::write(dir.join("made"), "").expect("a file");
    let reader = open(&dir);
    let (told, left) = first(&reader, &file_names());
    for name in &left {
        fs::write(dir.join(name).join("made"), "").expect("a file");
    }
    for name in &told {
        fs::metadata(dir.join(name)).expect("attributes");
    }
    let remount = rustix::mount::mount_remount(&mount, rustix::mount::MountFlags::empty(), c"");
    remount.expect("remounted, which empties the kernel's cache of names");
    rest(&reader);
    for name in &left {
        assert!(dir.join(name).join("made").exists(), "{name}");
    }
    drop(reader);
    stage.unmount(&mount);
}

#[test]
fn root_a_reader_is_told_of_no_name_that_is_gone() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let dir = merged(&mut stage, "prefetch=0").join("dir");
    let reader = open(&dir);
    let (told, left) = first(&reader, &file_names());
    let (removed, left) = left.split_at(100);
    for name in removed {
        fs::remove_file(dir.join(name)).expect("removed");
    }
    let (of_other_type, _) = left.split_at(100);
    for name in of_other_type {
        fs::remove_file(dir.join(name)).expect("removed");
        fs::create_dir(dir.join(name)).expect("a directory");
    }
    // Another reader begins while a name is another one. It does not come to the end: what the kernel
    // has whole, it gives to those who go on as well.
    fs::rename(dir.join(&told[0]), dir.join("for-a-moment")).expect("renamed");
    first(&open(&dir), &file_names());
    fs::rename(dir.join("for-a-moment"), dir.join(&told[0])).expect("renamed back");
    let now = rest(&reader);
    let kind = |name: &str| now.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind);
    assert_eq!(kind("for-a-moment"), None, "it is called otherwise");
    for name in removed {
        assert_eq!(kind(name), None, "{name} was removed");
    }
    for name in of_other_type {
        assert_eq!(kind(name), Some(FileType::Directory), "{name}");
    }
    drop(reader);
    stage.unmount(dir.parent().expect("the mount"));
}
