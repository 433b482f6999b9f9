use std::fs;

use serde_json::json;

use crate::catalogue::Labels;
use crate::error::ErrorKind;
use crate::store::{NewContainer, Store};
use crate::testing::{Archive, Bench, active, layer_tar, view};

/// Everything that clients can see.
fn seen(store: &Store) -> String {
    let mut snapshots = Vec::new();
    for namespace in ["layerd", "moby"] {
        let mut note = |snapshot: &crate::catalogue::Snapshot| {
            snapshots.push(format!("{namespace} {snapshot:?}"));
            std::ops::ControlFlow::Continue(())
        };
        store.walk_snapshots(namespace, &mut note).unwrap();
    }
    let (images, containers) = (store.images().unwrap(), store.containers().unwrap());
    format!("{images:#?}\n{containers:#?}\n{snapshots:#?}\n{:?}", store.counts().unwrap())
}

fn furnished(bench: &Bench) -> std::sync::Arc<Store> {
    let store = bench.open();
    let archive = Archive::default()
        .and(&["app", "app:1"], json!({"Cmd": ["sh"]}), &[layer_tar("a", "1"), layer_tar("b", "2")])
        .and(&[], json!({"Cmd": ["x"]}), &[layer_tar("a", "1")]);
    bench.import(&store, &archive).unwrap();
    let new = NewContainer { image: "app".into(), ..NewContainer::default() };
    store.create_container(&new).unwrap();
    store.prepare("moby", &active("one", None)).unwrap();
    let labels = Labels::from([("k".to_owned(), "v".to_owned())]);
    store.commit_snapshot("moby", "one", "base", labels, None).unwrap();
    store.prepare("moby", &active("two", Some("base"))).unwrap();
    store.prepare("moby", &view("three", Some("base"))).unwrap();
    store
}

type Damage = fn(&std::path::Path);

#[test]
fn a_lost_catalogue_is_rebuilt_whole() {
    let damages: [(&str, Damage); 4] = [
        ("deleted", |file| fs::remove_file(file).unwrap()),
        ("emptied", |file| fs::write(file, "").unwrap()),
        ("overwritten", |file| fs::write(file, "x".repeat(100_000)).unwrap()),
        ("damaged in the middle", |file| {
            let mut bytes = fs::read(file).unwrap();
            // The roots of both commit slots, so that no older state is left to fall back on.
            bytes[64..320].fill(0xa5);
            fs::write(file, bytes).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let bench = Bench::new();
        let store = furnished(&bench);
        let before = seen(&store);
        drop(store);
        damage(&bench.root().join("catalogue.redb"));
        let store = bench.open();
        assert_eq!(seen(&store), before, "catalogue {what}");
        drop(store);
        bench.assert_sound(what);
    }
}

#[test]
fn what_a_crash_takes_from_the_catalogue_is_found_again() {
    let bench = Bench::new();
    let store = furnished(&bench);
    drop(store);
    // The catalogue as it was before the last calls.
    let file = bench.root().join("catalogue.redb");
    let old = fs::read(&file).unwrap();
    let store = bench.open();
    store.prepare("moby", &active("late", Some("base"))).unwrap();
    store.remove_snapshot("moby", "three").unwrap();
    store.commit_snapshot("moby", "two", "second", Labels::new(), None).unwrap();
    let new = NewContainer { image: "app".into(), ..NewContainer::default() };
    store.create_container(&new).unwrap();
    let gone = store.containers().unwrap()[1].id.clone();
    store.remove_container(&gone).unwrap();
    store.tag("app", "more").unwrap();
    let archive = Archive::of("new", &[layer_tar("n", "1")]);
    bench.import(&store, &archive).unwrap();
    store.remove_image("app:1", false).unwrap();
    let before = seen(&store);
    drop(store);
    fs::write(&file, old).unwrap();
    let store = bench.open();
    assert_eq!(seen(&store), before);
    drop(store);
    bench.assert_sound("after a restart with an old catalogue");
}

#[test]
fn the_default_driver_is_never_guessed() {
    let bench = Bench::new();
    drop(bench.try_open(Some("vfs")).unwrap());
    let store = bench.try_open(None).unwrap();
    assert_eq!(store.default_driver(), "vfs", "the one that was it before");
    assert!(store.driver(Some("overlay2")).is_ok(), "another one beside it");
    drop(store);
    let format = bench.root().join("format.json");
    fs::write(&format, r#"{"version":1}"#).unwrap();
    let error = bench.try_open(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.to_string().contains("overlay2, vfs"), "{error}");
    fs::remove_dir_all(bench.root().join("overlay2")).unwrap();
    let store = bench.try_open(None).unwrap();
    assert_eq!(store.default_driver(), "vfs", "the only one with layers");
    let error = store.driver(Some("zfs")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let error = bench.try_open(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "opened twice: {error}");
}

#[test]
fn ids_go_on_after_a_restart() {
    let bench = Bench::new();
    let store = bench.open();
    for number in 0..40 {
        store.prepare("moby", &active(&number.to_string(), None)).unwrap();
    }
    let last = store.stat_snapshot("moby", "39").unwrap().layer;
    assert_eq!(last.as_str(), "14", "forty in base 36");
    drop(store);
    let store = bench.open();
    let next = store.prepare("moby", &active("next", None)).unwrap().layer;
    assert_eq!(next.as_str(), "15");
}
