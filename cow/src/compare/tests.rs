use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::root::Root;

struct Pair {
    dir: tempfile::TempDir,
    root: Root,
}

impl Pair {
    /// Two equal files `a` and `b`.
    fn files(text: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let pair = Self { dir, root };
        pair.same_time();
        pair
    }

    fn same_time(&self) {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 5);
        for name in ["a", "b"] {
            fs::File::open(self.dir.path().join(name)).unwrap().set_modified(time).unwrap();
        }
    }

    fn compare(&self, depth: Depth) -> String {
        let (a, b) = (Path::new("a"), Path::new("b"));
        let (a_meta, b_meta) =
            (self.root.meta(a).unwrap().unwrap(), self.root.meta(b).unwrap().unwrap());
        let dir = self.root.as_fd();
        let (a, b) = (Side::new(dir, a.as_ref(), &a_meta), Side::new(dir, b.as_ref(), &b_meta));
        files(&a, &b, depth).unwrap().to_string()
    }
}

#[test]
fn each_difference_is_found_alone() {
    type Change = fn(&Path);
    let cases: [(&str, Change); 6] = [
        ("", |_| ()),
        ("mode", |b| fs::set_permissions(b, fs::Permissions::from_mode(0o4711)).unwrap()),
        ("size", |b| fs::write(b, "longer text").unwrap()),
        ("content", |b| fs::write(b, "tExt").unwrap()),
        ("xattrs", |b| {
            let file = fs::File::open(b).unwrap();
            crate::xattr::set_at(file, "".as_ref(), "user.x".as_ref(), b"1").unwrap();
        }),
        ("kind", |b| {
            fs::remove_file(b).unwrap();
            fs::create_dir(b).unwrap();
        }),
    ];
    for (expected, change) in cases {
        let pair = Pair::files(b"text");
        change(&pair.dir.path().join("b"));
        pair.same_time();
        assert_eq!(pair.compare(Depth::First), expected, "at the first difference");
        assert_eq!(pair.compare(Depth::All), expected, "all differences");
    }
    let pair = Pair::files(b"text");
    fs::File::open(pair.dir.path().join("b")).unwrap().set_modified(SystemTime::now()).unwrap();
    assert_eq!(pair.compare(Depth::First), "mtime");
    if crate::testing::is_root() {
        let pair = Pair::files(b"text");
        std::os::unix::fs::chown(pair.dir.path().join("b"), Some(1), None).unwrap();
        assert_eq!(pair.compare(Depth::First), "owner");
    }
}

#[test]
fn depth_decides_whether_the_rest_is_looked_for() {
    let pair = Pair::files(b"text");
    let b = pair.dir.path().join("b");
    fs::write(&b, "TEXT").unwrap();
    fs::set_permissions(&b, fs::Permissions::from_mode(0o700)).unwrap();
    pair.same_time();
    assert_eq!(pair.compare(Depth::First), "mode");
    assert_eq!(pair.compare(Depth::All), "mode,content");
}

#[test]
fn links_differ_by_their_text() {
    let pair = Pair::files(b"");
    for (name, text) in [("a", "one"), ("b", "two")] {
        let path = pair.dir.path().join(name);
        fs::remove_file(&path).unwrap();
        symlink(text, path).unwrap();
        let zero = crate::meta::Time::default();
        crate::at::set_mtime_at(&pair.root, name.as_ref(), zero).unwrap();
    }
    assert_eq!(pair.compare(Depth::First), "link");
}

#[test]
fn directories_differ_by_their_own_metadata_only() {
    let pair = Pair::files(b"");
    for name in ["a", "b"] {
        fs::remove_file(pair.dir.path().join(name)).unwrap();
        fs::create_dir(pair.dir.path().join(name)).unwrap();
    }
    for number in 0..300 {
        fs::write(pair.dir.path().join(format!("b/a-rather-long-name-{number}")), "").unwrap();
    }
    fs::create_dir(pair.dir.path().join("b/dir")).unwrap();
    pair.same_time();
    assert_eq!(pair.compare(Depth::All), "");
}

#[test]
fn overlay_marks_are_no_difference_where_named() {
    if !crate::testing::is_root() {
        return;
    }
    let pair = Pair::files(b"text");
    let name = Path::new("b");
    crate::xattr::set_at(&pair.root, name.as_os_str(), "trusted.overlay.origin".as_ref(), b"x")
        .unwrap();
    assert_eq!(pair.compare(Depth::First), "xattrs");
    let meta = pair.root.meta(name).unwrap().unwrap();
    let other = pair.root.meta("a").unwrap().unwrap();
    let side = Side {
        marks: Some(XattrSpace::Trusted),
        ..Side::new(pair.root.as_fd(), name.as_ref(), &meta)
    };
    let plain = Side::new(pair.root.as_fd(), "a".as_ref(), &other);
    assert_eq!(files(&side, &plain, Depth::All).unwrap(), Differences::NONE);
}

#[test]
fn content_with_holes() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, size: u64, data: &[(u64, &[u8])]| {
        let path = dir.path().join(name);
        let file = fs::File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in data {
            file.write_all_at(bytes, *offset).unwrap();
        }
        path
    };
    const G: u64 = 1 << 30;
    let base = make("base", G, &[(G / 2, b"data"), (G - 1, b"z")]);
    let cases = [
        (make("same", G, &[(G / 2, b"data"), (G - 1, b"z")]), true),
        (make("zeros", G, &[(5, &[0; 9000]), (G / 2, b"data"), (G - 1, b"z")]), true),
        (make("early", G, &[(4096, b"x"), (G / 2, b"data"), (G - 1, b"z")]), false),
        (make("late", G, &[(G / 2, b"data"), (G - 1, b"y")]), false),
        (make("none", G, &[]), false),
        (make("short", G - 1, &[(G / 2, b"data")]), false),
    ];
    let open = |path: &Path| OwnedFd::from(fs::File::open(path).unwrap());
    for (path, same) in cases {
        assert_eq!(content(open(&base), open(&path)).unwrap(), same, "{}", path.display());
        assert_eq!(content(open(&path), open(&base)).unwrap(), same, "{}", path.display());
    }
    let dense = vec![3; 3 * CHUNK + 17];
    fs::write(dir.path().join("dense"), &dense).unwrap();
    let mut other = dense;
    for (position, same) in [(3 * CHUNK + 16, false), (0, false)] {
        other[position] ^= 1;
        fs::write(dir.path().join("other"), &other).unwrap();
        other[position] ^= 1;
        let files = [dir.path().join("dense"), dir.path().join("other")];
        assert_eq!(content(open(&files[0]), open(&files[1])).unwrap(), same, "{position}");
    }
}
