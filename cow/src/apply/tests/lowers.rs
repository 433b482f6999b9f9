//! Layers that stand on others: links through them, copies from them, and what is mended later.

use super::Place::{Dir, File, Symlink};
use super::*;

fn apart() -> ApplyOptions<'static> {
    ApplyOptions::new(OVERLAY)
}

#[test]
fn a_link_of_a_lower_layer_is_followed() {
    let lower = [Dir("usr/lib"), Symlink("usr/lib", "lib"), Symlink("/usr", "abs")];
    for format in BOTH {
        let ground = Ground::on(format, &lower);
        let tar = Tar::new()
            .file("lib/a", "a")
            .file("abs/lib/b", "b")
            .file("lib/new/c", "c")
            .dir("lib/explicit", 0o700)
            .bytes();
        ground.apply(&tar).unwrap();
        let root = ground.merged();
        assert_eq!(root.readlink("lib").unwrap(), "usr/lib", "{format:?}: the link stays");
        for (path, text) in [("usr/lib/a", "a"), ("usr/lib/b", "b"), ("usr/lib/new/c", "c")] {
            assert_eq!(content_in(&root, path).as_deref(), Some(text), "{format:?}: {path}");
        }
        let dir = meta_in(&root, "usr/lib/explicit").unwrap();
        assert_eq!((dir.mode, dir.mtime.secs), (0o700, 1_700_000_000), "{format:?}");
    }
}

#[test]
fn a_lower_link_that_this_layer_replaces_is_no_longer_followed() {
    let lower = [Dir("usr/lib"), Symlink("usr/lib", "lib")];
    for format in BOTH {
        let ground = Ground::on(format, &lower);
        let tar = Tar::new().file("lib/a", "a").dir("lib", 0o755).file("lib/b", "b").bytes();
        ground.apply(&tar).unwrap();
        let root = ground.merged();
        assert_eq!(content_in(&root, "usr/lib/a").as_deref(), Some("a"), "{format:?}");
        assert_eq!(content_in(&root, "lib/b").as_deref(), Some("b"), "{format:?}");
        assert!(!root.exists("usr/lib/b").unwrap(), "{format:?}: not through the old link");
    }
}

#[test]
fn a_hard_link_out_of_the_layer_copies_its_target_up() {
    let lower = [File("etc/passwd", "lower"), Symlink("etc", "conf")];
    for format in BOTH {
        for target in ["etc/passwd", "/conf/passwd", "../etc/passwd"] {
            let ground = Ground::on(format, &lower);
            ground.apply(&Tar::new().link(target, "second").bytes()).unwrap();
            let root = ground.merged();
            assert_eq!(content_in(&root, "second").as_deref(), Some("lower"), "{format:?}");
            let inode = |path| meta_in(&root, path).map(|meta| meta.inode());
            assert_eq!(inode("second"), inode("etc/passwd"), "{format:?}: {target}");
        }
    }
}

#[test]
fn without_lowers_such_a_link_asks_for_them() {
    let ground = Ground::on(OVERLAY, &[File("etc/passwd", "lower")]);
    let tar = Tar::new().link("etc/passwd", "second").bytes();
    let error = ground.apply_with(&tar, &apart()).unwrap_err();
    match error {
        Error::NeedsLower { path, target } => {
            assert_eq!((path, target), ("second".into(), "etc/passwd".into()));
        }
        other => panic!("not the error that asks for lowers: {other}"),
    }
}

#[test]
fn a_hard_link_to_what_is_hidden_is_refused() {
    let ground = Ground::on(OVERLAY, &[File("etc/passwd", "lower"), File("d/f", "lower")]);
    let cases = [
        Tar::new().file("etc/.wh.passwd", "").link("etc/passwd", "second"),
        Tar::new().file(".wh.d", "").dir("d", 0o755).link("d/f", "second"),
        Tar::new().dir("d", 0o755).file("d/.wh..wh..opq", "").link("d/f", "second"),
    ];
    for (index, tar) in cases.into_iter().enumerate() {
        let fresh = Ground::on(OVERLAY, &[File("etc/passwd", "lower"), File("d/f", "lower")]);
        let error = fresh.apply(&tar.bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "case {index}: {error}");
    }
    drop(ground);
}

#[test]
fn lower_whiteouts_and_opaque_marks_hide_what_is_below_them() {
    let mut ground = Ground::on(OVERLAY, &[File("a/gone/x", "x"), File("b/old/x", "x")]);
    let mut layer = Ground::new(OVERLAY);
    std::mem::swap(&mut layer.lowers, &mut ground.lowers);
    layer.apply(&Tar::new().file("a/.wh.gone", "").file("b/.wh..wh..opq", "").bytes()).unwrap();
    layer.lowers.insert(0, Root::open(layer.root()).unwrap());
    let top = tempfile::tempdir().unwrap();
    let links = [Tar::new().link("a/gone/x", "l"), Tar::new().link("b/old/x", "l")];
    for tar in links {
        let root = Root::open(top.path()).unwrap();
        let options = ApplyOptions::new(OVERLAY).on(&layer.lowers);
        let error = apply(&root, &tar.bytes()[..], &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[test]
fn a_whiteout_of_nothing_leaves_no_ghost() {
    let mut ground = Ground::on(OVERLAY, &[File("d/old", "old")]);
    ground.add_lower(&[Dir("e")]);
    let tar = Tar::new()
        .dir("new", 0o755)
        .file("new/.wh.never", "")
        .dir("d", 0o755)
        .file("d/.wh.old", "")
        .file("d/.wh..wh..opq", "")
        .file("d/.wh.older", "")
        .bytes();
    ground.apply(&tar).unwrap();
    for dir in ["new", "d"] {
        let left = ground.root().join(dir).read_dir().unwrap().count();
        assert_eq!(left, 0, "{dir}: an unmerged directory would list its whiteouts");
    }
}

#[test]
fn what_was_applied_apart_is_adopted_later() {
    let lower = [Dir("a/b"), File("f", "file")];
    let ground = Ground::on(OVERLAY, &lower);
    let base = ground.lowers[0].label().to_owned();
    std::fs::set_permissions(base.join("a"), PermissionsExt::from_mode(0o711)).unwrap();
    std::fs::set_permissions(base.join("a/b"), PermissionsExt::from_mode(0o3770)).unwrap();
    let ground = Ground { before: ground.outside(), ..ground };
    let tar = Tar::new().file("a/b/new", "").file("c/new", "").file("f/new", "").bytes();
    let applied = ground.apply_with(&tar, &apart()).unwrap();
    let expected: Vec<PathBuf> = ["", "a", "a/b", "c", "f"].iter().map(PathBuf::from).collect();
    assert_eq!(applied.implicit_dirs, expected);
    let target = Root::open(ground.root()).unwrap();
    for round in ["first", "again"] {
        let dirs = &applied.implicit_dirs;
        adopt_implicit(&target, dirs, &ground.lowers, XattrSpace::User).unwrap();
        for (path, mode) in [("a", 0o711), ("a/b", 0o3770), ("c", 0o755), ("f", 0o755)] {
            let found = meta_in(&target, path).unwrap();
            assert_eq!(found.mode, mode, "{round}: {path}");
            if let Some(lower) = meta_in(&ground.lowers[0], path).filter(|meta| meta.is_dir()) {
                assert_eq!(found.mtime, lower.mtime, "{round}: {path}");
            }
        }
    }
}

#[test]
fn adopting_is_refused_where_a_lower_link_was_passed_unseen() {
    let ground = Ground::on(OVERLAY, &[Dir("usr/lib"), Symlink("usr/lib", "lib")]);
    let applied = ground.apply_with(&Tar::new().file("lib/a", "").bytes(), &apart()).unwrap();
    let target = Root::open(ground.root()).unwrap();
    let dirs = &applied.implicit_dirs;
    let error = adopt_implicit(&target, dirs, &ground.lowers, XattrSpace::User).unwrap_err();
    assert!(matches!(error, Error::NeedsLower { .. }), "{error}");
}

#[test]
fn an_entry_that_comes_later_makes_a_directory_explicit() {
    let ground = Ground::new(OVERLAY);
    let tar = Tar::new().file("d/f", "").dir("d", 0o700).dir("./", 0o711).bytes();
    let applied = ground.apply_with(&tar, &apart()).unwrap();
    assert_eq!(applied.implicit_dirs, Vec::<PathBuf>::new());
    let root = Root::open(ground.root()).unwrap();
    assert_eq!(meta_in(&root, "").unwrap().mode, 0o711, "the root's own entry");
    assert_eq!(meta_in(&root, "d").unwrap().mode, 0o700);
}
