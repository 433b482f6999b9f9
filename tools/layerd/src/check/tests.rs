use std::fs;

use crate::catalogue::{Container, Image, Labels, Snapshot};
use crate::error::ErrorKind;
use crate::store::NewContainer;
use crate::testing::{Archive, Bench, active, layer_tar};

/// A store that nobody has open, and what is in it.
struct Furnished {
    bench: Bench,
    image: Image,
    top: drivers::LayerId,
    container: Container,
    base: Snapshot,
    busy: Snapshot,
}

fn furnished() -> Furnished {
    let bench = Bench::new();
    let store = bench.open();
    let archive = Archive::of("app", &[layer_tar("a", "1"), layer_tar("b", "2")]);
    let image = bench.import(&store, &archive).unwrap().remove(0).image;
    let other = Archive::of("other", &[layer_tar("a", "1"), layer_tar("c", "3")]);
    bench.import(&store, &other).unwrap();
    let new = NewContainer { image: "other".into(), ..NewContainer::default() };
    let container = store.create_container(&new).unwrap();
    store.prepare("moby", &active("one", None)).unwrap();
    let base = store.commit_snapshot("moby", "one", "base", Labels::new(), None).unwrap();
    let busy = store.prepare("moby", &active("busy", None)).unwrap();
    let top = store.image_layer("vfs", &image.layers[1]).unwrap().layer;
    Furnished { bench, image, top, container, base, busy }
}

struct Case {
    what: &'static str,
    damage: fn(&Furnished),
    /// Parts of what is found, each in a finding of its own.
    found: &'static [&'static str],
    /// Whether something that was promised is gone.
    lost: bool,
    /// How many of the two images there are after a repair.
    images: usize,
}

fn image_file(f: &Furnished, name: &str) -> std::path::PathBuf {
    f.bench.root().join("images").join(f.image.id.hex()).join(name)
}

const CASES: &[Case] = &[
    Case { what: "nothing", damage: |_| {}, found: &[], lost: false, images: 2 },
    Case {
        what: "no format",
        damage: |f| fs::remove_file(f.bench.root().join("format.json")).unwrap(),
        found: &["format.json is missing"],
        lost: true,
        images: 2,
    },
    Case {
        what: "no catalogue",
        damage: |f| fs::remove_file(f.bench.root().join("catalogue.redb")).unwrap(),
        found: &["catalogue.redb is missing"],
        lost: true,
        images: 2,
    },
    Case {
        what: "a catalogue of another kind",
        damage: |f| fs::write(f.bench.root().join("catalogue.redb"), "x".repeat(9000)).unwrap(),
        found: &["catalogue.redb is damaged"],
        lost: true,
        images: 2,
    },
    Case {
        what: "no image.json",
        damage: |f| fs::remove_file(image_file(f, "image.json")).unwrap(),
        found: &["image.json is missing or damaged"],
        lost: false,
        images: 2,
    },
    Case {
        what: "a cut image.json",
        damage: |f| fs::write(image_file(f, "image.json"), "{\"names\"").unwrap(),
        found: &["image.json is missing or damaged"],
        lost: false,
        images: 2,
    },
    Case {
        what: "another config",
        damage: |f| fs::write(image_file(f, "config.json"), "{}").unwrap(),
        found: &["the digest of config.json", "cannot be kept"],
        lost: true,
        images: 1,
    },
    Case {
        what: "no config",
        damage: |f| fs::remove_file(image_file(f, "config.json")).unwrap(),
        found: &["not found", "cannot be kept"],
        lost: true,
        images: 1,
    },
    Case {
        what: "no image files",
        damage: |f| fs::remove_dir_all(image_file(f, "")).unwrap(),
        found: &["has no files", "is in no image"],
        lost: false,
        images: 1,
    },
    Case {
        what: "a stray directory",
        damage: |f| fs::create_dir(f.bench.root().join("images/stray")).unwrap(),
        found: &["images/stray is no image"],
        lost: false,
        images: 2,
    },
    Case {
        what: "a lost layer of an image",
        damage: |f| f.bench.vfs.lose(&f.top),
        found: &["layers are missing in vfs"],
        lost: true,
        images: 1,
    },
    Case {
        what: "a lost committed snapshot",
        damage: |f| f.bench.vfs.lose(&f.base.layer),
        found: &["snapshot \"base\" of moby: its layer"],
        lost: true,
        images: 2,
    },
    Case {
        what: "a lost active snapshot",
        damage: |f| f.bench.vfs.lose(&f.busy.layer),
        found: &["snapshot \"busy\" of moby: its layer"],
        lost: false,
        images: 2,
    },
    Case {
        what: "a lost container",
        damage: |f| {
            let store = f.bench.open();
            let layer = store.stat_snapshot("layerd", &f.container.id).unwrap().layer;
            drop(store);
            f.bench.vfs.lose(&layer);
        },
        found: &["its layer", "lost its snapshot"],
        lost: false,
        images: 2,
    },
    Case {
        what: "a layer of nobody",
        damage: |f| {
            fs::remove_file(f.bench.root().join("catalogue.redb")).unwrap();
            f.bench.vfs.forget_owner(&f.busy.layer);
        },
        found: &["catalogue.redb is missing", "belongs to nobody"],
        lost: true,
        images: 2,
    },
];

#[test]
fn every_damage_is_found_named_and_mended() {
    for Case { what, damage, found, lost, images } in CASES {
        let furnished = furnished();
        damage(&furnished);
        let bench = &furnished.bench;
        let report = bench.check(false);
        let problems: Vec<&str> = report.findings.iter().map(|f| f.problem.as_str()).collect();
        assert_eq!(problems.len(), found.len(), "{what}: {problems:#?}");
        for (part, finding) in found.iter().zip(&report.findings) {
            assert!(finding.problem.contains(part), "{what}: {part:?} in {problems:#?}");
            assert!(!finding.mended, "{what}: {finding:?}");
        }
        assert_eq!(report.findings.iter().any(|f| f.damage), *lost, "{what}: {report:#?}");
        assert_eq!(bench.check(false), report, "{what}: looking changed something");

        let repaired = bench.check(true);
        assert!(repaired.findings.iter().all(|f| f.mended), "{what}: {repaired:#?}");
        assert!(repaired.findings.len() >= found.len(), "{what}: {repaired:#?}");
        assert_eq!(repaired.images, *images, "{what}");
        bench.assert_sound(&format!("after a repair: {what}"));
        let store = bench.open();
        assert_eq!(store.images().unwrap().len(), *images, "{what}");
        let again = Archive::of("app", &[layer_tar("a", "1"), layer_tar("b", "2")]);
        bench.import(&store, &again).unwrap();
        drop(store);
        bench.assert_sound(&format!("at the end: {what}"));
    }
}

#[test]
fn a_start_survives_every_damage_and_destroys_nothing() {
    for Case { what, damage, images, .. } in CASES {
        let furnished = furnished();
        damage(&furnished);
        let bench = &furnished.bench;
        match bench.try_open(Some("vfs")) {
            Ok(store) => {
                let listed = store.images().unwrap().len();
                assert!(listed >= *images, "{what}: {listed} images");
            }
            Err(error) => {
                assert_eq!(*what, "no format", "{error}");
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            }
        }
    }
}

#[test]
fn an_open_store_is_not_looked_at() {
    let bench = Bench::new();
    let _store = bench.open();
    let error = super::check_with(&bench.root(), &Default::default(), &bench.opener()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    let nowhere = bench.scratch().join("nowhere");
    let error = super::check_with(&nowhere, &Default::default(), &bench.opener()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn layers_of_an_unreadable_image_are_kept_until_a_repair() {
    let furnished = furnished();
    let bench = &furnished.bench;
    fs::write(image_file(&furnished, "config.json"), "{}").unwrap();
    fs::remove_file(bench.root().join("catalogue.redb")).unwrap();
    let layers = bench.vfs.len();
    let store = bench.open();
    store.gc().unwrap();
    assert_eq!(bench.vfs.len(), layers, "nobody can say that its layers are in no image");
    drop(store);
    bench.check(true);
    assert_eq!(bench.vfs.len(), layers - 1, "the one layer that no other image has");
}
