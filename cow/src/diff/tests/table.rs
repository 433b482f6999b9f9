use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::diff::trees;

#[test]
fn everything_is_added_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    make(dir.path(), &["b/c", "a", "b.d"]);
    let all = trees(None, &root(dir.path())).unwrap();
    if crate::testing::is_root() {
        assert_eq!(lines(&all), ["A a", "A b", "A b/c", "A b.d"]);
    }
    assert!(all.changes.iter().all(|change| change.meta.as_ref().unwrap().path == change.path));
    let data: Vec<_> = all.changes.iter().map(|change| change.data.is_some()).collect();
    assert_eq!(data[data.len() - 4..], [true, false, true, true], "files have data");
}

type Edit = fn(&Path);

const EDITS: [(&str, Edit, &[&str]); 14] = [
    ("nothing", |_| (), &[]),
    ("new file", |t| make(t, &["d/new"]), &["A d/new"]),
    ("new tree", |t| make(t, &["n/m/f"]), &["A n", "A n/m", "A n/m/f"]),
    ("removed file", |t| fs::remove_file(t.join("d/f")).unwrap(), &["D d/f"]),
    ("removed tree", |t| fs::remove_dir_all(t.join("d")).unwrap(), &["D d"]),
    ("content", |t| fs::write(t.join("d/f"), "d/F").unwrap(), &["M d/f"]),
    (
        "link",
        |t| {
            fs::remove_file(t.join("l")).unwrap();
            symlink("elsewhere", t.join("l")).unwrap();
        },
        &["M l"],
    ),
    (
        "mode of a directory",
        |t| fs::set_permissions(t.join("d"), fs::Permissions::from_mode(0o700)).unwrap(),
        &["M d"],
    ),
    (
        "directory to file",
        |t| {
            fs::remove_dir_all(t.join("d")).unwrap();
            make(t, &["d"]);
        },
        &["M d"],
    ),
    (
        "file to directory",
        |t| {
            fs::remove_file(t.join("f")).unwrap();
            make(t, &["f/new"]);
        },
        &["M f", "A f/new"],
    ),
    (
        "a directory made again",
        |t| {
            fs::remove_dir_all(t.join("d")).unwrap();
            make(t, &["d/f", "d/new"]);
        },
        &["D d/e", "D d/g", "A d/new"],
    ),
    ("names around the slash", |t| make(t, &["d.x", "d e"]), &["A d e", "A d.x"]),
    ("another name", |t| fs::hard_link(t.join("f"), t.join("h")).unwrap(), &["A h"]),
    (
        "mode of the root",
        |t| fs::set_permissions(t, fs::Permissions::from_mode(0o711)).unwrap(),
        &["M "],
    ),
];

#[test]
fn each_change_of_a_copy_is_found() {
    for (what, edit, expected) in EDITS {
        let dir = tempfile::tempdir().unwrap();
        let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
        for tree in [&lower, &upper] {
            make(tree, &["f", "d/f", "d/e", "d/g/h"]);
            symlink("text", tree.join("l")).unwrap();
        }
        edit(&upper);
        settle(dir.path());
        let found = trees(Some(&root(&lower)), &root(&upper)).unwrap();
        assert_eq!(lines(&found), expected, "{what}");
    }
}

#[test]
fn times_of_files_and_directories_count_but_not_of_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
    for tree in [&lower, &upper] {
        make(tree, &["d/f"]);
    }
    settle(dir.path());
    for path in ["", "d", "d/f"] {
        let file = fs::File::open(upper.join(path)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    let found = trees(Some(&root(&lower)), &root(&upper)).unwrap();
    assert_eq!(lines(&found), ["M d", "M d/f"]);
}
