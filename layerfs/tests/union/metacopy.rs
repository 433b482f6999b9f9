//! Copies of metadata alone, as layerfs writes them and as the kernel's overlay does.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::stage::{Stage, may_mount};
use crate::tree::{assert_same, see, see_strictly};

const SIZE: usize = 300_000;
const KERNEL: &str = "metacopy=on,redirect_dir=on,index=on";

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Whether an upper file has its metadata alone.
fn is_bare(path: &Path) -> bool {
    let file = File::open(path).expect("the upper file");
    let mark = cow_sys::xattr::get(&file, OsStr::new(""), OsStr::new("trusted.overlay.metacopy"));
    let stat = file.metadata().expect("fstat");
    // Attributes may take a block.
    let little = stat.blocks() < SIZE as u64 / 512;
    assert_eq!(mark.is_ok(), little && stat.len() > 9, "{}: mark and space", path.display());
    mark.is_ok()
}

fn lay_out(stage: &Stage) {
    let low = stage.path("low");
    fs::create_dir(low.join("d")).expect("a directory");
    for (number, name) in ["mode", "owner", "attr", "moved", "linked", "d/deep", "written", "cut"]
        .iter()
        .enumerate()
    {
        let byte = u8::try_from(number).expect("small") + 1;
        fs::write(low.join(name), vec![byte; SIZE]).expect("a lower file");
    }
    fs::write(low.join("empty"), "").expect("an empty file");
}

/// Changes metadata of every lower file, and the data of some afterwards.
fn change(mount: &Path) {
    chmod(&mount.join("mode"), 0o4711);
    std::os::unix::fs::chown(mount.join("owner"), Some(7), Some(8)).expect("chown");
    let attr = File::open(mount.join("attr")).expect("open");
    cow_sys::xattr::set(&attr, OsStr::new(""), OsStr::new("user.x"), b"y").expect("setxattr");
    fs::rename(mount.join("moved"), mount.join("d/away")).expect("rename");
    fs::hard_link(mount.join("linked"), mount.join("d/other")).expect("link");
    chmod(&mount.join("d/deep"), 0o600);
    fs::rename(mount.join("d"), mount.join("e")).expect("rename the directory");
    chmod(&mount.join("empty"), 0o600);
    for name in ["written", "cut"] {
        chmod(&mount.join(name), 0o640);
    }
}

#[test]
fn root_metadata_is_copied_alone_and_the_kernel_finds_the_data() {
    if !may_mount() {
        return;
    }
    for way in ["", ",passthrough=0"] {
        let mut stage = Stage::new();
        lay_out(&stage);
        let options = stage.layers(&["low"], "top");
        let mount = stage.layerfs("m", &format!("{options},metacopy=on{way}"));
        change(&mount);
        let up = stage.path("top/up");
        for name in ["mode", "owner", "attr", "e/away", "linked", "e/other", "e/deep", "written"] {
            assert!(is_bare(&up.join(name)), "{name} has no data of its own");
            let shown = fs::metadata(mount.join(name)).expect("stat");
            assert_eq!(shown.len(), SIZE as u64, "{name} shows its length");
            assert!(shown.blocks() > 0, "{name} shows the space of its data");
        }
        let mut reader = File::open(mount.join("written")).expect("a reader of the lower data");
        let writer = OpenOptions::new().write(true).open(mount.join("written")).expect("open");
        writer.write_all_at(b"new", 5).expect("write");
        let now = fs::read(mount.join("written")).expect("read");
        assert_eq!((&now[4..9], now.len()), (&b"\x07new\x07"[..], SIZE), "the rest is as it was");
        let mut old = Vec::new();
        reader.read_to_end(&mut old).expect("the old reader still reads");
        assert_eq!(old.len(), SIZE, "all of it");
        OpenOptions::new().write(true).open(mount.join("cut")).expect("open").set_len(9).expect("cut");
        let inode = fs::metadata(up.join("linked")).expect("stat").ino();
        OpenOptions::new()
            .write(true)
            .open(mount.join("linked"))
            .expect("open")
            .write_all_at(b"both", 0)
            .expect("write through one name");
        assert_eq!(fs::metadata(up.join("e/other")).expect("stat").ino(), inode, "linked as before");
        for name in ["written", "cut", "linked"] {
            assert!(!is_bare(&up.join(name)), "{name} has its data now");
        }
        drop((reader, writer));
        let end = see(&mount);
        stage.unmount(&mount);
        let kernel = stage.kernel("k", &format!("{options},{KERNEL}"));
        assert_same(&format!("in the kernel's overlay{way}"), &end, &see(&kernel));
        stage.unmount(&kernel);
        let mount = stage.layerfs("m", &options);
        assert_same(&format!("mounted without metacopy{way}"), &end, &see_strictly(&mount));
        stage.unmount(&mount);
    }
}

#[test]
fn root_the_kernels_metadata_copies_are_kept_and_completed() {
    if !may_mount() {
        return;
    }
    for way in [",metacopy=on", "", ",metacopy=on,passthrough=0", ",passthrough=0"] {
        let mut stage = Stage::new();
        lay_out(&stage);
        let options = stage.layers(&["low"], "top");
        let kernel = stage.kernel("k", &format!("{options},{KERNEL}"));
        change(&kernel);
        let before = see(&kernel);
        stage.unmount(&kernel);
        assert!(is_bare(&stage.path("top/up").join("mode")), "the kernel copies metadata alone");
        let mount = stage.layerfs("m", &format!("{options}{way}"));
        assert_same(&format!("as the kernel left it{way}"), &before, &see_strictly(&mount));
        for name in ["mode", "owner", "attr"] {
            // The kernel has written no path for these: it searched by the name.
            fs::rename(mount.join(name), mount.join(format!("e/{name}"))).expect("rename");
        }
        chmod(&mount.join("e/away"), 0o444);
        let writer = OpenOptions::new().append(true).open(mount.join("written")).expect("open");
        writer.write_all_at(b"more", SIZE as u64).expect("append");
        drop(writer);
        let open = File::open(mount.join("e/deep")).expect("open");
        fs::remove_file(mount.join("e/deep")).expect("unlink what is open");
        let mut byte = [0];
        open.read_exact_at(&mut byte, 1000).expect("read after the unlink");
        assert_eq!(byte, [6], "the data is still found{way}");
        drop(open);
        let end = see(&mount);
        stage.unmount(&mount);
        let kernel = stage.kernel("k", &format!("{options},{KERNEL}"));
        assert_same(&format!("in the kernel's overlay again{way}"), &end, &see(&kernel));
        stage.unmount(&kernel);
    }
}

#[test]
fn root_a_path_that_leads_elsewhere_is_not_written() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let (one, two) = (stage.path("one"), stage.path("two"));
    for dir in [&one, &two] {
        fs::create_dir_all(dir.join("plain")).expect("a directory");
        fs::create_dir_all(dir.join("first")).expect("a directory");
    }
    fs::write(two.join("plain/f"), vec![1; SIZE]).expect("data");
    fs::write(two.join("first/f"), vec![2; SIZE]).expect("data");
    fs::write(one.join("first/f"), vec![3; SIZE]).expect("data that hides the other's");
    // Two's `first` was renamed, and another was made.
    fs::create_dir(one.join("second")).expect("a directory");
    for (dir, mark, value) in [("second", "redirect", &b"/first"[..]), ("first", "opaque", b"y")] {
        let dir = File::open(one.join(dir)).expect("open");
        let attr = format!("trusted.overlay.{mark}");
        cow_sys::xattr::set(&dir, OsStr::new(""), OsStr::new(&attr), value).expect("a mark");
    }
    let options = stage.layers(&["one", "two"], "top");
    let mount = stage.layerfs("m", &format!("{options},metacopy=on"));
    for (name, byte) in [("plain/f", 1), ("first/f", 3), ("second/f", 2)] {
        chmod(&mount.join(name), 0o600);
        assert_eq!(fs::read(mount.join(name)).expect("read")[7], byte, "{name}");
    }
    let up = stage.path("top/up");
    assert!(is_bare(&up.join("plain/f")), "a plain way");
    assert!(is_bare(&up.join("first/f")), "the topmost layer's");
    assert!(!is_bare(&up.join("second/f")), "its path would lead to another file's data");
    let end = see(&mount);
    stage.unmount(&mount);
    let kernel = stage.kernel("k", &format!("{options},{KERNEL}"));
    assert_same("in the kernel's overlay", &end, &see(&kernel));
}

#[test]
fn root_data_layers_show_no_names_and_lend_their_data() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let (low, one, two) = (stage.path("low"), stage.path("one"), stage.path("two"));
    let lend = |name: &str, to: &str| {
        let path = low.join(name);
        File::create(&path).expect("a file").set_len(5).expect("its length");
        let file = File::open(&path).expect("open");
        for (attr, value) in [("metacopy", ""), ("redirect", to)] {
            let attr = format!("trusted.overlay.{attr}");
            let here = std::ffi::OsStr::new("");
            cow_sys::xattr::set(&file, here, attr.as_ref(), value.as_bytes()).expect("a mark");
        }
    };
    fs::create_dir(one.join("ab")).expect("a directory");
    fs::write(one.join("ab/first"), "first").expect("data");
    fs::write(two.join("other"), "other").expect("data");
    fs::write(one.join("plain"), "plain").expect("a name that is not shown");
    for (name, to) in [("f", "/ab/first"), ("g", "/other"), ("gone", "/nowhere")] {
        lend(name, to);
    }
    let (low, one, two) = (low.display(), one.display(), two.display());
    let spellings = [
        format!("lowerdir={low}::{one}::{two}"),
        format!("lowerdir+={low},datadir+={one},datadir+={two}"),
    ];
    for lower in spellings {
        let mut upper = stage.layers(&["low"], &format!("top-{}", lower.contains('+')));
        upper.replace_range(..upper.find(",upperdir").expect("an upper"), &lower);
        for options in [lower, upper] {
            let mount = stage.layerfs("m", &options);
            let entries = fs::read_dir(&mount).expect("readdir");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            assert_eq!(names, ["f", "g", "gone"], "{options}: the names of the layer above");
            assert!(fs::read(mount.join("gone")).is_err(), "{options}: its data is nowhere");
            for (name, text) in [("f", "first"), ("g", "other")] {
                assert_eq!(fs::read(mount.join(name)).expect("read"), text.as_bytes(), "{name}");
            }
            assert!(!mount.join("ab").exists() && !mount.join("plain").exists(), "{options}");
            if options.contains("upperdir") {
                let mut file = File::options().append(true).open(mount.join("f")).expect("open");
                std::io::Write::write_all(&mut file, b"!").expect("a write");
                assert_eq!(fs::read(mount.join("f")).expect("read"), b"first!", "a copy-up");
                fs::rename(mount.join("g"), mount.join("h")).expect("a rename");
                assert_eq!(fs::read(mount.join("h")).expect("read"), b"other", "{options}");
            }
            stage.unmount(&mount);
        }
    }
}
