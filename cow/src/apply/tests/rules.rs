//! What a layer may rely on, rule by rule.

use std::os::unix::fs::FileTypeExt as _;

use super::Place::{Dir, File, Symlink};
use super::*;
use crate::meta::Device;
use crate::testing::is_root;
use crate::xattr;

fn stat(ground: &Ground, path: &str) -> crate::meta::Meta {
    meta_in(&ground.merged(), path).unwrap_or_else(|| panic!("{path} exists"))
}

fn xattr_of(root: &Path, path: &str, name: &str) -> Option<Vec<u8>> {
    let root = Root::open(root).unwrap();
    root.xattr(path, OsStr::new(name)).unwrap()
}

fn names(ground: &Ground, path: &str) -> Vec<String> {
    let root = ground.merged();
    let listing = crate::listing::Listing::read(root.open_dir(path).unwrap()).unwrap();
    listing.iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_tree_is_as_the_tar_says() {
    for format in BOTH {
        let ground = Ground::new(format);
        let stamped = Entry {
            mtime: Time { secs: 1_234_567_890, nanos: 123_456_789 },
            xattrs: vec![(b"user.note".to_vec(), b"binary\n\0".to_vec())],
            ..Tar::blank("dir/stamped", EntryKind::File, 0o4711)
        };
        let tar = Tar::new()
            .dir("dir", 0o1775)
            .file("dir/plain", "content")
            .entry(stamped, b"stamped")
            .symlink("plain", "dir/link")
            .link("dir/plain", "dir/second")
            .entry(Tar::blank("dir/pipe", EntryKind::Fifo, 0o622), b"")
            .bytes();
        let applied = ground.apply(&tar).unwrap();
        assert_eq!(applied.tar_size, tar.len() as u64, "{format:?}: every byte is counted");
        assert_eq!((applied.entries, applied.content_size), (6, 14), "{format:?}");
        assert_eq!(names(&ground, "dir"), ["link", "pipe", "plain", "second", "stamped"]);
        let file = stat(&ground, "dir/stamped");
        assert_eq!(file.mode, 0o4711, "{format:?}: setuid outlives chown and write");
        assert_eq!(file.mtime, Time { secs: 1_234_567_890, nanos: 123_456_789 }, "{format:?}");
        assert_eq!(
            xattr_of(&ground.root(), "dir/stamped", "user.note").as_deref(),
            Some(&b"binary\n\0"[..]),
            "{format:?}"
        );
        assert_eq!(stat(&ground, "dir/pipe").mode, 0o622, "{format:?}: beyond the umask");
        let dir = stat(&ground, "dir");
        assert_eq!((dir.mode, dir.mtime.secs), (0o1775, 1_700_000_000), "{format:?}");
        assert_eq!(stat(&ground, "dir/second").ino, stat(&ground, "dir/plain").ino, "{format:?}");
        let link = ground.root().join("dir/link").symlink_metadata().unwrap();
        assert_eq!(link.mtime(), 1_700_000_000, "{format:?}: a link has a time of its own");
    }
}

#[test]
fn point_1_an_opaque_marker_read_late_spares_this_layers_own() {
    let lower = [File("d/old", "old"), File("d/sub/old", "old"), File("d/implicit/old", "old")];
    for format in BOTH {
        for late in [false, true] {
            let ground = Ground::on(format, &lower);
            let mut tar = Tar::new().dir("d", 0o755);
            if !late {
                tar = tar.file("d/.wh..wh..opq", "");
            }
            tar = tar
                .file("d/new", "new")
                .dir("d/sub", 0o755)
                .file("d/sub/new", "new")
                .file("d/implicit/new", "new");
            if late {
                tar = tar.file("d/.wh..wh..opq", "");
            }
            ground.apply(&tar.bytes()).unwrap();
            let shown = format!("{format:?}, late: {late}");
            assert_eq!(names(&ground, "d"), ["implicit", "new", "sub"], "{shown}");
            assert_eq!(names(&ground, "d/sub"), ["new"], "{shown}");
            assert_eq!(names(&ground, "d/implicit"), ["new"], "{shown}");
            assert_eq!(stat(&ground, "d").mtime.secs, 1_700_000_000, "{shown}");
        }
    }
}

#[test]
fn point_2_a_missing_parent_is_as_the_lower_layer_has_it() {
    for format in BOTH {
        let ground = Ground::on(format, &[Dir("a/b")]);
        let base =
            if format == OVERLAY { ground.lowers[0].label().to_owned() } else { ground.root() };
        let dir = base.join("a/b");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o2710)).unwrap();
        let fd = std::fs::File::open(&dir).unwrap();
        xattr::set_at(&fd, OsStr::new(""), OsStr::new("user.note"), b"kept").unwrap();
        let time = Time { secs: 1_111_111_111, nanos: 5 };
        crate::at::set_mtime_at(&fd, OsStr::new(""), time).unwrap();
        let ground = Ground { before: ground.outside(), ..ground };
        let applied = ground.apply(&Tar::new().file("a/b/c/d", "x").bytes()).unwrap();
        let found = stat(&ground, "a/b");
        assert_eq!((found.mode, found.mtime), (0o2710, time), "{format:?}");
        assert_eq!(
            xattr_of(&ground.root(), "a/b", "user.note").as_deref(),
            Some(&b"kept"[..]),
            "{format:?}"
        );
        let new = stat(&ground, "a/b/c");
        assert_eq!(
            (new.mode, new.mtime),
            (0o755, Time::default()),
            "{format:?}: made from nothing"
        );
        let implicit: &[&str] =
            if format == OVERLAY { &["", "a", "a/b", "a/b/c"] } else { &["a/b/c"] };
        let paths: Vec<_> = implicit.iter().map(PathBuf::from).collect();
        assert_eq!(applied.implicit_dirs, paths, "{format:?}");
    }
}

#[test]
fn point_3_owner_then_xattrs_then_mode() {
    if !is_root() {
        return;
    }
    // What a version 2 capability set of cap_net_raw+ep looks like; chown would clear it.
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    for format in BOTH {
        let ground = Ground::new(format);
        let entry = Entry {
            uid: 1000,
            gid: 2000,
            xattrs: vec![(b"security.capability".to_vec(), capability.clone())],
            ..Tar::blank("ping", EntryKind::File, 0o6755)
        };
        let link = Entry { uid: 7, ..Tar::blank("link", EntryKind::Symlink, 0o777) };
        let link = Entry { link: b"nowhere".to_vec(), ..link };
        let tar = Tar::new().entry(entry, b"x").link("ping", "ping6").entry(link, b"").bytes();
        ground.apply(&tar).unwrap();
        let found = stat(&ground, "ping");
        assert_eq!((found.uid, found.gid, found.mode), (1000, 2000, 0o6755), "{format:?}");
        assert_eq!(
            xattr_of(&ground.root(), "ping", "security.capability"),
            Some(capability.clone()),
            "{format:?}: neither the owner nor the second name took it away"
        );
        let link = ground.root().join("link").symlink_metadata().unwrap();
        assert_eq!(link.uid(), 7, "{format:?}: a link's own owner");
    }
}

#[test]
fn point_4_directory_times_come_last() {
    for format in BOTH {
        let ground = Ground::on(format, &[File("kept/old", "old"), File("kept/sub/x", "x")]);
        let kept = Time { secs: 1_000_000_000, nanos: 7 };
        let base =
            if format == OVERLAY { ground.lowers[0].label().to_owned() } else { ground.root() };
        for path in ["kept", "kept/sub"] {
            let fd = std::fs::File::open(base.join(path)).unwrap();
            crate::at::set_mtime_at(fd, OsStr::new(""), kept).unwrap();
        }
        let ground = Ground { before: ground.outside(), ..ground };
        let tar = Tar::new()
            .dir("late", 0o755)
            .dir("late/sub", 0o755)
            .file("late/sub/f", "")
            .file("late/f", "")
            .file("kept/new", "new")
            .file("kept/sub/.wh.x", "")
            .bytes();
        ground.apply(&tar).unwrap();
        for path in ["late", "late/sub"] {
            assert_eq!(stat(&ground, path).mtime.secs, 1_700_000_000, "{format:?}: {path}");
        }
        for path in ["kept", "kept/sub"] {
            assert_eq!(stat(&ground, path).mtime, kept, "{format:?}: {path}, without an entry");
        }
    }
}

#[test]
fn point_5_modes_do_not_depend_on_the_umask() {
    for format in BOTH {
        let ground = Ground::new(format);
        let mut tar = Tar::new();
        let modes = [0, 0o400, 0o644, 0o666, 0o777, 0o1777, 0o2755, 0o7777];
        for mode in modes {
            tar = tar.dir(&format!("d{mode:o}"), mode);
            let file = Tar::blank(&format!("f{mode:o}"), EntryKind::File, mode);
            tar = tar.entry(file, b"x");
        }
        ground.apply(&tar.bytes()).unwrap();
        for mode in modes {
            for kind in ["d", "f"] {
                let path = ground.root().join(format!("{kind}{mode:o}"));
                let found = path.metadata().unwrap().mode() & 0o7777;
                assert_eq!(found, mode, "{format:?}: {kind}{mode:o}");
            }
        }
    }
}

#[test]
fn point_6_times_are_clamped_to_what_the_file_system_holds() {
    for secs in [i64::MIN, -1, 0, 1 << 33, i64::MAX] {
        let ground = Ground::new(OVERLAY);
        let mtime = Time { secs, nanos: 999_999_999 };
        let file = Entry { mtime, ..Tar::blank("f", EntryKind::File, 0o644) };
        let dir = Entry { mtime, ..Tar::blank("d", EntryKind::Dir, 0o755) };
        ground.apply(&Tar::new().entry(file, b"").entry(dir, b"").bytes()).unwrap();
        let (file, dir) = (stat(&ground, "f").mtime, stat(&ground, "d").mtime);
        assert_eq!(file, dir, "{secs}: alike for both");
        assert!((secs < 0) == (file.secs < 0), "{secs}: clamped to {file:?}, not wrapped");
    }
}

#[test]
fn point_7_xattrs_that_are_not_an_images_to_give_are_left_out() {
    for format in BOTH {
        let ground = Ground::new(format);
        let xattr = |name: &str| (name.as_bytes().to_vec(), b"y".to_vec());
        let xattrs = vec![
            xattr("trusted.overlay.opaque"),
            xattr("trusted.any"),
            xattr("user.overlay.opaque"),
            xattr("user.good"),
            xattr("security.selinux"),
            xattr("unheard.of"),
        ];
        let dir = Entry { xattrs: xattrs.clone(), ..Tar::blank("d", EntryKind::Dir, 0o755) };
        let link = Entry { link: b"d".to_vec(), ..Tar::blank("l", EntryKind::Symlink, 0o777) };
        let link = Entry { xattrs: vec![xattr("user.good")], ..link };
        let tar = Tar::new().entry(dir.clone(), b"").entry(link, b"").entry(dir, b"");
        ground.apply(&tar.bytes()).unwrap();
        let root = Root::open(ground.root()).unwrap();
        let found: Vec<_> = root.xattrs("d").unwrap().into_keys().collect();
        assert_eq!(found, ["user.good"], "{format:?}");
    }
}

#[test]
fn point_9_device_numbers_are_checked() {
    let device = |kind| Tar::new().entry(Tar::blank("dev", kind, 0o600), b"").bytes();
    let number = |major, minor| Device { major, minor };
    let refused = [number(4096, 0), number(1, 1 << 20), number(0o7_777_777, 0)];
    for format in BOTH {
        for device_number in refused {
            for kind in [EntryKind::Char(device_number), EntryKind::Block(device_number)] {
                let error = Ground::new(format).apply(&device(kind)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{kind:?}: {error}");
            }
        }
        if !is_root() {
            continue;
        }
        let ground = Ground::new(format);
        ground.apply(&device(EntryKind::Block(number(4095, 1_048_575)))).unwrap();
        let made = ground.root().join("dev").symlink_metadata().unwrap();
        assert!(made.file_type().is_block_device(), "{format:?}");
        assert_eq!((made.mode() & 0o777, made.mtime()), (0o600, 1_700_000_000), "{format:?}");
        let numbers = (rustix::fs::major(made.rdev()), rustix::fs::minor(made.rdev()));
        assert_eq!(numbers, (4095, 1_048_575), "{format:?}");
    }
    let error = Ground::new(OVERLAY).apply(&device(EntryKind::Char(number(0, 0)))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "would be a whiteout: {error}");
}

#[test]
fn point_12_aufs_leavings_are_used_and_not_kept() {
    for format in BOTH {
        let ground = Ground::new(format);
        let tar = Tar::new()
            .file(".wh..wh.aufs", "")
            .dir(".wh..wh.orph", 0o700)
            .dir(".wh..wh.plnk", 0o700)
            .file(".wh..wh.plnk/12.34", "shared")
            .link(".wh..wh.plnk/12.34", "one")
            .link("/.wh..wh.plnk/12.34", "two")
            .bytes();
        ground.apply(&tar).unwrap();
        assert_eq!(names(&ground, ""), ["one", "two"], "{format:?}");
        assert_eq!(content_in(&ground.merged(), "two").as_deref(), Some("shared"), "{format:?}");
        assert_eq!(stat(&ground, "one").ino, stat(&ground, "two").ino, "{format:?}");
    }
}

#[test]
fn a_directory_over_a_directory_keeps_its_children_and_takes_attributes() {
    for format in BOTH {
        let ground = Ground::on(format, &[File("d/old", "old")]);
        if format == WhiteoutFormat::Remove {
            let fd = std::fs::File::open(ground.root().join("d")).unwrap();
            xattr::set_at(fd, OsStr::new(""), OsStr::new("user.old"), b"x").unwrap();
        }
        ground.apply(&Tar::new().dir("d", 0o700).bytes()).unwrap();
        assert_eq!(names(&ground, "d"), ["old"], "{format:?}");
        let found = stat(&ground, "d");
        assert_eq!((found.mode, found.mtime.secs), (0o700, 1_700_000_000), "{format:?}");
        assert_eq!(xattr_of(&ground.root(), "d", "user.old"), None, "{format:?}");
    }
}

#[test]
fn everything_else_is_unlinked_first_and_the_last_entry_wins() {
    let lower = [
        File("file", "old"),
        File("tree/a/b", "old"),
        Symlink("file", "link"),
        File("other", "other"),
    ];
    for format in BOTH {
        let ground = Ground::on(format, &lower);
        let tar = Tar::new()
            .file("tree", "now a file")
            .file("link", "now a file")
            .dir("file", 0o755)
            .file("twice", "one")
            .file("twice", "two")
            .dir("back", 0o755)
            .file("back/gone", "")
            .file("back", "")
            .dir("back", 0o755)
            .file("below", "")
            .file("below/it", "it")
            .bytes();
        ground.apply(&tar).unwrap();
        let root = ground.merged();
        for (path, content) in
            [("tree", "now a file"), ("link", "now a file"), ("twice", "two"), ("below/it", "it")]
        {
            assert_eq!(content_in(&root, path).as_deref(), Some(content), "{format:?}: {path}");
        }
        assert!(stat(&ground, "file").is_dir(), "{format:?}: a directory over a file");
        assert_eq!(names(&ground, "back"), [""; 0], "{format:?}: made anew");
        assert_eq!(content_in(&root, "other").as_deref(), Some("other"), "{format:?}");
    }
}

#[test]
fn a_tree_replaced_by_a_file_and_made_again_hides_the_lower_one() {
    for format in BOTH {
        let ground = Ground::on(format, &[File("d/old", "old")]);
        let tar = Tar::new().file("d", "").dir("d", 0o755).file("d/new", "new").bytes();
        ground.apply(&tar).unwrap();
        assert_eq!(names(&ground, "d"), ["new"], "{format:?}");
    }
}

#[test]
fn a_whiteout_hides_only_lower_layers_wherever_it_stands() {
    let lower = [File("f", "old"), File("d/old", "old"), File("gone/deep/x", "x")];
    for format in BOTH {
        for late in [false, true] {
            let ground = Ground::on(format, &lower);
            let whiteouts = |tar: Tar| tar.file(".wh.f", "").file(".wh.d", "").file(".wh.gone", "");
            let mut tar = Tar::new();
            if !late {
                tar = whiteouts(tar);
            }
            tar = tar.file("f", "new").dir("d", 0o755).file("d/new", "new");
            if late {
                tar = whiteouts(tar);
            }
            ground.apply(&tar.bytes()).unwrap();
            let shown = format!("{format:?}, late: {late}");
            assert_eq!(names(&ground, ""), ["d", "f"], "{shown}");
            assert_eq!(names(&ground, "d"), ["new"], "{shown}");
            assert_eq!(content_in(&ground.merged(), "f").as_deref(), Some("new"), "{shown}");
        }
    }
}

#[test]
fn an_opaque_root_hides_everything() {
    let lower = [File("a", "a"), File("d/old", "old"), File("e/old", "old")];
    for format in BOTH {
        let ground = Ground::on(format, &lower);
        let tar = Tar::new()
            .file("d/new", "new")
            .file(".wh..wh..opq", "")
            .dir("e", 0o755)
            .file("e/new", "new")
            .bytes();
        ground.apply(&tar).unwrap();
        assert_eq!(names(&ground, ""), ["d", "e"], "{format:?}");
        assert_eq!(
            (names(&ground, "d"), names(&ground, "e")),
            (vec!["new".into()], vec!["new".into()])
        );
    }
    let ground = Ground::on(OVERLAY, &lower);
    let tar = Tar::new().file(".wh..wh..opq", "").bytes();
    let apart = ApplyOptions::new(OVERLAY);
    let error = ground.apply_with(&tar, &apart).unwrap_err();
    assert!(matches!(error, Error::NeedsLower { .. }), "unknown lowers: {error}");
}

#[test]
fn a_default_acl_is_not_inherited_by_what_the_tar_makes() {
    // user::rwx, group::r-x, other::r-x, as the kernel stores it.
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, perm) in [(1_u16, 7_u16), (4, 5), (0x20, 5)] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&perm.to_le_bytes());
        acl.extend_from_slice(&u32::MAX.to_le_bytes());
    }
    let name = "system.posix_acl_default";
    for format in BOTH {
        let ground = Ground::on(format, &[Dir("old")]);
        if format == WhiteoutFormat::Remove {
            let fd = std::fs::File::open(ground.root().join("old")).unwrap();
            xattr::set_at(fd, OsStr::new(""), OsStr::new(name), &acl).unwrap();
        }
        let xattrs = vec![(name.as_bytes().to_vec(), acl.clone())];
        let dir = Entry { xattrs, ..Tar::blank("d", EntryKind::Dir, 0o755) };
        let open = |path: &str| Tar::blank(path, EntryKind::File, 0o666);
        let tar = Tar::new()
            .entry(dir, b"")
            .entry(open("d/f"), b"")
            .dir("d/sub", 0o777)
            .entry(open("old/f"), b"")
            .dir("old/sub", 0o777)
            .bytes();
        ground.apply(&tar).unwrap();
        assert_eq!(
            xattr_of(&ground.root(), "d", name),
            Some(acl.clone()),
            "{format:?}: set at last"
        );
        for (path, mode) in [("d/f", 0o666), ("d/sub", 0o777), ("old/f", 0o666), ("old/sub", 0o777)]
        {
            let meta = ground.root().join(path).metadata().unwrap();
            assert_eq!(meta.mode() & 0o7777, mode, "{format:?}: {path}");
            assert_eq!(xattr_of(&ground.root(), path, name), None, "{format:?}: {path}");
        }
    }
}

#[test]
fn sparse_files_keep_their_holes() {
    let Ok(made) = std::process::Command::new("tar").arg("--version").output() else {
        assert!(!crate::testing::can("needs tar", false), "skipped");
        return;
    };
    assert!(made.status.success(), "tar runs");
    let source = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(source.path().join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"tail", 8 << 20).unwrap();
    file.set_len(16 << 20).unwrap();
    for options in [&["--format=gnu"][..], &["--format=pax", "--sparse-version=1.0"]] {
        let tar = std::process::Command::new("tar")
            .args(["-cS"])
            .args(options)
            .args(["-C".as_ref(), source.path().as_os_str(), "sparse".as_ref()])
            .output()
            .unwrap();
        let ground = Ground::new(OVERLAY);
        ground.apply(&tar.stdout).unwrap();
        let found = ground.root().join("sparse");
        assert_eq!(found.metadata().unwrap().len(), 16 << 20, "{options:?}");
        assert!(found.metadata().unwrap().blocks() < 1024, "{options:?}: holes stay holes");
        let same =
            std::fs::read(found).unwrap() == std::fs::read(source.path().join("sparse")).unwrap();
        assert!(same, "{options:?}: content");
    }
}
