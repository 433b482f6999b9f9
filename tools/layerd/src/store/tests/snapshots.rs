use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::catalogue::{Labels, SnapshotKind};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{LabelUpdate, NewSnapshot, Store};
use crate::testing::{Archive, Bench, active, layer_tar, view};

const NS: &str = "containerd";

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A store with committed `base`, active `busy` on it, a view `look` on it, active `bare` without
/// parent, and committed `leaf` on `base`.
fn furnished(bench: &Bench) -> std::sync::Arc<Store> {
    let store = bench.open();
    store.prepare(NS, &active("base-active", None)).unwrap();
    store.commit_snapshot(NS, "base-active", "base", Labels::new(), None).unwrap();
    store.prepare(NS, &active("leaf-active", Some("base"))).unwrap();
    store.commit_snapshot(NS, "leaf-active", "leaf", Labels::new(), None).unwrap();
    store.prepare(NS, &active("busy", Some("base"))).unwrap();
    store.prepare(NS, &view("look", Some("base"))).unwrap();
    store.prepare(NS, &active("bare", None)).unwrap();
    store
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(got: Result<T>, expected: ErrorKind, case: &str) -> Error {
    let error = got.expect_err(case);
    assert_eq!(error.kind(), expected, "{case}: {error}");
    error
}

#[test]
fn refusals_follow_containerd() {
    use ErrorKind::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};
    let bench = Bench::new();
    let store = furnished(&bench);
    let prepare = |new: NewSnapshot| store.prepare(NS, &new).map(drop);
    let commit = |key: &str, name: &str, parent: Option<&str>| {
        store.commit_snapshot(NS, key, name, Labels::new(), parent).map(drop)
    };
    let cases: Vec<(&str, Result<()>, ErrorKind)> = vec![
        ("prepare a used key", prepare(active("busy", None)), AlreadyExists),
        ("prepare a used name", prepare(active("base", None)), AlreadyExists),
        ("view of a used key", prepare(view("look", Some("base"))), AlreadyExists),
        ("prepare on a missing parent", prepare(active("n", Some("missing"))), NotFound),
        ("prepare on an active parent", prepare(active("n", Some("busy"))), InvalidArgument),
        ("view of an active parent", prepare(view("n", Some("busy"))), InvalidArgument),
        ("view of a view", prepare(view("n", Some("look"))), InvalidArgument),
        ("empty key", prepare(active("", None)), InvalidArgument),
        ("commit of a missing key", commit("missing", "n", None), NotFound),
        ("commit under a used name", commit("busy", "base", None), AlreadyExists),
        ("commit under its own key", commit("busy", "busy", None), AlreadyExists),
        ("commit of a view", commit("look", "n", None), FailedPrecondition),
        ("commit of a committed one", commit("base", "n", None), FailedPrecondition),
        ("commit with another parent", commit("busy", "n", Some("leaf")), InvalidArgument),
        ("rebase on an active one", commit("bare", "n", Some("busy")), FailedPrecondition),
        ("rebase on a missing one", commit("bare", "n", Some("missing")), NotFound),
        ("empty name", commit("busy", "", None), InvalidArgument),
        ("mounts of a missing one", store.snapshot_mounts(NS, "missing").map(drop), NotFound),
        (
            "mounts of a committed one",
            store.snapshot_mounts(NS, "base").map(drop),
            FailedPrecondition,
        ),
        ("stat of a missing one", store.stat_snapshot(NS, "missing").map(drop), NotFound),
        ("usage of a missing one", store.snapshot_usage(NS, "missing").map(drop), NotFound),
        ("remove of a missing one", store.remove_snapshot(NS, "missing"), NotFound),
        ("remove of a parent", store.remove_snapshot(NS, "base"), FailedPrecondition),
        (
            "update of a missing one",
            store.update_snapshot(NS, "missing", LabelUpdate::Set(BTreeMap::new())).map(drop),
            NotFound,
        ),
        (
            "a label that is too long",
            prepare(NewSnapshot {
                labels: labels(&[("key", &"v".repeat(4094))]),
                ..active("n", None)
            }),
            InvalidArgument,
        ),
    ];
    for (case, got, kind) in cases {
        assert_kind(got, kind, case);
    }
    let error = store.remove_snapshot(NS, "base").unwrap_err();
    assert!(error.to_string().contains("remove"), "containerd looks for the word: {error}");
    drop(store);
    bench.assert_sound("after refused calls");
}

#[test]
fn a_snapshot_lives_as_containerd_says() {
    let bench = Bench::new();
    let store = furnished(&bench);
    let stat = |key: &str| store.stat_snapshot(NS, key).unwrap();
    for (key, kind, parent) in [
        ("base", SnapshotKind::Committed, None),
        ("leaf", SnapshotKind::Committed, Some("base")),
        ("busy", SnapshotKind::Active, Some("base")),
        ("look", SnapshotKind::View, Some("base")),
        ("bare", SnapshotKind::Active, None),
    ] {
        let info = stat(key);
        assert_eq!((info.kind, info.parent.as_deref()), (kind, parent), "{key}");
        assert_eq!(info.created, info.updated, "{key}: created is updated at first");
    }
    assert_kind(store.stat_snapshot(NS, "base-active"), ErrorKind::NotFound, "key after commit");
    assert_eq!(store.snapshot_mounts(NS, "busy").unwrap()[0].options, ["rbind", "rw"]);
    assert_eq!(store.snapshot_mounts(NS, "look").unwrap()[0].options, ["rbind", "ro"]);

    let before = stat("bare").created;
    let new =
        store.commit_snapshot(NS, "bare", "rebased", labels(&[("l", "1")]), Some("leaf")).unwrap();
    assert_eq!(new.parent.as_deref(), Some("leaf"), "the parent given at commit");
    assert_eq!(new.labels, labels(&[("l", "1")]));
    assert!(new.created > before && new.created == new.updated, "commit makes it new");
    assert!(new.usage.is_some(), "usage is frozen");
    assert_kind(
        store.remove_snapshot(NS, "leaf"),
        ErrorKind::FailedPrecondition,
        "a parent given at commit counts",
    );

    store.remove_snapshot(NS, "rebased").unwrap();
    store.remove_snapshot(NS, "leaf").unwrap();
    store.prepare(NS, &view("leaf", Some("base"))).unwrap();
    for key in ["leaf", "look", "busy", "base"] {
        store.remove_snapshot(NS, key).unwrap();
    }
    assert_eq!(bench.vfs.len(), 0, "layers are left");
    drop(store);
    bench.assert_sound("at the end");
}

#[test]
fn labels_are_not_inherited_and_change_by_mask() {
    let bench = Bench::new();
    let store = bench.open();
    let new = NewSnapshot { labels: labels(&[("a", "1"), ("b", "2")]), ..active("k", None) };
    let prepared = store.prepare(NS, &new).unwrap();
    let set = |changes: &[(&str, Option<&str>)]| {
        let changes = changes
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.map(str::to_owned)))
            .collect();
        store.update_snapshot(NS, "k", LabelUpdate::Set(changes)).unwrap()
    };
    let changed = set(&[("a", Some("3")), ("b", None), ("c", None)]);
    assert_eq!(changed.labels, labels(&[("a", "3")]));
    assert!(changed.updated > prepared.updated, "updated moves");
    assert_eq!(changed.created, prepared.created, "created stays");
    let replaced =
        store.update_snapshot(NS, "k", LabelUpdate::Replace(labels(&[("z", "")]))).unwrap();
    assert_eq!(replaced.labels, labels(&[("z", "")]));
    let committed = store.commit_snapshot(NS, "k", "n", Labels::new(), None).unwrap();
    assert_eq!(committed.labels, Labels::new(), "labels are not inherited");
}

#[test]
fn keys_are_any_strings_and_namespaces_are_apart() {
    let bench = Bench::new();
    let store = bench.open();
    let keys = ["/a/b", "..", "a\0b", "é \n", &"k".repeat(5000), "sha256:xyz"];
    for key in keys {
        store.prepare(NS, &active(key, None)).unwrap();
        store.prepare("moby", &active(key, None)).unwrap();
    }
    let error = store.prepare("moby", &active("on", Some("/a/b"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "moby's own is active: {error}");
    let mut seen = Vec::new();
    let mut note = |snapshot: &crate::catalogue::Snapshot| {
        // Another call from within, as containerd's suite does.
        assert_eq!(&store.stat_snapshot(NS, &snapshot.key).unwrap(), snapshot);
        seen.push(snapshot.key.clone());
        ControlFlow::Continue(())
    };
    store.walk_snapshots(NS, &mut note).unwrap();
    let mut expected = keys.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(seen, expected, "each key once, in order");
    for key in keys {
        store.remove_snapshot(NS, key).unwrap();
    }
    assert_eq!(bench.vfs.len(), keys.len(), "the other namespace keeps its own");
}

#[test]
fn a_walk_goes_on_past_a_batch_and_ends_when_told() {
    let bench = Bench::new();
    let store = bench.open();
    for number in 0..600 {
        store.prepare(NS, &active(&format!("{number:04}"), None)).unwrap();
    }
    let mut seen = 0;
    store
        .walk_snapshots(NS, &mut |_| {
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 600);
    seen = 0;
    let mut until = |_: &crate::catalogue::Snapshot| {
        seen += 1;
        if seen == 300 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.walk_snapshots(NS, &mut until).unwrap();
    assert_eq!(seen, 300);
    store.walk_snapshots("another", &mut |_| unreachable!("an empty namespace")).unwrap();
}

#[test]
fn a_failing_driver_leaves_no_row_and_no_layer() {
    let bench = Bench::new();
    let store = furnished(&bench);
    let layers = bench.vfs.len();
    bench.vfs.fail("create", 0, ErrorKind::NoSpace);
    assert_kind(store.prepare(NS, &active("new", None)), ErrorKind::NoSpace, "create");
    assert_kind(store.stat_snapshot(NS, "new"), ErrorKind::NotFound, "after a failed create");
    bench.vfs.fail("commit", 0, ErrorKind::Io);
    let commit = store.commit_snapshot(NS, "busy", "n", Labels::new(), None);
    assert_kind(commit, ErrorKind::Io, "commit");
    assert_eq!(store.stat_snapshot(NS, "busy").unwrap().kind, SnapshotKind::Active);
    bench.vfs.fail("remove", 0, ErrorKind::InUse);
    assert_kind(store.remove_snapshot(NS, "busy"), ErrorKind::InUse, "remove");
    assert!(store.stat_snapshot(NS, "busy").is_ok(), "it is still there");
    assert_eq!(bench.vfs.len(), layers);
    drop(store);
    bench.assert_sound("after failures");
}

#[test]
fn an_image_layer_is_a_parent_by_its_chain() {
    let bench = Bench::new();
    let store = bench.open();
    let archive = Archive::of("app", &[layer_tar("a", "1"), layer_tar("b", "2")]);
    let image = bench.import(&store, &archive).unwrap().remove(0).image;
    let top = image.layers[1].to_string();
    store.prepare(NS, &active("k", Some(&top))).unwrap();
    let elsewhere = NewSnapshot { driver: Some("overlay2".into()), ..active("o", Some(&top)) };
    assert_kind(store.prepare(NS, &elsewhere), ErrorKind::NotFound, "in a driver without it");
    store.remove_image("app", false).unwrap();
    assert_eq!(bench.vfs.len(), 3, "the layers stay while a snapshot lies on them");
    store.remove_snapshot(NS, "k").unwrap();
    assert_eq!(bench.vfs.len(), 0, "the last snapshot takes the layers along");
    drop(store);
    bench.assert_sound("at the end");
}

#[test]
fn prepare_and_remove_from_many_threads_keep_the_store_sound() {
    let bench = Bench::new();
    let store = furnished(&bench);
    let layers = bench.vfs.len();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..50 {
                    // Two threads at a time fight for one key.
                    let key = format!("{}-{round}", thread / 2);
                    let _ = store.prepare(NS, &active(&key, Some("base")));
                    let _ = store.remove_snapshot(NS, &key);
                }
            });
        }
        scope.spawn(|| (0..20).for_each(|_| drop(store.gc().unwrap())));
    });
    for key in (0..2).flat_map(|t| (0..50).map(move |r| format!("{t}-{r}"))) {
        let _ = store.remove_snapshot(NS, &key);
    }
    assert_eq!(bench.vfs.len(), layers, "layers are left or lost");
    drop(store);
    bench.assert_sound("after a fight");
}
