use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::error::ErrorKind;
use crate::meta::FileKind;

fn tree() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/file"), "text").unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    symlink("/a/b", dir.path().join("absolute")).unwrap();
    symlink("a/b", dir.path().join("relative")).unwrap();
    symlink("../../../../../../../a", dir.path().join("climbing")).unwrap();
    symlink("/proc/self/root", dir.path().join("magic")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

#[test]
fn beneath_passes_no_link_and_never_climbs() {
    let (_dir, root) = tree();
    for good in ["a/b/file", "/a/b/file", "///a/b/file", "a/./b/file", "a/b/../b/file"] {
        let meta = root.meta(good).unwrap().unwrap_or_else(|| panic!("{good} not found"));
        assert_eq!((meta.kind, meta.size), (FileKind::File, 4), "{good}");
    }
    for absent in ["absolute/file", "relative/file", "climbing/b/file", "missing", "a/b/file/x"] {
        assert_eq!(root.meta(absent).unwrap(), None, "{absent} was resolved");
        assert!(root.open_file(absent).is_err(), "{absent} was opened");
    }
    for hostile in ["..", "a/..", "../etc/passwd", "a/../../etc/passwd", "a/b/../../../x"] {
        assert!(root.meta(hostile).is_err(), "{hostile} was resolved");
        assert!(root.open_dir(hostile).is_err() || hostile == "a/..", "{hostile} was opened");
    }
}

#[test]
fn in_root_follows_links_as_chroot_does() {
    let (_dir, root) = tree();
    for path in ["absolute/file", "relative/file", "climbing/b/file", "../../a/b/file"] {
        let (dir, name) = root.parent(Path::new(path), Resolve::InRoot).unwrap();
        let meta = at::meta_at(&dir, name).unwrap();
        assert_eq!(meta.map(|meta| meta.size), Some(4), "{path}");
    }
    let (dir, name) = root.parent(Path::new("magic/etc/passwd"), Resolve::InRoot).map_or_else(
        |error| {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            (None, OsStr::new(""))
        },
        |(dir, name)| (Some(dir), name),
    );
    assert!(dir.is_none(), "{name:?} was reached through a magic link");
}

#[test]
fn the_empty_path_is_the_root() {
    let (dir, root) = tree();
    for path in ["", "/", ".", "//"] {
        assert!(root.meta(path).unwrap().unwrap().is_dir(), "{path:?}");
        assert!(root.open_dir(path).is_ok(), "{path:?}");
        assert!(root.xattrs(path).unwrap().is_empty(), "{path:?}");
    }
    assert_eq!(root.subroot("a").unwrap().label(), dir.path().join("a"));
    assert!(root.subroot("a").unwrap().exists("b/file").unwrap());
}

#[test]
fn open_file_opens_files_only() {
    let (dir, root) = tree();
    let fifo = rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo"), Mode::RUSR);
    fifo.unwrap();
    assert!(root.open_file("a/b/file").is_ok());
    for special in ["fifo", "a", "relative"] {
        assert!(root.open_file(special).is_err(), "{special} was opened");
    }
    assert_eq!(root.readlink("relative").unwrap(), "a/b");
}

#[test]
fn errors_name_the_whole_path() {
    let (dir, root) = tree();
    let error = root.open_dir("a/missing").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let expected = format!("open directory {}", dir.path().join("a/missing").display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn paths_longer_than_the_kernel_takes_are_opened_in_pieces() {
    let (_dir, root) = tree();
    let name = "n".repeat(200);
    let mut path = PathBuf::new();
    let mut held = root.open_dir("").unwrap();
    for _ in 0..50 {
        rustix::fs::mkdirat(&held, &name, Mode::RWXU).unwrap();
        held = at::open_dir_at(&held, OsStr::new(&name)).unwrap();
        path.push(&name);
    }
    assert!(path.as_os_str().len() > 2 * PATH_MAX);
    assert!(root.meta(&path).unwrap().unwrap().is_dir());
    assert_eq!(
        root.meta(path.join("missing")).unwrap(),
        None,
        "a long path to nothing is no error"
    );
}

#[test]
fn xattrs_of_all_kinds_of_names() {
    let (dir, root) = tree();
    let attr = OsStr::new("trusted.test");
    if !crate::testing::is_root() {
        return;
    }
    let (above, name) = root.parent(Path::new("relative"), Resolve::Beneath).unwrap();
    xattr::set_at(&above, name, attr, b"on the link").unwrap();
    assert_eq!(root.xattr("relative", attr).unwrap().as_deref(), Some(&b"on the link"[..]));
    assert!(root.xattrs("a/b").unwrap().is_empty(), "the link was followed");

    let long = vec![7; 3000];
    let handle = root.open_handle("a").unwrap();
    xattr::set_at(&handle, OsStr::new(""), attr, &long).unwrap();
    assert_eq!(root.xattrs("a").unwrap().get(attr), Some(&long), "through an O_PATH handle");
    assert_eq!(xattr::names_at(&handle, OsStr::new("")).unwrap(), [attr]);
    xattr::remove_at(&handle, OsStr::new(""), attr).unwrap();
    xattr::remove_at(&handle, OsStr::new(""), attr).unwrap();
    assert_eq!(root.xattr("a", attr).unwrap(), None);
    drop(dir);
}
