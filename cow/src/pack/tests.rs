#![allow(clippy::cast_possible_truncation, reason = "the numbers are small and the test's own")]

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::apply::{ApplyOptions, apply};
use crate::diff;
use crate::meta::Time;
use crate::tar::Reader;
use crate::testing::{can, is_root};
use crate::whiteout::{WhiteoutFormat, XattrSpace};

struct Trees {
    dir: tempfile::TempDir,
}

impl Trees {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self, name: &str) -> Root {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Root::open(path).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// The paths of a tar with the kind of each: `f`, `d`, `l`, `h` with its target, `c`, `b`, `p`.
fn listing(tar: &[u8]) -> Vec<String> {
    let (mut reader, mut entry, mut lines) = (Reader::new(tar), Entry::default(), Vec::new());
    while reader.next_entry(&mut entry).unwrap() {
        let kind = match entry.kind {
            EntryKind::File => 'f',
            EntryKind::Dir => 'd',
            EntryKind::Symlink => 'l',
            EntryKind::HardLink => 'h',
            EntryKind::Char(_) => 'c',
            EntryKind::Block(_) => 'b',
            EntryKind::Fifo => 'p',
        };
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        lines.push(format!("{kind} {path} {link}").trim_end().to_owned());
    }
    lines
}

fn packed(changes: &Changeset, roots: &[Root]) -> Vec<u8> {
    let mut tar = Vec::new();
    let length = pack(changes, roots, &mut tar).unwrap();
    assert_eq!(length, tar.len() as u64, "the length is told");
    tar
}

fn added(path: &str) -> Change {
    let at = Some(Location { root: 0, path: path.into() });
    Change { path: path.into(), kind: ChangeKind::Added, meta: at.clone(), data: at }
}

#[test]
fn parents_come_once_and_deletions_before_their_siblings() {
    let trees = Trees::new();
    for path in ["new/a/f", "new/a/z", "new/a.b", "new/b/c/f"] {
        trees.write(path, "x");
    }
    let changes = Changeset::sorted(vec![
        added("a/f"),
        added("a/z"),
        Change::deleted("a/gone"),
        Change::deleted("a/x/deep"),
        added("a.b"),
        added("b/c"),
        added("b/c/f"),
        Change::deleted("b/c/old"),
        Change::deleted("zz"),
    ]);
    trees.write("old/a/x/deep", "x");
    let tar = packed(&changes, &[trees.root("new"), trees.root("old")]);
    let expected = [
        "f .wh.zz",
        "d a/",
        "f a/.wh.gone",
        "f a/f",
        "d a/x/",
        "f a/x/.wh.deep",
        "f a/z",
        "f a.b",
        "d b/",
        "d b/c/",
        "f b/c/.wh.old",
        "f b/c/f",
    ];
    assert_eq!(listing(&tar), expected);
}

#[test]
fn changed_names_of_one_inode_are_hard_links() {
    let trees = Trees::new();
    trees.write("new/d/first", "content");
    std::fs::hard_link(trees.path("new/d/first"), trees.path("new/second")).unwrap();
    std::fs::hard_link(trees.path("new/d/first"), trees.path("new/unchanged")).unwrap();
    symlink("d", trees.path("new/soft")).unwrap();
    let roots = [trees.root("new")];
    let changes = Changeset::sorted(vec![added("d/first"), added("second"), added("soft")]);
    let expected = ["d d/", "f d/first", "h second d/first", "l soft d"];
    assert_eq!(listing(&packed(&changes, &roots)), expected);
    let alone = Changeset::sorted(vec![added("second")]);
    assert_eq!(listing(&packed(&alone, &roots)), ["f second"], "a file of its own");
}

#[test]
fn only_portable_xattrs_are_written() {
    let trees = Trees::new();
    trees.write("new/f", "x");
    let root = trees.root("new");
    let file = File::open(trees.path("new/f")).unwrap();
    let mut names = vec!["user.note", "user.overlay.origin"];
    if is_root() {
        names.extend(["trusted.note", "trusted.overlay.origin", "security.other"]);
    }
    for name in names {
        crate::xattr::set_at(&file, OsStr::new(""), OsStr::new(name), b"v\n").unwrap();
    }
    let tar = packed(&Changeset::sorted(vec![added("f")]), &[root]);
    let (mut reader, mut entry) = (Reader::new(&tar[..]), Entry::default());
    assert!(reader.next_entry(&mut entry).unwrap(), "an entry");
    assert_eq!(entry.xattrs, [(b"user.note".to_vec(), b"v\n".to_vec())]);
    let cases = [
        ("security.capability", true),
        ("security.ima", true),
        ("system.posix_acl_access", true),
        ("system.posix_acl_default", true),
        ("security.selinux", false),
        ("trusted.any", false),
        ("trusted.overlay.opaque", false),
        ("user.overlay.opaque", false),
        ("user.", true),
    ];
    for (name, portable) in cases {
        assert_eq!(is_portable(OsStr::new(name)), portable, "{name}");
    }
}

#[test]
fn sockets_are_left_out_and_hide_what_they_replaced() {
    let trees = Trees::new();
    let root = trees.root("new");
    let _one = std::os::unix::net::UnixListener::bind(trees.path("new/new")).unwrap();
    let _two = std::os::unix::net::UnixListener::bind(trees.path("new/replaced")).unwrap();
    let replaced = Change { kind: ChangeKind::Modified, ..added("replaced") };
    let changes = Changeset::sorted(vec![added("new"), replaced]);
    assert_eq!(listing(&packed(&changes, &[root])), ["f .wh.replaced"]);
}

#[test]
fn what_vanishes_is_left_out_and_what_looks_like_a_whiteout_is_refused() {
    let trees = Trees::new();
    trees.write("new/f", "x");
    trees.write("new/.wh.f", "x");
    let roots = [trees.root("new")];
    let changes = Changeset::sorted(vec![added("f"), added("gone"), added("no/such/dir")]);
    assert_eq!(listing(&packed(&changes, &roots)), ["f f"]);
    let changes = Changeset::sorted(vec![added(".wh.f")]);
    let error = pack(&changes, &roots, std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let elsewhere = Change { meta: Some(Location { root: 7, path: "f".into() }), ..added("f") };
    let changes = Changeset::sorted(vec![elsewhere]);
    assert!(pack(&changes, &roots, std::io::sink()).is_err(), "an unknown root");
}

#[test]
fn metadata_and_content_may_come_from_different_places() {
    let trees = Trees::new();
    trees.write("upper/f", "stub of the size");
    trees.write("lower/moved", "the real content");
    std::fs::set_permissions(trees.path("upper/f"), PermissionsExt::from_mode(0o640)).unwrap();
    let data = Some(Location { root: 1, path: "moved".into() });
    let change = Change { data, ..added("f") };
    let tar = packed(&Changeset::sorted(vec![change]), &[trees.root("upper"), trees.root("lower")]);
    let (mut reader, mut entry) = (Reader::new(&tar[..]), Entry::default());
    assert!(reader.next_entry(&mut entry).unwrap(), "an entry");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader.stored(), &mut text).unwrap();
    assert_eq!((entry.mode, text.as_str()), (0o640, "the real content"));
}

/// A tree with everything in it that a layer can hold.
fn plant(trees: &Trees, name: &str) {
    trees.write(&format!("{name}/usr/bin/tool"), "#!");
    trees.write(&format!("{name}/usr/lib/{}/deep", "long".repeat(40)), "deep");
    trees.write(&format!("{name}/etc/conf"), &"conf".repeat(100_000));
    trees.write(&format!("{name}/etc/empty"), "");
    let path = |rest: &str| trees.path(name).join(rest);
    symlink("../etc/conf", path("usr/conf")).unwrap();
    symlink("t".repeat(300), path("usr/far")).unwrap();
    std::fs::hard_link(path("etc/conf"), path("etc/second")).unwrap();
    std::fs::set_permissions(path("usr/bin/tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::create_dir(path("tmp")).unwrap();
    std::fs::set_permissions(path("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    let dir = File::open(trees.path(name)).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(&dir, "pipe", rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let file = File::open(path("etc/empty")).unwrap();
    crate::xattr::set_at(&file, OsStr::new(""), OsStr::new("user.note"), b"\n\0\xff").unwrap();
    let time = Time { secs: -5, nanos: 999_999_999 };
    crate::at::set_mtime_at(&file, OsStr::new(""), time).unwrap();
    let time = Time { secs: 1_234_567_890, nanos: 1 };
    crate::at::set_mtime_at(File::open(path("usr")).unwrap(), OsStr::new(""), time).unwrap();
}

fn assert_same(one: &Root, other: &Root, what: &str) {
    let changes = diff::trees(Some(one), other).unwrap();
    assert_eq!(changes, Changeset::default(), "{what}");
}

#[test]
fn a_whole_tree_survives_packing_and_applying() {
    let trees = Trees::new();
    let source = trees.root("source");
    plant(&trees, "source");
    let changes = diff::trees(None, &source).unwrap();
    let tar = packed(&changes, &[trees.root("source")]);
    assert_eq!(tar, packed(&changes, &[trees.root("source")]), "reproducible");
    let formats = [
        ("removing", WhiteoutFormat::Remove),
        ("overlay", WhiteoutFormat::Overlay(XattrSpace::User)),
    ];
    for (name, format) in formats {
        let target = trees.root(name);
        apply(&target, &tar[..], &ApplyOptions::new(format).on(&[])).unwrap();
        assert_same(&source, &target, name);
        let inode = |path: &str| target.meta(path).unwrap().unwrap().ino;
        assert_eq!(inode("etc/conf"), inode("etc/second"), "{name}: one inode");
    }
}

#[test]
fn a_change_between_trees_survives_packing_and_applying() {
    let trees = Trees::new();
    let (old, new, copy) = (trees.root("old"), trees.root("new"), trees.root("copy"));
    plant(&trees, "old");
    crate::copy::tree(&old, &new, crate::copy::Options::default()).unwrap();
    crate::copy::tree(&old, &copy, crate::copy::Options::default()).unwrap();
    let path = |rest: &str| trees.path("new").join(rest);
    std::fs::remove_dir_all(path("usr/lib")).unwrap();
    std::fs::remove_file(path("usr/conf")).unwrap();
    std::fs::create_dir(path("usr/conf")).unwrap();
    trees.write("new/usr/conf/inside", "a directory in a link's place");
    trees.write("new/tmp/note", "new");
    std::fs::remove_dir_all(path("etc")).unwrap();
    std::fs::write(path("etc"), "a file in a directory's place").unwrap();
    std::fs::set_permissions(path("usr/bin/tool"), PermissionsExt::from_mode(0o700)).unwrap();
    let changes = diff::trees(Some(&old), &new).unwrap();
    let tar = packed(&changes, &[trees.root("new"), trees.root("old")]);
    apply(&copy, &tar[..], &ApplyOptions::new(WhiteoutFormat::Remove)).unwrap();
    assert_same(&new, &copy, "applied by removing");
    let upper = trees.root("upper");
    let (space, lowers) = (XattrSpace::User, [trees.root("old")]);
    let options = ApplyOptions::new(WhiteoutFormat::Overlay(space)).on(&lowers);
    apply(&upper, &tar[..], &options).unwrap();
    let again = diff::overlay(&upper, &[&lowers[0]], space).unwrap();
    let told = |changes: &Changeset| -> Vec<_> {
        changes.changes.iter().map(|change| (change.path.clone(), change.kind)).collect()
    };
    assert_eq!(told(&again), told(&changes), "an overlay's upper says the same");
    let tar_again = packed(&again, &[upper, trees.root("old")]);
    assert_eq!(listing(&tar_again), listing(&tar), "and makes the same layer");
}

#[test]
fn gnu_tar_and_python_unpack_what_is_packed() {
    use std::process::Command;
    let trees = Trees::new();
    let source = trees.root("source");
    plant(&trees, "source");
    let tar = packed(&diff::trees(None, &source).unwrap(), &[trees.root("source")]);
    std::fs::write(trees.path("layer.tar"), &tar).unwrap();
    if can("needs tar and root", is_root() && Command::new("tar").arg("--version").output().is_ok())
    {
        let target = trees.root("by-tar");
        let run = Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
            .args([trees.path("layer.tar").as_os_str(), "-C".as_ref()])
            .arg(trees.path("by-tar"))
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert_same(&source, &target, "by GNU tar");
    }
    if can("needs python3", Command::new("python3").arg("-V").output().is_ok()) {
        let script = "import sys, tarfile; t = tarfile.open(sys.argv[1]); print(len(t.getnames()))";
        let mut run = Command::new("python3");
        run.args(["-c", script]).arg(trees.path("layer.tar"));
        let run = run.output().unwrap();
        let count = String::from_utf8_lossy(&run.stdout).trim().parse();
        assert_eq!(count, Ok(listing(&tar).len()), "{}", String::from_utf8_lossy(&run.stderr));
    }
}

/// Numbers from a seed, the same in every run.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Does something to a path of a few names, whatever is there.
fn disturb(root: &Path, seeded: &mut Seeded) {
    let names = ["a", "b", "c", "d e", "d.e"];
    let mut path = root.to_owned();
    for _ in 0..=seeded.below(3) {
        path.push(names[seeded.below(names.len())]);
    }
    let parent = path.parent().unwrap().to_owned();
    if !parent.is_dir() || parent.canonicalize().map_or(true, |real| real != parent) {
        // A link, a file or nothing is on the way: make directories instead, where that can be.
        let _ = std::fs::create_dir_all(&parent);
        return;
    }
    let clear = || {
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_dir_all(&path);
    };
    match seeded.below(8) {
        0 => clear(),
        1 => {
            clear();
            std::fs::create_dir(&path).unwrap();
        }
        2 => {
            clear();
            symlink(names[seeded.below(names.len())], &path).unwrap();
        }
        3 => {
            let other = root.join(names[seeded.below(names.len())]);
            if other.symlink_metadata().is_ok_and(|meta| meta.is_file()) && other != path {
                clear();
                std::fs::hard_link(other, &path).unwrap();
            }
        }
        4 => {
            if path.symlink_metadata().is_ok_and(|meta| !meta.is_symlink()) {
                let mode = [0o700, 0o755, 0o1777][seeded.below(3)];
                std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            }
        }
        _ => {
            clear();
            std::fs::write(&path, "x".repeat(seeded.below(2000))).unwrap();
        }
    }
}

#[test]
fn random_changes_survive_packing_and_applying() {
    let mut seeded = Seeded(0x9e37_79b9_7f4a_7c15);
    let mut count = 0;
    for round in 0..60 {
        let trees = Trees::new();
        let (old, new, copy) = (trees.root("old"), trees.root("new"), trees.root("copy"));
        let base = trees.dir.path().canonicalize().unwrap();
        for _ in 0..40 {
            disturb(&base.join("old"), &mut seeded);
        }
        crate::copy::tree(&old, &new, crate::copy::Options::default()).unwrap();
        crate::copy::tree(&old, &copy, crate::copy::Options::default()).unwrap();
        for _ in 0..40 {
            disturb(&base.join("new"), &mut seeded);
        }
        let changes = diff::trees(Some(&old), &new).unwrap();
        count += changes.changes.len();
        let tar = packed(&changes, &[trees.root("new"), trees.root("old")]);
        apply(&copy, &tar[..], &ApplyOptions::new(WhiteoutFormat::Remove)).unwrap();
        assert_same(&new, &copy, &format!("round {round}, by removing: {:?}", listing(&tar)));
        let (space, lowers) = (XattrSpace::User, [trees.root("old")]);
        for known in [true, false] {
            let options = ApplyOptions::new(WhiteoutFormat::Overlay(space));
            let options = if known { options.on(&lowers) } else { options };
            let target = trees.root(if known { "upper" } else { "apart" });
            let applied = apply(&target, &tar[..], &options).unwrap();
            let dirs = &applied.implicit_dirs;
            crate::apply::adopt_implicit(&target, dirs, &lowers, space).unwrap();
            let again = diff::overlay(&target, &[&lowers[0]], space).unwrap();
            let told = |changes: &Changeset| -> Vec<_> {
                changes.changes.iter().map(|change| (change.path.clone(), change.kind)).collect()
            };
            assert_eq!(told(&again), told(&changes), "round {round}, lowers known: {known}");
        }
    }
    assert!(count > 300, "the rounds change something: {count}");
}
