use std::sync::Mutex;
use std::sync::atomic::Ordering;

use drivers::{CreateOptions, LayerId, LayerRecord};
use serde_json::json;

use super::*;
use crate::testing::{Archive, Bench, Memory, NEEDS_LOWER, layer_tar};

fn layers(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| layer_tar(name, name)).collect()
}

fn options(name: Option<&str>) -> ImportOptions {
    ImportOptions { name: name.map(str::to_owned), ..ImportOptions::default() }
}

#[test]
fn a_layer_is_applied_once_whoever_has_it() {
    let bench = Bench::new();
    let store = bench.open();
    let archive = Archive::default()
        .and(&["one"], json!({"Cmd": ["1"]}), &layers(&["a", "b"]))
        .and(&["two"], json!({"Cmd": ["2"]}), &layers(&["a", "c"]));
    let both = bench.import(&store, &archive).unwrap();
    assert_eq!((both.len(), bench.vfs.applied()), (2, 3), "the layer that both have");
    assert_eq!(both[0].image.layers[0], both[1].image.layers[0]);
    let more = bench.import(&store, &Archive::of("three", &layers(&["a", "b", "d"]))).unwrap();
    assert_eq!((more[0].new_layers, bench.vfs.applied()), (1, 4), "two of three were there");

    let states = Mutex::new(Vec::new());
    let path = archive.write(&bench.scratch());
    let note = |progress: ImportProgress| {
        if let ImportProgress::Layer { index, state, .. } = progress {
            states.lock().unwrap().push((index, state));
        }
    };
    let again = store.import(&path, &ImportOptions::default(), &note).unwrap();
    assert_eq!((again[0].new_layers, again[1].new_layers, bench.vfs.applied()), (0, 0, 4));
    let exists = LayerState::Exists;
    let expected = [(0, exists), (1, exists), (0, exists), (1, exists)];
    assert_eq!(*states.lock().unwrap(), expected);
    drop(store);
    bench.assert_sound("after imports");
}

#[test]
fn the_rows_say_what_the_archive_says() {
    let bench = Bench::new();
    let store = bench.open();
    let config = json!({"Cmd": ["sh"], "Labels": {"k": "v"}});
    let tars = layers(&["a", "b"]);
    let archive = Archive::default().and(&["debian:12", "x.io/y:z"], config, &tars);
    let image = bench.import(&store, &archive).unwrap().remove(0).image;
    let names: Vec<&str> = image.names.iter().map(String::as_str).collect();
    assert_eq!(names, ["docker.io/library/debian:12", "x.io/y:z"]);
    assert_eq!(image.platform, "linux/amd64");
    assert_eq!(image.created.as_deref(), Some("2024-01-02T03:04:05Z"));
    assert_eq!(image.labels["k"], "v");
    let halves: u64 = tars.iter().map(|tar| tar.len() as u64 / 2).sum();
    assert_eq!(image.size, halves, "the content of all layers");
    let diffs: Vec<DiffId> = tars.iter().map(|tar| DiffId::new(Digest::of(tar))).collect();
    assert_eq!(Some(image.layers[1]), ChainId::of_stack(&diffs));
    let row = store.image_layer("vfs", &image.layers[1]).unwrap();
    assert_eq!((row.diff_id, row.parent), (diffs[1], Some(image.layers[0])));
    assert_eq!(row.tar_size, tars[1].len() as u64);
    assert_eq!(Digest::of(&store.image_config(&image.id).unwrap()), image.id);
}

#[test]
fn imports_at_the_same_time_share_their_work() {
    let bench = Bench::new();
    let store = bench.open();
    let (a, b) = (layers(&["a1", "a2", "a3"]), layers(&["b1", "b2", "b3"]));
    // Each has what the other has, in the other order: whoever waits must not be waited for.
    let (ca, cb) = (json!({"Cmd": ["a"]}), json!({"Cmd": ["b"]}));
    let one = Archive::default().and(&["a"], ca.clone(), &a).and(&["b"], cb.clone(), &b);
    let two = Archive::default().and(&["b"], cb, &b).and(&["a"], ca, &a);
    let paths = [one.write(&bench.scratch()), two.write(&bench.scratch())];
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (store, path) = (&store, &paths[thread % 2]);
            scope.spawn(move || store.import(path, &ImportOptions::default(), &|_| {}).unwrap());
        }
    });
    assert_eq!(bench.vfs.applied(), 6, "every layer once");
    assert_eq!((store.images().unwrap().len(), bench.vfs.len()), (2, 6));
    drop(store);
    bench.assert_sound("after imports at the same time");
}

#[test]
fn imports_removals_and_collections_at_the_same_time_leave_nothing_half() {
    let bench = Bench::new();
    let store = bench.open();
    let path = Archive::of("app", &layers(&["a", "b", "c"])).write(&bench.scratch());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..30 {
                    store.import(&path, &ImportOptions::default(), &|_| {}).unwrap();
                    let _ = store.remove_image("app", false);
                }
            });
        }
        scope.spawn(|| (0..60).for_each(|_| drop(store.gc().unwrap())));
    });
    store.import(&path, &ImportOptions::default(), &|_| {}).unwrap();
    assert_eq!(bench.vfs.len(), 3);
    drop(store);
    bench.assert_sound("after a fight");
}

#[test]
fn whatever_fails_leaves_nothing_and_is_named() {
    for in_order in [false, true] {
        for op in ["create", "apply", "commit"] {
            for nth in 0..4 {
                let case = format!("{op} number {nth}, in order: {in_order}");
                let bench = Bench::new();
                bench.vfs.in_order.store(in_order, Ordering::Relaxed);
                let store = bench.open();
                bench.import(&store, &Archive::of("base", &layers(&["a"]))).unwrap();
                let path =
                    Archive::of("app", &layers(&["a", "b", "c", "d", "e"])).write(&bench.scratch());
                bench.vfs.fail(op, nth, ErrorKind::NoSpace);
                let error = store.import(&path, &options(None), &|_| {}).unwrap_err();
                assert!(!bench.vfs.fault_pending(), "{case}: it did not come about");
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{case}: {error}");
                let text = error.to_string();
                assert!(text.contains(path.to_str().unwrap()), "{case}: {text} names no file");
                assert!(op == "commit" || text.contains("layer "), "{case}: {text}: no layer");
                assert!(op == "commit" || text.contains("sha256:"), "{case}: {text}: no diffID");
                assert_eq!(bench.vfs.len(), 1, "{case}: layers are left");
                assert_eq!(store.images().unwrap().len(), 1, "{case}");
                let again = store.import(&path, &options(None), &|_| {}).unwrap();
                assert_eq!(again[0].new_layers, 4, "{case}: the next import");
                drop(store);
                bench.assert_sound(&case);
            }
        }
    }
}

#[test]
fn an_image_that_cannot_be_entered_takes_the_others_back() {
    let bench = Bench::new();
    let store = bench.open();
    let archive = Archive::default().and(&["one"], json!({"Cmd": ["1"]}), &layers(&["a"])).and(
        &["two"],
        json!({"Cmd": ["2"]}),
        &layers(&["a", "b"]),
    );
    let second = bench.import(&store, &archive).unwrap().remove(1).image;
    for name in ["one", "two"] {
        store.remove_image(name, false).unwrap();
    }
    let obstacle = bench.root().join("images").join(second.id.hex());
    std::fs::write(&obstacle, "in the way").unwrap();
    bench.import(&store, &archive).unwrap_err();
    assert_eq!(store.images().unwrap(), [], "the first image");
    assert_eq!(bench.vfs.len(), 0, "its layers");
    std::fs::remove_file(&obstacle).unwrap();
    bench.import(&store, &archive).unwrap();
    drop(store);
    bench.assert_sound("after a retry");
}

#[test]
fn damage_is_told_by_its_place() {
    let bench = Bench::new();
    let store = bench.open();
    let tars = layers(&["a", "b", "c"]);
    let path = Archive::of("app", &tars).spoiling(&tars[1]).write(&bench.scratch());
    let error = store.import(&path, &options(None), &|_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let (text, diff_id) = (error.to_string(), Digest::of(&tars[1]).to_string());
    let place = format!("{}: layer 1 ({diff_id})", path.display());
    assert!(text.contains(&place), "{text} does not say {place}");
    assert_eq!(bench.vfs.len(), 0, "layers are left");

    let missing = bench.scratch().join("missing.tar");
    let error = store.import(&missing, &options(None), &|_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("missing.tar"), "{error}");
    drop(store);
    bench.assert_sound("after refused archives");
}

#[test]
fn a_layer_that_needs_its_parent_follows_it() {
    let lower = |name: &str| layer_tar(name, NEEDS_LOWER);
    let plain = |name: &str| layer_tar(name, name);
    let cases = [
        ("in the middle", vec![plain("a"), lower("b"), plain("c")]),
        ("on top", vec![plain("a"), plain("b"), lower("c")]),
        ("two in a row", vec![plain("a"), lower("b"), lower("c"), plain("d")]),
        ("all but the first", vec![plain("a"), lower("b"), lower("c")]),
    ];
    for (case, tars) in cases {
        let bench = Bench::new();
        let store = bench.open();
        let image = bench.import(&store, &Archive::of("app", &tars)).unwrap().remove(0);
        assert_eq!(image.new_layers, tars.len(), "{case}");
        assert_eq!((bench.vfs.applied(), bench.vfs.len()), (tars.len(), tars.len()), "{case}");
        drop(store);
        bench.assert_sound(case);
    }
    let bench = Bench::new();
    let store = bench.open();
    let error = bench.import(&store, &Archive::of("app", &[lower("a")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "nothing is below: {error}");
    assert_eq!(bench.vfs.len(), 0);
}

#[test]
fn names_and_platforms_are_the_callers() {
    let bench = Bench::new();
    let store = bench.open();
    let path = Archive::of("app", &layers(&["a"])).write(&bench.scratch());
    let image = store.import(&path, &options(Some("mine:1")), &|_| {}).unwrap().remove(0).image;
    let names: Vec<&str> = image.names.iter().map(String::as_str).collect();
    assert_eq!(names, ["docker.io/library/mine:1"], "in place of the archive's");
    let two = Archive::of("a", &layers(&["a"])).and(&["b"], json!({}), &layers(&["b"]));
    let two = two.write(&bench.scratch());
    let on = |platform: &str| ImportOptions { platform: Some(platform.into()), ..options(None) };
    let into = |driver: &str| ImportOptions { driver: Some(driver.into()), ..options(None) };
    let cases = [
        (&two, options(Some("one")), ErrorKind::InvalidArgument),
        (&path, options(Some("A")), ErrorKind::InvalidArgument),
        (&path, on("linux/s390x"), ErrorKind::NotFound),
        (&path, on("///"), ErrorKind::InvalidArgument),
        (&path, into("zfs"), ErrorKind::InvalidArgument),
    ];
    for (path, options, kind) in cases {
        let error = store.import(path, &options, &|_| {}).unwrap_err();
        assert_eq!(error.kind(), kind, "{options:?}: {error}");
    }
    assert_eq!(store.images().unwrap().len(), 1, "a refused import left an image");
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let bench = Bench::new();
    let store = bench.open();
    let path = bench.scratch().join("rootfs.tar");
    std::fs::write(&path, layer_tar("bin/sh", "#!")).unwrap();
    let first = store.import(&path, &options(Some("root")), &|_| {}).unwrap().remove(0);
    assert_eq!((first.new_layers, first.image.layers.len()), (1, 1));
    let second = store.import(&path, &options(None), &|_| {}).unwrap().remove(0);
    assert_eq!((second.new_layers, second.image.id), (0, first.image.id), "the same again");
    assert_eq!(bench.vfs.len(), 1);
    bench.vfs.fail("apply", 0, ErrorKind::NoSpace);
    let error = store.import(&path, &options(None), &|_| {}).unwrap_err();
    assert_eq!((error.kind(), bench.vfs.len()), (ErrorKind::NoSpace, 1), "{error}");
    drop(store);
    bench.assert_sound("after a root file system");
}

#[test]
fn what_a_killed_import_leaves_goes_at_the_next_start() {
    let label = crate::catalogue::owner::Owner::of_image;
    for committed in 0..4 {
        let bench = Bench::new();
        drop(bench.open());
        // As an import in order leaves them: the lower layers committed, the next one on them active.
        let driver = Memory::new("vfs", &bench.vfs);
        let (mut below, mut chain) = (None, None::<ChainId>);
        for number in 0..=committed {
            let id: LayerId = number.to_string().parse().unwrap();
            let labels = label(0).to_labels().unwrap();
            let options = CreateOptions { labels, ..CreateOptions::active() };
            driver.create(&id, below.as_ref(), &options).unwrap();
            if number < committed {
                let diff_id = DiffId::new(Digest::of(id.as_str().as_bytes()));
                chain = Some(chain.map_or(ChainId::base(&diff_id), |below| below.push(&diff_id)));
                let record = LayerRecord {
                    diff_id: Some(diff_id),
                    chain_id: chain,
                    labels: label(1).to_labels().unwrap(),
                    ..LayerRecord::default()
                };
                driver.commit(&id, &record).unwrap();
            }
            below = Some(id);
        }
        let looked = bench.check(false);
        assert_eq!(looked.findings.len(), committed + 1, "{committed} committed: {looked:?}");
        drop(bench.open());
        assert_eq!(bench.vfs.len(), 0, "{committed} committed: layers are left");
        bench.assert_sound("after a start");
    }
}
