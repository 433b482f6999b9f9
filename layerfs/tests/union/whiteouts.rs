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
