//! Owners and modes in attributes, written and read by layerfs and by fuse-overlayfs in turns.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::stage::{Stage, has_program, may_mount, run};

/// A name, and who and what it is shown as.
type Expected = (&'static str, (u32, u32), u32);

fn assert_shown(root: &Path, expected: &[Expected], when: &str) {
    for (name, owner, mode) in expected {
        let stat = fs::symlink_metadata(root.join(name));
        let stat = stat.unwrap_or_else(|error| panic!("{when}: {name}: {error}"));
        let shown = ((stat.uid(), stat.gid()), stat.mode() & 0o7777);
        assert_eq!(shown, (*owner, *mode), "{when}: {name} shows {:o}", shown.1);
    }
}

fn change(path: &Path, (uid, gid): (u32, u32), mode: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("chown");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn lay_out(stage: &Stage) {
    let low = stage.path("low");
    fs::create_dir(low.join("dir")).expect("a directory");
    for name in ["plain", "dir/inner", "untouched"] {
        fs::write(low.join(name), name).expect("a lower file");
        change(&low.join(name), (3, 4), 0o4711);
    }
    change(&low.join("dir"), (3, 4), 0o750);
}

#[test]
fn root_owners_and_modes_in_attributes_are_those_of_fuse_overlayfs() {
    if !may_mount() || !has_program("fuse-overlayfs") {
        return;
    }
    for (kind, attr) in [
        (1, "security.fuseoverlayfs.override_stat"),
        (2, "user.fuseoverlayfs.override_stat"),
    ] {
        let mut stage = Stage::new();
        lay_out(&stage);
        let layers = stage.layers(&["low"], "top");
        let options = format!("{layers},xattr_permissions={kind}");
        let mount = stage.layerfs("m", &options);
        assert_shown(&mount, &[("plain", (3, 4), 0o4711), ("dir", (3, 4), 0o750)], "at first");
        fs::write(mount.join("new"), "new").expect("create");
        change(&mount.join("new"), (5, 6), 0o2640);
        fs::create_dir(mount.join("made")).expect("mkdir");
        change(&mount.join("made"), (7, 8), 0o3770);
        fs::write(mount.join("made/inner"), "x").expect("create in a set-gid directory");
        fs::create_dir(mount.join("made/sub")).expect("mkdir in a set-gid directory");
        fs::set_permissions(mount.join("dir"), fs::Permissions::from_mode(0o700)).expect("chmod");
        fs::write(mount.join("plain"), "written").expect("write");
        // A change of owner takes set-id bits away.
        std::os::unix::fs::chown(mount.join("dir/inner"), Some(9), None).expect("chown");
        let expected: &[Expected] = &[
            ("new", (5, 6), 0o2640),
            ("made", (7, 8), 0o3770),
            ("made/inner", (0, 8), 0o644),
            ("made/sub", (0, 8), 0o2755),
            ("dir", (3, 4), 0o700),
            ("dir/inner", (9, 4), 0o711),
            ("untouched", (3, 4), 0o4711),
        ];
        assert_shown(&mount, expected, "as changed");
        let up = stage.path("top/up");
        for name in ["new", "made", "made/inner", "dir", "dir/inner", "plain"] {
            let real = fs::metadata(up.join(name)).expect("the upper file");
            let owner = ((real.uid(), real.gid()), real.mode() & 0o7777);
            assert_eq!(owner, ((0, 0), 0o755), "{name} in the layer: {:o}", owner.1);
            let file = File::open(up.join(name)).expect("open");
            let value = cow_sys::xattr::get(&file, OsStr::new(""), OsStr::new(attr));
            assert!(value.is_ok(), "{name} has {attr}: {value:?}");
        }
        let shown = File::open(mount.join("new")).expect("open");
        let names = cow_sys::xattr::list(&shown, OsStr::new("")).expect("listxattr");
        let names = String::from_utf8_lossy(&names).into_owned();
        assert!(!names.contains("override_stat"), "our attribute is hidden: {names}");
        drop(shown);
        stage.unmount(&mount);

        let changed: &[Expected] = &[
            ("other", (11, 12), 0o1604),
            ("untouched", (13, 14), 0o600),
            ("made", (15, 16), 0o711),
        ];
        let theirs = stage.path("theirs");
        run("fuse-overlayfs", &["-o", &options, &theirs.display().to_string()]);
        let theirs = stage.adopt(theirs);
        assert_shown(&theirs, expected, "in fuse-overlayfs");
        fs::write(theirs.join("other"), "other").expect("create");
        // In this order: its chmod forgets the owner.
        for (name, owner, mode) in changed {
            let mode = fs::Permissions::from_mode(*mode);
            fs::set_permissions(theirs.join(name), mode).expect("chmod");
            std::os::unix::fs::chown(theirs.join(name), Some(owner.0), Some(owner.1))
                .expect("chown");
        }
        stage.unmount(&theirs);

        let mount = stage.layerfs("m", &options);
        assert_shown(&mount, &[("new", (5, 6), 0o2640)], "as it was");
        assert_shown(&mount, changed, "as fuse-overlayfs changed it");
        stage.unmount(&mount);
        // The layer says itself how it is to be read.
        let mount = stage.layerfs("m", &layers);
        assert_shown(&mount, changed, "without the option");
        stage.unmount(&mount);
    }
}

#[test]
fn root_lower_layers_say_themselves_where_their_owners_are() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let (one, two) = (stage.path("one"), stage.path("two"));
    let mark = |path: &Path, value: &str| {
        let file = File::open(path).expect("open");
        let attr = OsStr::new("user.containers.override_stat");
        cow_sys::xattr::set(&file, OsStr::new(""), attr, value.as_bytes()).expect("an attribute");
    };
    for dir in [&one, &two] {
        fs::write(dir.join(if dir == &one { "marked" } else { "plain" }), "x").expect("a file");
    }
    fs::write(one.join("bare"), "x").expect("a file");
    mark(&one, "0:0:0755");
    mark(&one.join("marked"), "21:22:04640:file");
    mark(&two.join("plain"), "21:22:0600");
    let options = stage.layers(&["one", "two"], "top");
    let mount = stage.layerfs("m", &options);
    let expected: &[Expected] =
        &[("marked", (21, 22), 0o4640), ("bare", (0, 0), 0o644), ("plain", (0, 0), 0o644)];
    assert_shown(&mount, expected, "a marked layer over a plain one");
    fs::rename(mount.join("marked"), mount.join("moved")).expect("copy up");
    assert_shown(&mount, &[("moved", (21, 22), 0o4640)], "copied up");
    stage.unmount(&mount);
    let real = fs::metadata(stage.path("top/up").join("moved")).expect("the copy");
    assert_eq!((real.uid(), real.gid(), real.mode() & 0o7777), (21, 22, 0o4640), "a plain upper");
}
