//! What a crash leaves, and that repairing it loses nothing that was committed.

use std::fs;
use std::path::{Path, PathBuf};

use drivers::State;
use tests::ops::Op::*;
use tests::root::mounts_below;

use crate::bench::each;

#[test]
fn leftovers_are_found_and_removed() {
    each("leftovers", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.active("2", Some("1"), &[File("g", "2")]);
        bench.create("cut", Some("1"));
        let (one, two) = (bench.portrait("1"), bench.portrait("2"));
        bench.reopen_after(|home| {
            fs::create_dir_all(home.join("tmp/9.7/deep/er")).unwrap();
            fs::create_dir_all(home.join("trash/8.7/x")).unwrap();
            fs::write(home.join("trash/8.7/x/file"), "x").unwrap();
            let meta = home.join("layers/cut/layer.json");
            let text = fs::read_to_string(&meta).unwrap();
            fs::write(meta, &text[..text.len() / 2]).unwrap();
        });
        let found = bench.check();
        let expected =
            ["layers/cut", "tmp/9.7", "trash/8.7"].map(|path| (PathBuf::from(path), true));
        assert_eq!(found, expected.into(), "{}", bench.label);
        let done = bench.ok("repair", bench.driver().repair());
        assert_eq!(done.len(), 3, "{}: {done:?}", bench.label);
        assert!(bench.check().is_empty(), "{}: {:?}", bench.label, bench.check());
        assert_eq!(bench.state("1"), State::Committed, "{}", bench.label);
        assert_eq!(
            bench.state("2"),
            State::Active,
            "{}: an active layer is no damage",
            bench.label
        );
        bench.same("1", &bench.portrait("1"), &one);
        bench.same("2", &bench.portrait("2"), &two);
        bench.create("cut", Some("1"));
    });
}

#[test]
fn stray_mounts_are_found_and_removed() {
    each("mounts", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        let at = bench.home().join("tmp/5.0");
        fs::create_dir(&at).unwrap();
        rustix::mount::mount("tmpfs", &at, "tmpfs", rustix::mount::MountFlags::empty(), None)
            .unwrap();
        assert_eq!(bench.check().get(Path::new("tmp/5.0")), Some(&true), "{}", bench.label);
        bench.ok("repair", bench.driver().repair());
        assert!(mounts_below(&bench.home()).is_empty(), "{}: still mounted", bench.label);
        assert!(bench.check().is_empty(), "{}: {:?}", bench.label, bench.check());
    });
}

#[test]
fn lost_data_is_reported_and_not_hidden() {
    each("lost", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.layer("2", Some("1"), &[File("g", "2")]);
        bench.reopen_after(|home| {
            // Moved away: a read-only subvolume lets nobody empty it.
            let lost = home.join("../lost");
            fs::create_dir(&lost).unwrap();
            for name in ["1", "2"] {
                fs::rename(home.join("layers").join(name), lost.join(name)).unwrap();
            }
            fs::create_dir(home.join("layers/2")).unwrap();
            fs::copy(lost.join("2/layer.json"), home.join("layers/2/layer.json")).unwrap();
        });
        let found = bench.check();
        assert!(found.values().all(|repairable| !repairable), "{}: {found:?}", bench.label);
        assert_eq!(found.len(), 2, "{}: {found:?}", bench.label);
        let done = bench.ok("repair", bench.driver().repair());
        assert!(done.is_empty(), "{}: {done:?}", bench.label);
        assert_eq!(bench.state("2"), State::Committed, "{}", bench.label);
    });
}

#[test]
fn a_crashed_mount_can_be_mounted_again() {
    each("remount", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.create("2", Some("1"));
        let path = bench.mount("2");
        fs::write(path.join("g"), "2").unwrap();
        // As after a power cut: the mount is gone, what it left in the directories is not.
        bench.reopen_after(tests::root::unmount_below);
        bench.ok("repair", bench.driver().repair());
        assert_eq!(fs::read_to_string(bench.mount("2").join("g")).unwrap(), "2", "{}", bench.label);
        bench.unmount("2");
        bench.commit("2");
    });
}
