use std::sync::Arc;

use cow::digest::ChainId;

use crate::catalogue::{Image, Labels, Snapshot, SnapshotKind};
use crate::error::{ErrorKind, Result};
use crate::store::{LabelUpdate, NewSnapshot, Store};
use crate::testing::{Archive, Bench, active, layer_tar, view};

const NS: &str = "containerd/one";
const OTHER: &str = "containerd/two";

fn two_layers(bench: &Bench) -> (Arc<Store>, Image) {
    let store = bench.open();
    let archive = Archive::of("app", &[layer_tar("a", "1"), layer_tar("b", "2")]);
    let image = bench.import(&store, &archive).unwrap().remove(0).image;
    (store, image)
}

fn labelled(label: &str) -> Labels {
    Labels::from([("ref".to_owned(), label.to_owned())])
}

fn share(
    store: &Store,
    namespace: &str,
    parent: Option<&Snapshot>,
    chain: ChainId,
) -> Result<Option<Snapshot>> {
    let parent = parent.map(|parent| parent.key.as_str());
    let labels = labelled(&chain.to_string());
    store.share_layer(namespace, &NewSnapshot { labels, ..active("extract", parent) }, chain)
}

/// Shares both layers of an image.
fn share_both(store: &Store, namespace: &str, image: &Image) -> [Snapshot; 2] {
    let base = share(store, namespace, None, image.layers[0]).unwrap().expect("the base");
    let top = share(store, namespace, Some(&base), image.layers[1]).unwrap().expect("the top");
    [base, top]
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_layer_of_an_image_is_a_committed_snapshot_to_others() {
    let bench = Bench::new();
    let (store, image) = two_layers(&bench);
    let counts = store.counts().unwrap();
    let [base, top] = share_both(&store, NS, &image);
    for (snapshot, chain) in [(&base, image.layers[0]), (&top, image.layers[1])] {
        assert_eq!(snapshot.kind, SnapshotKind::Committed, "{chain}");
        assert_eq!(snapshot.labels, labelled(&chain.to_string()), "{chain}");
        assert_eq!(store.stat_snapshot(NS, &snapshot.key).unwrap(), *snapshot, "{chain}");
        let usage = store.image_layer("vfs", &chain).unwrap().usage;
        assert_eq!(store.snapshot_usage(NS, &snapshot.key).unwrap(), usage, "{chain}");
    }
    assert_eq!(top.parent.as_deref(), Some(&*base.key));
    assert_eq!(share_both(&store, NS, &image), [base.clone(), top.clone()], "asked again");
    assert_eq!(store.counts().unwrap().layers, counts.layers, "no layer is counted twice");
    assert_eq!(bench.vfs.applied(), 2, "nothing was applied again");

    let on_top = |new: NewSnapshot| store.prepare(NS, &new).map(drop);
    on_top(active("work", Some(&top.key))).unwrap();
    on_top(view("look", Some(&base.key))).unwrap();
    for key in [&top.key, &base.key] {
        let error = store.remove_snapshot(NS, key).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        assert!(error.to_string().contains("remove"), "containerd looks for the word: {error}");
    }
    for key in ["work", "look", &top.key, &base.key] {
        store.remove_snapshot(NS, key).unwrap();
    }
    assert_eq!(bench.vfs.len(), 2, "the image keeps its layers");
    store.remove_image("app", false).unwrap();
    assert_eq!(bench.vfs.len(), 0);
    drop(store);
    bench.assert_sound("at the end");
}

#[test]
fn only_the_very_layer_on_the_very_parent_is_shared() {
    let bench = Bench::new();
    let (store, image) = two_layers(&bench);
    let [bottom, top] = [image.layers[0], image.layers[1]];
    store.prepare(NS, &active("unpacking", None)).unwrap();
    assert_eq!(share(&store, NS, None, top).unwrap(), None, "without its parent");
    let own = store.commit_snapshot(NS, "unpacking", "unpacked", Labels::new(), None).unwrap();
    assert_eq!(share(&store, NS, Some(&own), top).unwrap(), None, "on a copy of its parent");
    let nobody = Snapshot { key: "nobody".to_owned(), ..own };
    assert_eq!(share(&store, NS, Some(&nobody), top).unwrap(), None, "on nothing");
    let elsewhere = NewSnapshot { driver: Some("overlay2".to_owned()), ..active("x", None) };
    assert_eq!(store.share_layer(NS, &elsewhere, bottom).unwrap(), None, "in another driver");
    let unknown = ChainId::new(cow::digest::Digest::of(b"unknown"));
    assert_eq!(share(&store, NS, None, unknown).unwrap(), None, "a layer of no image");
    let long = NewSnapshot { labels: labelled(&"x".repeat(4096)), ..active("x", None) };
    let long = store.share_layer(NS, &long, bottom);
    assert_eq!(kind(long), Some(ErrorKind::InvalidArgument), "a label that is too long");

    // A client that has the key by chance.
    let key = share(&store, OTHER, None, bottom).unwrap().expect("the base").key;
    store.prepare(NS, &active(&key, None)).unwrap();
    assert_eq!(share(&store, NS, None, bottom).unwrap(), None, "its key is taken");
}

#[test]
fn a_layer_stays_as_long_as_anybody_holds_it() {
    let bench = Bench::new();
    let (mut store, image) = two_layers(&bench);
    let [base, top] = share_both(&store, NS, &image);
    let others = share_both(&store, OTHER, &image);
    let images_base = store.prepare("v1", &active("v1", Some(&image.layers[1].to_string())));
    images_base.unwrap();
    store.remove_snapshot("v1", "v1").unwrap();
    store.remove_image("app", false).unwrap();
    store.gc().unwrap();
    assert_eq!(bench.vfs.len(), 2, "two namespaces hold them");
    let again = Archive::of("app", &[layer_tar("a", "1"), layer_tar("b", "2")]);
    assert_eq!(bench.import(&store, &again).unwrap()[0].new_layers, 0, "they are there");
    store.remove_image("app", false).unwrap();

    // With the catalogue and without it.
    for lose in [false, true] {
        drop(store);
        bench.assert_sound("while layers are shared");
        if lose {
            std::fs::remove_file(bench.root().join("catalogue.redb")).unwrap();
            bench.check(true);
        }
        store = bench.open();
        assert_eq!(store.stat_snapshot(NS, &top.key).unwrap(), top, "lost catalogue: {lose}");
        assert_eq!(bench.vfs.len(), 2, "lost catalogue: {lose}");
    }
    for key in [&top.key, &base.key] {
        store.remove_snapshot(NS, key).unwrap();
    }
    assert_eq!(bench.vfs.len(), 2, "the other namespace holds them");
    store.remove_snapshot(OTHER, &others[1].key).unwrap();
    assert_eq!(bench.vfs.len(), 1, "nobody holds the upper one");
    store.remove_snapshot(OTHER, &others[0].key).unwrap();
    assert_eq!(bench.vfs.len(), 0);
    drop(store);
    bench.assert_sound("at the end");
}

#[test]
fn failures_leave_what_there_was() {
    let bench = Bench::new();
    let (store, image) = two_layers(&bench);
    bench.vfs.fail("relabel", 0, ErrorKind::NoSpace);
    let shared = share(&store, NS, None, image.layers[0]);
    assert_eq!(kind(shared), Some(ErrorKind::NoSpace));
    let [base, top] = share_both(&store, NS, &image);
    bench.vfs.fail("relabel", 0, ErrorKind::Io);
    assert_eq!(kind(store.remove_snapshot(NS, &top.key)), Some(ErrorKind::Io));
    bench.vfs.fail("relabel", 0, ErrorKind::Io);
    let update = LabelUpdate::Replace(labelled("new"));
    assert_eq!(kind(store.update_snapshot(NS, &base.key, update.clone())), Some(ErrorKind::Io));
    for snapshot in [&base, &top] {
        assert_eq!(store.stat_snapshot(NS, &snapshot.key).unwrap(), *snapshot);
    }
    let update = store.update_snapshot(NS, &base.key, update).unwrap();
    assert_eq!(update.labels, labelled("new"));
    drop(store);
    bench.assert_sound("after failures");
}

#[test]
fn sharing_is_as_the_metadata_files_tell() {
    let bench = Bench::new();
    let (store, image) = two_layers(&bench);
    let [base, top] = share_both(&store, NS, &image);
    drop(store);
    let catalogue = bench.root().join("catalogue.redb");
    let shared = std::fs::read(&catalogue).unwrap();

    let store = bench.open();
    store.remove_snapshot(NS, &top.key).unwrap();
    let update = LabelUpdate::Set([("more".to_owned(), Some("1".to_owned()))].into());
    let changed = store.update_snapshot(NS, &base.key, update).unwrap();
    drop(store);
    // A crash before the removal and the change of labels were in the catalogue.
    std::fs::write(&catalogue, &shared).unwrap();
    bench.assert_sound("with a catalogue that is behind");
    let store = bench.open();
    assert_eq!(kind(store.stat_snapshot(NS, &top.key)), Some(ErrorKind::NotFound));
    assert_eq!(store.stat_snapshot(NS, &base.key).unwrap(), changed);
    store.remove_snapshot(NS, &base.key).unwrap();
    store.remove_image("app", false).unwrap();
    assert_eq!(bench.vfs.len(), 0, "who lies on what is right again");
}

#[test]
fn labels_survive_the_loss_of_the_catalogue() {
    let bench = Bench::new();
    let store = bench.open();
    store.prepare(NS, &active("a", None)).unwrap();
    store.commit_snapshot(NS, "a", "committed", labelled("old"), None).unwrap();
    store.prepare(NS, &active("active", Some("committed"))).unwrap();
    store.prepare(NS, &view("view", Some("committed"))).unwrap();
    let changed = ["committed", "active", "view"]
        .map(|key| store.update_snapshot(NS, key, LabelUpdate::Replace(labelled(key))).unwrap());
    drop(store);
    std::fs::remove_file(bench.root().join("catalogue.redb")).unwrap();
    bench.check(true);
    let store = bench.open();
    for snapshot in changed {
        assert_eq!(store.stat_snapshot(NS, &snapshot.key).unwrap(), snapshot);
    }
}

#[test]
fn sharing_from_many_threads_keeps_the_store_sound() {
    let bench = Bench::new();
    let (store, image) = two_layers(&bench);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, image) = (&store, &image);
            scope.spawn(move || {
                let namespace = [NS, OTHER][thread % 2];
                for round in 0..50 {
                    let Ok(Some(base)) = share(store, namespace, None, image.layers[0]) else {
                        continue;
                    };
                    let key = format!("{thread}-{round}");
                    let _ = store.prepare(namespace, &active(&key, Some(&base.key)));
                    let _ = store.remove_snapshot(namespace, &base.key);
                    let _ = store.remove_snapshot(namespace, &key);
                }
            });
        }
        scope.spawn(|| (0..20).for_each(|_| drop(store.gc().unwrap())));
    });
    for namespace in [NS, OTHER] {
        if let Some(base) = share(&store, namespace, None, image.layers[0]).unwrap() {
            store.remove_snapshot(namespace, &base.key).unwrap();
        }
    }
    store.remove_image("app", false).unwrap();
    store.gc().unwrap();
    assert_eq!(bench.vfs.len(), 0, "layers are left or lost");
    drop(store);
    bench.assert_sound("after a fight");
}
