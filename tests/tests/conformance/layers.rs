//! The life of layers: creating, committing, removing, and what is refused.

use std::collections::BTreeMap;

use drivers::{CreateOptions, ErrorKind, LayerRecord, State, Usage};
use tests::ops::Op::*;

use crate::bench::{Bench, each, id, kind, parent_record};

fn stage(bench: &Bench) {
    bench.layer("base", None, &[File("f", "1")]);
    bench.layer("child", Some("base"), &[File("g", "2")]);
    bench.active("active", Some("base"), &[File("h", "3")]);
    bench.view("view", Some("base"));
    bench.create("loose", None);
}

#[test]
fn creating_refuses_what_the_contract_says() {
    each("create", |bench| {
        stage(bench);
        let cases = [
            ("base", None, Some(ErrorKind::AlreadyExists)),
            ("active", Some("base"), Some(ErrorKind::AlreadyExists)),
            ("new", Some("nobody"), Some(ErrorKind::NotFound)),
            ("new", Some("active"), Some(ErrorKind::FailedPrecondition)),
            ("new", Some("view"), Some(ErrorKind::FailedPrecondition)),
            ("new", Some("new"), Some(ErrorKind::NotFound)),
            ("new", Some("child"), None),
        ];
        for (name, parent, expected) in cases {
            let parent = parent.map(id);
            let result =
                bench.driver().create(&id(name), parent.as_ref(), &CreateOptions::active());
            assert_eq!(kind(result), expected, "{}: {name} on {parent:?}", bench.label);
        }
        let options = CreateOptions { state: State::Committed, ..CreateOptions::active() };
        let result = bench.driver().create(&id("made"), None, &options);
        assert_eq!(kind(result), Some(ErrorKind::InvalidArgument), "{}", bench.label);
    });
}

#[test]
fn committing_refuses_what_the_contract_says() {
    each("commit", |bench| {
        stage(bench);
        bench.mount("loose");
        let none = LayerRecord::default;
        let cases = [
            ("nobody", none(), Some(ErrorKind::NotFound)),
            ("base", none(), Some(ErrorKind::FailedPrecondition)),
            ("view", none(), Some(ErrorKind::FailedPrecondition)),
            ("loose", none(), Some(ErrorKind::FailedPrecondition)),
            ("active", parent_record("child"), Some(ErrorKind::InvalidArgument)),
            ("active", parent_record("base"), None),
        ];
        for (name, record, expected) in cases {
            let result = bench.driver().commit(&id(name), &record);
            assert_eq!(kind(result), expected, "{}: {name}, {record:?}", bench.label);
        }
        bench.unmount("loose");
    });
}

#[test]
fn removing_refuses_what_is_used() {
    each("remove", |bench| {
        stage(bench);
        bench.mount("active");
        let cases = [
            ("nobody", Some(ErrorKind::NotFound)),
            ("base", Some(ErrorKind::InUse)),
            ("active", Some(ErrorKind::InUse)),
            ("child", None),
            ("child", Some(ErrorKind::NotFound)),
            ("base", Some(ErrorKind::InUse)),
            ("view", None),
        ];
        for (name, expected) in cases {
            let got = kind(bench.driver().remove(&id(name)));
            assert_eq!(got, expected, "{}: remove {name}", bench.label);
        }
        bench.unmount("active");
        bench.remove("active");
        bench.remove("base");
        bench.layer("base", None, &[File("again", "")]);
        let portrait = bench.portrait("base");
        assert!(
            !portrait.contains_key(std::path::Path::new("f")),
            "{}: old content is back",
            bench.label
        );
    });
}

#[test]
fn what_is_recorded_is_found_again() {
    each("info", |bench| {
        let labels = BTreeMap::from([("k".to_owned(), "é \"\n".to_owned())]);
        let mut options = CreateOptions::active();
        options.labels.clone_from(&labels);
        bench.ok("create", bench.driver().create(&id("1"), None, &options));
        let made = bench.ok("info", bench.driver().info(&id("1")));
        assert_eq!(made.state, State::Active, "{}", bench.label);
        assert_eq!(made.record.labels, labels, "{}: labels of an active layer", bench.label);
        assert_eq!(made.usage, None, "{}: usage of an active layer", bench.label);
        let diff_id = cow::digest::DiffId::new(cow::digest::Digest::of(b"x"));
        let record = LayerRecord {
            diff_id: Some(diff_id),
            chain_id: Some(cow::digest::ChainId::base(&diff_id)),
            tar_size: Some(1024),
            parent: None,
            labels: BTreeMap::from([("other".to_owned(), String::new())]),
        };
        let committed = bench.ok("commit", bench.driver().commit(&id("1"), &record));
        bench.view("2", Some("1"));
        bench.reopen();
        let info = bench.ok("info", bench.driver().info(&id("1")));
        assert_eq!(info, committed, "{}: what commit said is what is stored", bench.label);
        assert_eq!(info.record, record, "{}", bench.label);
        assert_eq!(info.created, made.created, "{}: creation time", bench.label);
        let mut list = bench.ok("list", bench.driver().list());
        list.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(list.len(), 2, "{}", bench.label);
        assert_eq!(list[0], info, "{}", bench.label);
        assert_eq!(
            (list[1].state, &list[1].parent),
            (State::View, &Some(id("1"))),
            "{}",
            bench.label
        );
    });
}

#[test]
fn labels_change_in_every_state_and_while_in_use() {
    each("relabel", |bench| {
        stage(bench);
        bench.mount("active");
        for name in ["base", "child", "active", "view", "loose"] {
            let before = bench.ok("info", bench.driver().info(&id(name)));
            for value in ["1", "2"] {
                let labels = BTreeMap::from([(name.to_owned(), value.to_owned())]);
                bench.ok("relabel", bench.driver().relabel(&id(name), &labels));
            }
            let labels = BTreeMap::from([(name.to_owned(), "2".to_owned())]);
            let record = LayerRecord { labels, ..before.record.clone() };
            let expected = drivers::LayerInfo { record, ..before };
            let info = bench.ok("info", bench.driver().info(&id(name)));
            assert_eq!(info, expected, "{}: {name}", bench.label);
        }
        let result = bench.driver().relabel(&id("nobody"), &BTreeMap::new());
        assert_eq!(kind(result), Some(ErrorKind::NotFound), "{}", bench.label);
        bench.unmount("active");
        bench.reopen();
        for name in ["base", "active"] {
            let info = bench.ok("info", bench.driver().info(&id(name)));
            let value = info.record.labels.get(name).map(String::as_str);
            assert_eq!(value, Some("2"), "{}: {name} after a restart", bench.label);
        }
        let found = bench.ok("check", bench.driver().check());
        assert!(found.is_empty(), "{}: {found:?}", bench.label);
    });
}

#[test]
fn a_committed_layer_is_immutable() {
    each("immutable", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.layer("2", Some("1"), &[File("g", "2")]);
        for name in ["1", "2"] {
            let before = bench.portrait(name);
            let path = bench.mount(name);
            let error = std::fs::write(path.join("f"), "x").unwrap_err();
            let read_only = rustix::io::Errno::ROFS.raw_os_error();
            assert_eq!(error.raw_os_error(), Some(read_only), "{}: write to {name}", bench.label);
            bench.unmount(name);
            let result = bench.driver().apply(&id(name), &mut &[0_u8; 1024][..]);
            assert_eq!(kind(result), Some(ErrorKind::FailedPrecondition), "{}", bench.label);
            bench.active(&format!("on{name}"), Some(name), &[File("f", "x"), Chmod("", 0o700)]);
            bench.same("after a child wrote", &bench.portrait(name), &before);
        }
    });
}

#[test]
fn a_view_is_read_only_and_shows_its_parent() {
    each("view", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.layer("2", Some("1"), &[File("g", "2")]);
        for parent in [None, Some("1"), Some("2")] {
            bench.view("view", parent);
            let path = bench.mount("view");
            assert!(std::fs::write(path.join("new"), "").is_err(), "{}: {parent:?}", bench.label);
            bench.unmount("view");
            let usage = bench.ok("usage", bench.driver().usage(&id("view")));
            if parent.is_some() {
                assert_eq!(usage, Usage::default(), "{}: a view takes nothing", bench.label);
            }
            bench.remove("view");
        }
    });
}

#[test]
fn a_new_root_is_plain_and_a_child_takes_after_its_parent() {
    each("root", |bench| {
        bench.create("1", None);
        let mode = |path: &std::path::Path| {
            use std::os::unix::fs::MetadataExt as _;
            let meta = std::fs::metadata(path).unwrap();
            (meta.mode() & 0o7777, meta.uid(), meta.gid())
        };
        let path = bench.mount("1");
        assert_eq!(mode(&path), (0o755, 0, 0), "{}", bench.label);
        tests::ops::apply(&path, &[Chown("", 7, 8), Chmod("", 0o2711), Xattr("", "user.x", b"1")]);
        bench.unmount("1");
        bench.commit("1");
        bench.layer("2", Some("1"), &[File("f", "")]);
        bench.create("3", Some("2"));
        assert_eq!(mode(&bench.mount("3")), (0o2711, 7, 8), "{}", bench.label);
        bench.unmount("3");
        assert_eq!(bench.changes("3", None), [""; 0], "{}: nothing was changed", bench.label);
    });
}

#[test]
fn usage_is_measured_and_then_frozen() {
    each("usage", |bench| {
        bench.active("1", None, &[File("f", &"x".repeat(100_000)), Link("g", "f")]);
        let active = bench.ok("usage", bench.driver().usage(&id("1")));
        assert!((100_000..130_000).contains(&active.bytes), "{}: {active:?}", bench.label);
        assert_eq!(active.inodes, 2, "{}: the root and one file", bench.label);
        bench.commit("1");
        let frozen = bench.ok("usage", bench.driver().usage(&id("1")));
        let info = bench.ok("info", bench.driver().info(&id("1")));
        assert_eq!(info.usage, Some(frozen), "{}", bench.label);
        assert_eq!(frozen.inodes, 2, "{}", bench.label);
        bench.create("2", Some("1"));
        if bench.backend.driver != "vfs" {
            let child = bench.ok("usage", bench.driver().usage(&id("2")));
            assert!(child.bytes < 20_000, "{}: the parent is counted: {child:?}", bench.label);
        }
    });
}
