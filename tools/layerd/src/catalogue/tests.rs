use std::collections::BTreeSet;

use cow::digest::{ChainId, DiffId, Digest};

use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::root::Access;

fn image(seed: &str, names: &[&str], layers: Vec<ChainId>) -> Image {
    Image {
        id: Digest::of(seed.as_bytes()),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        drivers: vec!["vfs".to_owned()],
        layers,
        created: None,
        imported: Timestamp::from_nanos(1),
        platform: "linux/amd64".to_owned(),
        labels: Labels::new(),
        size: 1,
    }
}

fn layer(id: &str) -> (ChainId, Layer) {
    let diff_id = DiffId::new(Digest::of(id.as_bytes()));
    let row = Layer {
        layer: id.parse().unwrap(),
        parent: None,
        diff_id,
        tar_size: 1,
        content_size: 1,
        usage: drivers::Usage::default(),
    };
    (ChainId::base(&diff_id), row)
}

fn empty() -> Catalogue {
    Catalogue::open_copy(&[]).unwrap()
}

#[test]
fn a_name_belongs_to_one_image() {
    let catalogue = empty();
    let put = |image: &Image| catalogue.write(Durability::Soon, |w| w.put_image(image)).unwrap();
    let (a, mut b) = (image("a", &["x", "y"], vec![]), image("b", &["z"], vec![]));
    assert_eq!(put(&a), []);
    assert_eq!(put(&b), []);
    b.names.extend(["x".to_owned(), "y".to_owned()]);
    let losers = put(&b);
    assert_eq!(losers.len(), 1, "one image lost both names");
    assert_eq!(losers[0].names, BTreeSet::new());
    let rows = catalogue.read().unwrap();
    assert_eq!(rows.image_of_name("x").unwrap(), Some(b.id));
    assert_eq!(rows.image(&a.id).unwrap().unwrap().names, BTreeSet::new());
    b.names.remove("y");
    put(&b);
    assert_eq!(catalogue.read().unwrap().image_of_name("y").unwrap(), None, "a name taken away");
    catalogue.write(Durability::Soon, |w| w.delete_image(&b)).unwrap();
    let rows = catalogue.read().unwrap();
    assert_eq!((rows.image_of_name("x").unwrap(), rows.image(&b.id).unwrap()), (None, None));
}

#[test]
fn an_image_holds_its_top_layer() {
    let catalogue = empty();
    let (chain, row) = layer("1");
    let image = image("a", &[], vec![chain]);
    catalogue
        .write(Durability::Now, |w| {
            w.put_layer("vfs", &chain, &row, None)?;
            w.put_layer("overlay2", &chain, &row, None)?;
            w.put_image(&image)
        })
        .unwrap();
    let rows = catalogue.read().unwrap();
    assert!(rows.has_children("vfs", &row.layer).unwrap(), "held by the image");
    assert!(!rows.has_children("overlay2", &row.layer).unwrap(), "another driver");
    assert!(!rows.has_children("vfs", &"10".parse().unwrap()).unwrap(), "a longer id");
    catalogue.write(Durability::Now, |w| w.delete_image(&image)).unwrap();
    assert_eq!(catalogue.read().unwrap().children().unwrap(), [], "released");
}

#[test]
fn beginnings_of_ids_find_at_most_two() {
    let catalogue = empty();
    let images: Vec<Image> = (0..40).map(|n| image(&n.to_string(), &[], vec![])).collect();
    catalogue
        .write(Durability::Now, |w| images.iter().try_for_each(|i| w.put_image(i).map(drop)))
        .unwrap();
    let rows = catalogue.read().unwrap();
    for length in [1, 2, 3, 7, 63] {
        for image in &images {
            let hex = image.id.hex();
            let beginning = &hex[..length];
            let all = images.iter().filter(|i| i.id.hex().starts_with(beginning)).count();
            let found = rows.images_by_prefix(beginning).unwrap();
            assert_eq!(found.len(), all.min(2), "{beginning}");
            assert!(found.iter().all(|id| id.hex().starts_with(beginning)), "{beginning}");
        }
    }
}

#[test]
fn a_failed_transaction_leaves_nothing() {
    let catalogue = empty();
    let got: Result<()> = catalogue.write(Durability::Now, |w| {
        w.put_image(&image("a", &["x"], vec![]))?;
        Err(Error::not_found("test", "x"))
    });
    assert_eq!(got.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(catalogue.read().unwrap().images().unwrap(), []);
}

#[test]
fn what_was_written_in_a_hurry_is_there_after_closing() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path(), Access::Serve).unwrap();
    let image = image("a", &["x"], vec![]);
    let catalogue = Catalogue::open(&root).unwrap();
    catalogue.write(Durability::Soon, |w| w.put_image(&image)).unwrap();
    drop(catalogue);
    let catalogue = Catalogue::open(&root).unwrap();
    assert_eq!(catalogue.read().unwrap().images().unwrap(), [image]);
}

#[test]
fn what_is_settled_survives_a_crash() {
    let dir = tempfile::TempDir::new().unwrap();
    let root = Root::open(dir.path(), Access::Serve).unwrap();
    let catalogue = Catalogue::open(&root).unwrap();
    for round in 0..3 {
        let (chain, row) = layer(&format!("{round}"));
        catalogue.write(Durability::Soon, |w| w.put_layer("vfs", &chain, &row, None)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| catalogue.settle().unwrap());
            }
        });
        // What a crash would leave of the file: the catalogue is open all the time.
        let bytes = std::fs::read(dir.path().join(CATALOGUE)).unwrap();
        let crashed = Catalogue::open_copy(&bytes).unwrap();
        let found = crashed.read().unwrap().layer("vfs", &chain).unwrap();
        assert_eq!(found, Some(row), "round {round}");
    }
}
