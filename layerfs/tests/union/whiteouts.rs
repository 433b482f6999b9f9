//! Each way in which a layer can say that something is gone, as other programs write it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::stage::{Stage, may_mount};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("readdir");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn mark(path: &Path, attr: &str, value: &[u8]) {
    let file = File::open(path).expect("the marked file");
    cow_sys::xattr::set(&file, OsStr::new(""), OsStr::new(attr), value).expect("a mark");
}

#[test]
fn root_whiteouts_and_opaque_marks_of_every_spelling_are_understood() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let (one, two) = (stage.path("one"), stage.path("two"));
    for name in ["device", "file", "attribute", "stays"] {
        fs::write(two.join(name), name).expect("a lower file");
    }
    for dir in ["kernel", "user", "fuse", "oci", "merged", "attributes"] {
        fs::create_dir_all(two.join(dir)).expect("a lower directory");
        fs::write(two.join(dir).join("below"), dir).expect("a lower file");
        fs::create_dir_all(one.join(dir)).expect("an upper directory");
        fs::write(one.join(dir).join("above"), dir).expect("an upper file");
    }
    mknodat(CWD, one.join("device"), FileType::CharacterDevice, Mode::empty(), 0).expect("mknod");
    fs::write(one.join(".wh.file"), "").expect("a whiteout file");
    mark(&one.join("kernel"), "trusted.overlay.opaque", b"y");
    mark(&one.join("user"), "user.overlay.opaque", b"y");
    mark(&one.join("fuse"), "user.fuseoverlayfs.opaque", b"y");
    fs::write(one.join("oci/.wh..wh..opq"), "").expect("an opaque file");
    mark(&one.join("attributes"), "trusted.overlay.opaque", b"x");
    fs::write(one.join("attributes/below"), "").expect("an empty file");
    mark(&one.join("attributes/below"), "trusted.overlay.whiteout", b"y");

    let options = stage.layers(&["one", "two"], "top");
    let mount = stage.layerfs("m", &options);
    for (dir, expected) in [
        ("kernel", &["above"][..]),
        ("user", &["above"]),
        ("fuse", &["above"]),
        ("oci", &["above"]),
        ("attributes", &["above"]),
        ("merged", &["above", "below"]),
    ] {
        assert_eq!(names(&mount.join(dir)), expected, "listing of {dir}");
        let below = mount.join(dir).join("below").exists();
        assert_eq!(below, expected.contains(&"below"), "lookup in {dir}");
    }
    let top = names(&mount);
    for (name, there) in [("device", false), ("file", false), ("stays", true)] {
        assert_eq!(top.contains(&name.to_owned()), there, "{name} is listed");
        assert_eq!(mount.join(name).exists(), there, "{name} is found");
    }
    assert!(!top.iter().any(|name| name.starts_with(".wh.")), "{top:?}");
    stage.unmount(&mount);
}

#[test]
fn root_what_was_removed_can_be_made_again() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    fs::create_dir_all(low.join("d/inner")).expect("lower directories");
    fs::write(low.join("f"), "old").expect("a lower file");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    fs::remove_file(mount.join("f")).expect("unlink");
    fs::remove_dir_all(mount.join("d")).expect("remove the tree");
    assert!(names(&mount).is_empty(), "{:?}", names(&mount));
    fs::create_dir(mount.join("d")).expect("mkdir over the whiteout");
    assert!(names(&mount.join("d")).is_empty(), "the new directory shows nothing old");
    fs::write(mount.join("f"), "new").expect("create over the whiteout");
    std::os::unix::fs::symlink("f", mount.join("d/inner")).expect("a link where a directory was");
    stage.unmount(&mount);
    let kernel = stage.kernel("k", &options);
    assert_eq!(names(&kernel), ["d", "f"], "in the kernel's overlay");
    assert_eq!(names(&kernel.join("d")), ["inner"], "in the kernel's overlay");
    assert_eq!(fs::read(kernel.join("f")).expect("read"), b"new", "in the kernel's overlay");
}

/// The directories on the way to where a renamed one was may have been hidden or renamed since: the
/// layers below have them elsewhere. The kernel's overlay is the judge.
#[test]
fn root_redirects_through_renamed_directories_lead_where_the_kernel_says() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let layer = |name: &str| stage.path(name);
    let (zero, one, two, three) = (layer("l0"), layer("l1"), layer("l2"), layer("l3"));
    let make = |dir: &Path, files: &[&str], marks: &[(&str, &[u8])]| {
        fs::create_dir_all(dir).expect("a directory");
        for file in files {
            fs::write(dir.join(file), dir.display().to_string()).expect("a file");
        }
        for (name, value) in marks {
            mark(dir, &format!("trusted.overlay.{name}"), value);
        }
    };
    make(&zero.join("etc/init"), &["a", "b"], &[]);
    make(&zero.join("x/deep/y"), &["hidden"], &[]);
    make(&zero.join("p/q"), &["kept"], &[]);
    make(&zero.join("usr2/init"), &["a stranger"], &[]);
    // etc/init becomes usr/init, then usr becomes usr2, then usr2/init becomes new.
    make(&one.join("usr/init"), &["c"], &[("redirect", b"/etc/init")]);
    make(&two.join("usr2"), &[], &[("redirect", b"usr")]);
    make(&two.join("usr2/init"), &["d"], &[]);
    make(&three.join("new"), &["e"], &[("redirect", b"/usr2/init")]);
    // What was made anew on the way has nothing of what was there before.
    make(&one.join("x"), &[], &[("opaque", b"y")]);
    make(&one.join("x/deep/y"), &["shown"], &[]);
    make(&two.join("away"), &[], &[("redirect", b"/x/deep/y")]);
    // But a rename below it, from elsewhere, does.
    make(&one.join("m"), &[], &[("opaque", b"y")]);
    make(&one.join("m/n"), &["own"], &[("redirect", b"/p/q")]);
    make(&two.join("through"), &[], &[("redirect", b"/m/n")]);

    let options = stage.layers(&["l3", "l2", "l1", "l0"], "top") + ",redirect_dir=on";
    let kernel = stage.kernel("k", &options);
    let portrait = |mount: &Path| {
        ["new", "away", "through", "m/n", "x/deep/y"].map(|dir| (dir, names(&mount.join(dir))))
    };
    let expected = portrait(&kernel);
    assert_eq!(expected[0].1, ["a", "b", "c", "d", "e"], "what the kernel shows");
    stage.unmount(&kernel);
    let mount = stage.layerfs("m", &options);
    assert_eq!(portrait(&mount), expected);
    stage.unmount(&mount);
}
