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

/// What a directory that moves is marked with is where the layers below show it together: one of them
/// may have it elsewhere and another hide it there. The kernel's overlay says which marks are right.
#[test]
fn root_renamed_directories_are_marked_as_the_kernel_marks_them() {
    if !may_mount() {
        return;
    }
    let moves = [
        // What another layer moved here, and something from it again.
        vec![("dir", "empty/dir"), ("q", "q2")],
        vec![("empty/dir/pop", "empty/pop"), ("q2/r", "r"), ("s/t", "s/t2")],
        // Renamed where it is, then its child moved; renamed where it is, then moved itself.
        vec![("s", "s2"), ("s2/t2/u", "u"), ("r", "r2"), ("r2", "empty/r"), ("u/v", "s2/v")],
        vec![("empty", "full"), ("full/dir/deep/er", "er"), ("full/r/w", "er/w")],
    ];
    let shown = |served: bool| {
        let mut stage = Stage::new();
        let base = stage.path("base");
        let files = ["dir/a", "dir/pop/b", "dir/deep/er/f", "q/r/c", "q/r/w/g", "s/t/u/d", "s/t/u/v/e"];
        for file in files {
            let file = base.join(file);
            fs::create_dir_all(file.parent().expect("a parent")).expect("lower directories");
            fs::write(&file, file.display().to_string()).expect("a lower file");
        }
        fs::create_dir(base.join("empty")).expect("a lower directory");
        let mut lower = vec!["base".to_owned()];
        let mut marks = Vec::new();
        for (round, moves) in moves.iter().enumerate() {
            let top = format!("top{round}");
            let names: Vec<_> = lower.iter().map(String::as_str).collect();
            let options = stage.layers(&names, &top) + ",redirect_dir=on";
            let mount = match served {
                true => stage.layerfs("m", &options),
                false => stage.kernel("m", &options),
            };
            for (from, to) in moves {
                fs::rename(mount.join(from), mount.join(to))
                    .unwrap_or_else(|error| panic!("{from} to {to} in round {round}: {error}"));
            }
            stage.unmount(&mount);
            marks.push(redirects(&stage.path(&format!("{top}/up"))));
            lower.insert(0, format!("{top}/up"));
        }
        let names: Vec<_> = lower.iter().map(String::as_str).collect();
        let options = stage.layers(&names, "last") + ",redirect_dir=on";
        let kernel = stage.kernel("k", &options);
        let by_kernel = tree(&kernel);
        stage.unmount(&kernel);
        let mount = stage.layerfs("m", &options);
        let by_layerfs = tree(&mount);
        stage.unmount(&mount);
        assert_eq!(by_layerfs, by_kernel, "what layerfs shows, served {served}");
        assert_eq!(by_kernel.len(), files.len(), "no file is lost: {by_kernel:?}");
        (marks, by_kernel)
    };
    assert_eq!(shown(true), shown(false), "by layerfs and by the kernel");
}

/// The paths of the files below a directory.
fn tree(dir: &Path) -> Vec<String> {
    walk(dir, &|path| (!path.is_dir()).then(String::new))
}

/// The directories below one that are marked with where they were.
fn redirects(dir: &Path) -> Vec<String> {
    let attr = OsStr::new("trusted.overlay.redirect");
    walk(dir, &|path| {
        let dir = path.is_dir().then(|| File::open(path).expect("a directory"))?;
        let mark = cow_sys::xattr::get(&dir, OsStr::new(""), attr).ok()?;
        Some(format!(" from {}", String::from_utf8_lossy(&mark)))
    })
}

fn walk(dir: &Path, say: &dyn Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut said = Vec::new();
    for name in names(dir) {
        let path = dir.join(&name);
        said.extend(say(&path).map(|text| name.clone() + &text));
        if path.is_dir() && !path.is_symlink() {
            said.extend(walk(&path, say).into_iter().map(|inner| format!("{name}/{inner}")));
        }
    }
    said
}

#[test]
fn root_whiteouts_by_attribute_in_the_root_of_a_layer_hide() {
    if !may_mount() {
        return;
    }
    for (prefix, more) in [("trusted", ""), ("user", ",userxattr")] {
        let mut stage = Stage::new();
        let (one, two) = (stage.path("one"), stage.path("two"));
        for name in ["hidden", "shown"] {
            fs::write(two.join(name), name).expect("a lower file");
        }
        fs::write(one.join("hidden"), "").expect("an empty file");
        mark(&one, &format!("{prefix}.overlay.opaque"), b"x");
        mark(&one.join("hidden"), &format!("{prefix}.overlay.whiteout"), b"y");
        let lower = format!("lowerdir={}:{}{more}", one.display(), two.display());
        for options in [lower, stage.layers(&["one", "two"], "top") + more] {
            let mount = stage.layerfs("m", &options);
            assert!(!mount.join("hidden").exists(), "{options}: looked up first");
            assert_eq!(names(&mount), ["shown"], "{options}");
            stage.unmount(&mount);
        }
    }
}
