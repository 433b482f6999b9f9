use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use super::*;
use crate::at;
use crate::overlay_view::OverlayView;
use crate::root::Root;
use crate::usage::Usage;
use crate::walk::{Vanished, Walk};
use crate::whiteout::XattrSpace;
use crate::xattr;

fn root(path: impl AsRef<Path>) -> Root {
    Root::open(path).unwrap()
}

fn set(base: &Path, path: &str, attr: &str, value: &[u8]) {
    xattr::set_at(root(base), path.as_ref(), attr.as_ref(), value).unwrap();
}

/// A file system of a type in memory or in a file, for as long as its fd is open.
fn file_system(dir: &Path, fstype: &str) -> Option<OwnedFd> {
    use std::process::{Command, Stdio};
    let options = ["size=256m".to_owned()];
    if fstype == "tmpfs" {
        return cow_sys::mount::mount_fs("tmpfs", Path::new("tmpfs"), &options).ok();
    }
    let image = dir.join(fstype);
    fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
    let quiet =
        |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let made = quiet(Command::new(format!("mkfs.{fstype}")).arg(&image));
    if !made.is_ok_and(|status| status.success()) {
        return None;
    }
    // Let go by losetup as soon as the mount ends.
    let output = Command::new("losetup").args(["--find", "--show"]).arg(&image).output().ok()?;
    let device = String::from_utf8(output.stdout).ok()?;
    let device = device.trim();
    let mount = cow_sys::mount::mount_fs(fstype, Path::new(device), &[]).ok();
    let _ = quiet(Command::new("losetup").args(["--detach", device]));
    mount
}

fn through(mount: &OwnedFd) -> PathBuf {
    at::magic_path(mount.as_fd()).into()
}

/// Where data is in a sparse file, and how much.
type Stretches = &'static [(u64, usize)];

#[test]
fn data_is_copied_exactly_with_its_holes() {
    let dir = tempfile::tempdir().unwrap();
    copies_are_exact(dir.path());
    a_shorter_source_ends_the_copy(dir.path());
}

/// Where the bytes come from a map, whatever file system the temporary directory is on.
#[test]
fn data_is_copied_exactly_on_ext4() {
    if !crate::testing::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = file_system(dir.path(), "ext4");
    if crate::testing::can("needs ext4", mount.is_some()) {
        let mount = mount.unwrap();
        copies_are_exact(&through(&mount));
        a_shorter_source_ends_the_copy(&through(&mount));
        a_full_disk_refuses_at_once(&through(&mount), dir.path());
    }
}

/// A file for which there is no room is refused before anything of it is written.
fn a_full_disk_refuses_at_once(small: &Path, other: &Path) {
    let filler = fs::File::create(small.join("filler")).unwrap();
    rustix::fs::fallocate(&filler, FallocateFlags::empty(), 0, 420 << 20).unwrap();
    fs::write(other.join("too-long"), vec![9; 80 << 20]).unwrap();
    let source = fs::File::open(other.join("too-long")).unwrap();
    let meta = at::meta_of(&source).unwrap();
    let target = fs::File::create(small.join("copy")).unwrap();
    let error = Copier::new().data(&source, &meta, &target).unwrap_err();
    assert_eq!(error, rustix::io::Errno::NOSPC);
    assert_eq!(target.metadata().unwrap().len(), 0, "bytes were written");
}

/// What shrinks while it is copied ends the copy, in any way of copying.
fn a_shorter_source_ends_the_copy(dir: &Path) {
    let content: Vec<u8> = (1..=251).cycle().take(5 << 20).collect();
    fs::write(dir.join("shrinks"), &content).unwrap();
    let source = fs::File::options().read(true).write(true).open(dir.join("shrinks")).unwrap();
    let meta = at::meta_of(&source).unwrap();
    let rest = (1 << 20) + 100;
    source.set_len(rest as u64).unwrap();
    let target = fs::File::create(dir.join("copy")).unwrap();
    Copier::new().data(&source, &meta, &target).unwrap();
    let copy = fs::read(dir.join("copy")).unwrap();
    assert_eq!(copy[..rest], content[..rest]);
    assert!(copy.len() <= rest.next_multiple_of(4096), "{} bytes", copy.len());
}

fn copies_are_exact(dir: &Path) {
    const M: u64 = 1 << 20;
    let cases: [(&str, u64, Stretches); 8] = [
        ("empty", 0, &[]),
        ("small", 3, &[(0, 3)]),
        ("dense", 5 * M + 7, &[(0, 5_242_887)]),
        ("pieces", 40 * M, &[(0, 17_000_001), (30 * M + 1, 9_000_000)]),
        ("all hole", 64 * M, &[]),
        ("hole at the end", 64 * M, &[(0, 100_000)]),
        ("hole at the start", 64 * M, &[(64 * M - 5, 5)]),
        ("islands", 64 * M, &[(M, 4096), (20 * M + 1, 300_000), (63 * M, 1)]),
    ];
    let copiers = [Copier::new(), Copier::writing_early()];
    for (copier, (what, size, data)) in
        copiers.iter().flat_map(|copier| cases.map(|case| (copier, case)))
    {
        let path = dir.join(what);
        let file = fs::File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (offset, length) in data {
            let bytes: Vec<u8> = (1..=251).cycle().take(*length).collect();
            file.write_all_at(&bytes, *offset).unwrap();
        }
        let meta = at::meta_of(&file).unwrap();
        let copy = dir.join("copy");
        let target = fs::File::create(&copy).unwrap();
        let copied = copier.data(fs::File::open(&path).unwrap(), &meta, &target).unwrap();
        let (a, b) = (fs::File::open(&path).unwrap(), fs::File::open(&copy).unwrap());
        assert!(crate::compare::content(a.into(), b.into()).unwrap(), "{what}");
        let written = if copied.shared { 0 } else { copied.written };
        let most: u64 = data.iter().map(|(_, length)| *length as u64 + 8192).sum();
        assert!(written <= most, "{what}: {written} bytes for {data:?}");
        let taken = fs::metadata(&copy).unwrap().blocks() * 512;
        assert!(taken <= most + 8192, "{what}: the copy takes {taken}");
    }
}

#[test]
fn data_is_shared_where_the_file_system_can() {
    if !crate::testing::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (fstype, shares) in [("btrfs", true), ("xfs", true), ("tmpfs", false)] {
        let mount = file_system(dir.path(), fstype);
        if !crate::testing::can(&format!("needs {fstype}"), mount.is_some()) {
            continue;
        }
        let mount = mount.unwrap();
        let base = through(&mount);
        let copier = Copier::new();
        fs::write(base.join("source"), vec![7; 3 << 20]).unwrap();
        fs::write(dir.path().join("source"), vec![8; 1 << 20]).unwrap();
        for _ in 0..2 {
            for (from, same) in [(&base, shares), (&dir.path().to_owned(), false)] {
                let source = fs::File::open(from.join("source")).unwrap();
                let meta = at::meta_of(&source).unwrap();
                let target = fs::File::create(base.join("copy")).unwrap();
                let copied = copier.data(&source, &meta, &target).unwrap();
                assert_eq!(copied.shared, same, "{fstype} from {}", from.display());
                let copy = fs::File::open(base.join("copy")).unwrap();
                assert!(crate::compare::content(source.into(), copy.into()).unwrap(), "{fstype}");
            }
        }
    }
}

/// A tree with everything that a tree can have.
fn rich_tree(base: &Path) {
    fs::create_dir_all(base.join("d/e")).unwrap();
    fs::write(base.join("d/f"), "text").unwrap();
    fs::hard_link(base.join("d/f"), base.join("d/e/linked")).unwrap();
    fs::hard_link(base.join("d/f"), base.join("also")).unwrap();
    fs::write(base.join("su"), "binary").unwrap();
    symlink("d/f", base.join("link")).unwrap();
    fs::hard_link(base.join("link"), base.join("link2")).unwrap();
    let root = root(base);
    let own = rustix::fs::Mode::RUSR;
    rustix::fs::mkfifoat(&root, "fifo", own).unwrap();
    for (name, kind, device) in [
        ("char", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("white", rustix::fs::FileType::CharacterDevice, 0),
        ("block", rustix::fs::FileType::BlockDevice, rustix::fs::makedev(7, 300)),
        ("socket", rustix::fs::FileType::Socket, 0),
    ] {
        rustix::fs::mknodat(&root, name, kind, own, device).unwrap();
    }
    for path in ["su", "d", "link", "char"] {
        std::os::unix::fs::lchown(base.join(path), Some(1234), Some(56)).unwrap();
    }
    // cap_net_raw+ep as version 2 of the attribute.
    let caps = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set(base, "su", "security.capability", &caps);
    set(base, "d", "user.long", &[9; 2000]);
    set(base, "link", "trusted.on-link", b"1");
    // Version 2; user::rwx, user:1000:rwx, group::r-x, mask::rwx, other::r-x.
    let entry = |tag: u16, mode: u16, id: u32| {
        [&tag.to_le_bytes()[..], &mode.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 7, u32::MAX),
        entry(2, 7, 1000),
        entry(4, 5, u32::MAX),
        entry(0x10, 7, u32::MAX),
        entry(0x20, 5, u32::MAX),
    ];
    set(base, "d", "system.posix_acl_default", &list.concat());
    fs::write(base.join("d/with-inherited"), "").unwrap();
    fs::set_permissions(base.join("su"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(base.join("d/e"), fs::Permissions::from_mode(0o1500)).unwrap();
    for (number, path) in (0..).zip(["d/f", "su", "link", "fifo", "char", "d/e", "d", "."]) {
        let time = crate::meta::Time { secs: 1_000_000 - 600_000 * number, nanos: 123_456_789 };
        let (name, dir) = match path.rsplit_once('/') {
            Some((dir, name)) => (name, dir),
            None => (path, ""),
        };
        at::set_mtime_at(root.open_dir(dir).unwrap(), OsStr::new(name), time).unwrap();
    }
}

#[test]
fn a_tree_is_copied_with_everything() {
    if !crate::testing::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    rich_tree(&source);
    let (source, target) = (root(source), root(target));
    let made = tree(&source, &target, Options::default()).unwrap();
    assert_eq!(
        made,
        Usage { bytes: 10, inodes: 11, content: 10 },
        "the three of d/f and both links once"
    );

    let found = crate::diff::trees(Some(&source), &target).unwrap();
    assert_eq!(found.changes, [], "the copy differs");
    let (mut walk, mut names) = (Walk::new(&source, Vanished::Fail).unwrap(), 0);
    while let Some(entry) = walk.next_entry().unwrap() {
        let copy = target.meta(entry.path).unwrap().unwrap();
        if !copy.is_dir() {
            assert_eq!(copy.nlink, entry.meta.nlink, "names of {:?}", entry.path);
        }
        names += 1;
    }
    assert_eq!(names, 14);
    assert_eq!(target.meta("").unwrap().unwrap().mtime, source.meta("").unwrap().unwrap().mtime);
    let again = tree(&source, &target, Options::default()).unwrap_err();
    assert_eq!(again.kind(), crate::ErrorKind::AlreadyExists, "{again}");
}

#[test]
fn sockets_are_left_out_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    fs::write(source.join("z"), "").unwrap();
    let options = Options { sockets: Sockets::Skip, ..Options::default() };
    tree(&root(&source), &root(&target), options).unwrap();
    assert!(!target.join("socket").exists() && target.join("z").exists());
}

#[test]
fn a_deep_tree_is_copied_within_few_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    let deep: PathBuf = (0..300).map(|_| "d").collect();
    fs::create_dir_all(source.join(&deep)).unwrap();
    for path in deep.ancestors() {
        fs::write(source.join(path).join("z"), "").unwrap();
    }
    tree(&root(&source), &root(&target), Options::default()).unwrap();
    let found = crate::diff::trees(Some(&root(&source)), &root(&target)).unwrap();
    assert_eq!(found.changes, [], "the copy differs");
}

struct Layers {
    _dir: tempfile::TempDir,
    top: PathBuf,
    upper: Root,
    work: Root,
    lowers: [Root; 2],
}

fn layers() -> Layers {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (top, low) = (path("top"), path("low"));
    fs::create_dir_all(low.join("a/b/c")).unwrap();
    fs::write(low.join("a/b/f"), "text").unwrap();
    fs::write(low.join("a/b/g"), "").unwrap();
    fs::set_permissions(low.join("a"), fs::Permissions::from_mode(0o1750)).unwrap();
    fs::create_dir_all(top.join("moved")).unwrap();
    let (upper, work) = (root(path("upper")), root(path("work")));
    Layers { top: top.clone(), upper, work, lowers: [root(top), root(low)], _dir: dir }
}

#[test]
fn a_path_is_copied_up_with_its_parents() {
    if !crate::testing::is_root() {
        return;
    }
    let layers = layers();
    set(&layers.top, "moved", "trusted.overlay.redirect", b"/a/b");
    set(&layers.top, "moved", "trusted.overlay.overlay.opaque", b"y");
    let lowers = OverlayView::new(layers.lowers.iter().collect(), XattrSpace::Trusted);
    let copier = Copier::new();
    let copy = |path: &str| up(&copier, &lowers, Path::new(path), &layers.upper, &layers.work);
    for path in ["/a/b/f", "moved/f", "a/b/c"] {
        assert!(copy(path).unwrap(), "{path}");
        assert!(!copy(path).unwrap(), "{path} once more");
        let (shown, real) =
            (lowers.resolve(path).unwrap().unwrap(), layers.upper.meta(path).unwrap().unwrap());
        let differences = crate::compare::metadata(&shown.meta, &real);
        assert!(differences.is_empty(), "{path}: {differences}");
    }
    let a = layers.upper.meta("a").unwrap().unwrap();
    assert_eq!(a.mode, 0o1750, "of a directory on the way");
    assert_eq!(a.mtime, layers.lowers[1].meta("a").unwrap().unwrap().mtime, "and its time");
    let text = fs::File::from(layers.upper.open_file("moved/f").unwrap());
    assert_eq!(std::io::read_to_string(text).unwrap(), "text", "through the redirect");
    let marks: Vec<_> = layers.upper.xattrs("moved").unwrap().into_keys().collect();
    assert_eq!(marks, ["trusted.overlay.overlay.opaque"], "an inner overlay's stay as they are");
    assert!(!layers.upper.exists("a/b/g").unwrap(), "nothing but what was asked for");
    assert_eq!(copy("a/none").unwrap_err().kind(), crate::ErrorKind::NotFound);
    let left = Walk::new(&layers.work, Vanished::Fail).unwrap().next_entry().unwrap().is_none();
    assert!(left, "something was left in the work directory");
}

#[test]
fn nothing_is_copied_over_what_the_upper_layer_has() {
    if !crate::testing::is_root() {
        return;
    }
    let layers = layers();
    let lowers = OverlayView::new(layers.lowers.iter().collect(), XattrSpace::Trusted);
    let copier = Copier::new();
    crate::whiteout::create(&layers.upper, "a".as_ref(), XattrSpace::Trusted).unwrap();
    let copy = |path: &str| up(&copier, &lowers, Path::new(path), &layers.upper, &layers.work);
    assert!(!copy("a").unwrap(), "a whiteout is something");
    assert!(copy("a/b/f").is_err(), "there is no way through a whiteout");
    assert!(layers.upper.meta("a").unwrap().unwrap().is_whiteout_device());
}
