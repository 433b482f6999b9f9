//! Snapshots that are made and written to beforehand.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use drivers::{Access, CreateOptions, LayerRecord};
use tests::daemon::Daemon;
use tests::life::{self, Durable, Kept};
use tests::root::TempRoot;
use tests::stock::{self, wait_until};
use tests::tree;

use crate::bench::{Bench, here, id};

/// So many files that the tree has inner nodes.
const FILES: usize = 3000;

/// An image of some files, one with the name that the driver would give a file of its own.
fn image(bench: &Bench, name: &str, files: usize) {
    bench.create(name, None);
    let tree = bench.mount(name);
    for file in 0..files {
        let dir = tree.join(format!("dir{}", file / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file{file}")), format!("{file} of {name}").repeat(99)).unwrap();
    }
    fs::write(tree.join(".layerd-stock-0"), "the image's").unwrap();
    bench.unmount(name);
    bench.commit(name);
}

/// The places in the stock, and whether there is a finished snapshot in each.
fn places(bench: &Bench) -> Vec<(PathBuf, bool)> {
    stock::places(&bench.home().join("stock"))
}

/// How many spares the driver says there are.
fn spares(bench: &Bench) -> Option<usize> {
    stock::spares(&bench.driver().status())
}

/// Builds upon a layer until there is a spare for it; gives the layers that were made.
fn fill_stock(bench: &Bench, parent: &str) -> [String; 2] {
    let before = spares(bench).unwrap();
    let names = ["first", "second"].map(|name| format!("{name}-on-{parent}"));
    names.iter().for_each(|name| bench.create(name, Some(parent)));
    wait_until("no spare comes", || spares(bench) == Some(before + 1));
    names
}

/// Whether a layer came from the stock, as its metadata says.
fn is_stocked(bench: &Bench, layer: &str) -> bool {
    stock::is_taken(&bench.home().join("layers").join(layer))
}

fn subvolume(bench: &Bench, layer: &str) -> String {
    bench.driver().metadata(&id(layer)).unwrap()["Subvolume"].clone()
}

/// What is told of a layer, but for what is another's: its number and paths.
#[derive(Debug, PartialEq)]
struct Told {
    changes: Vec<String>,
    usage: drivers::Usage,
    /// Shared and exclusive bytes, and the size.
    keys: [Option<String>; 3],
    tar: cow::digest::Digest,
}

fn told(bench: &Bench, layer: &str) -> Told {
    let mut tar = Vec::new();
    bench.driver().diff(&id(layer), None, &mut tar).unwrap();
    let keys = bench.driver().metadata(&id(layer)).unwrap();
    Told {
        changes: bench.changes(layer, None),
        usage: bench.driver().usage(&id(layer)).unwrap(),
        keys: ["SharedBytes", "ExclusiveBytes", "Size"].map(|key| keys.get(key).cloned()),
        tar: cow::digest::Digest::of(&tar),
    }
}

fn portrait(bench: &Bench, layer: &str) -> tree::Portrait {
    let path = bench.driver().mount(&id(layer), Access::ReadOnly).unwrap();
    let portrait = tree::portrait(&path).unwrap();
    bench.unmount(layer);
    portrait
}

/// The times of a root directory that stay as they are, and its size, owner and links.
fn root_of(bench: &Bench, layer: &str, tree: &str) -> impl PartialEq + std::fmt::Debug + use<> {
    let root = fs::metadata(bench.home().join("layers").join(layer).join(tree)).unwrap();
    let times = (root.accessed().unwrap(), root.modified().unwrap(), root.created().unwrap());
    (times, root.size(), root.uid(), root.gid(), root.nlink(), root.mode())
}

/// Writes what containers do, at times that are the same for all.
fn work_in(bench: &Bench, layer: &str) {
    let tree = bench.mount(layer);
    fs::write(tree.join("new"), "in the root directory").unwrap();
    fs::write(tree.join("large"), vec![b'x'; 300_000]).unwrap();
    fs::write(tree.join("dir3/file300"), "changed").unwrap();
    fs::remove_file(tree.join("dir4/file400")).unwrap();
    fs::remove_file(tree.join(".layerd-stock-0")).unwrap();
    for path in ["new", "large", "dir3/file300", "dir3", "dir4", ""] {
        let file = fs::File::open(tree.join(path)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    }
    bench.unmount(layer);
}

#[test]
fn a_layer_from_the_stock_is_as_one_from_a_fresh_snapshot() {
    if !here() {
        return;
    }
    let mut bench = Bench::new("stock", &[]);
    image(&bench, "image", FILES);
    let [fresh, _] = fill_stock(&bench, "image");
    let ready: Vec<_> = places(&bench).into_iter().filter(|(_, ready)| *ready).collect();
    let [(place, _)] = &ready[..] else { panic!("one spare: {ready:?}") };
    let number = bench.btrfs(&["inspect-internal", "rootid", place.join("rw").to_str().unwrap()]);
    bench.create("taken", Some("image"));
    assert_eq!(subvolume(&bench, "taken"), number.trim(), "the spare is what the layer shows");
    assert!(is_stocked(&bench, "taken") && !is_stocked(&bench, &fresh));

    let nothing = told(&bench, &fresh);
    assert_eq!(nothing.usage, drivers::Usage::default(), "nothing is written");
    assert_eq!(nothing.changes, Vec::<String>::new());
    assert_eq!(told(&bench, "taken"), nothing);
    let root = root_of(&bench, "image", "ro");
    assert_eq!(root_of(&bench, "taken", "rw"), root);
    assert_eq!(root_of(&bench, &fresh, "rw"), root);
    let differences = tree::differences(&portrait(&bench, "taken"), &portrait(&bench, "image"));
    assert!(differences.is_empty(), "{differences:#?}");

    for layer in [fresh.as_str(), "taken"] {
        work_in(&bench, layer);
    }
    assert_eq!(told(&bench, "taken"), told(&bench, &fresh), "written to");
    for layer in [fresh.as_str(), "taken"] {
        bench.commit(layer);
    }
    bench.settle();
    assert_eq!(told(&bench, "taken"), told(&bench, &fresh), "committed");
    assert_eq!(bench.changes("taken", None), bench.walked("taken", "image"));
    let differences = tree::differences(&portrait(&bench, "taken"), &portrait(&bench, &fresh));
    assert!(differences.is_empty(), "{differences:#?}");
    bench.create("above", Some("taken"));
    let above = bench.mount("above");
    fs::write(above.join("newer"), "in the root directory").unwrap();
    fs::remove_file(above.join("dir5/file500")).unwrap();
    bench.unmount("above");
    bench.commit("above");
    assert_eq!(bench.changes("above", None), bench.walked("above", "taken"));
    assert_eq!(bench.changes("above", Some("image")), bench.walked("above", "image"));
    assert!(bench.driver().check().unwrap().is_empty());
}

#[test]
fn layers_from_the_stock_are_told_apart_after_anything_is_written() {
    if !here() {
        return;
    }
    let bench = Bench::new("stock-writes", &[]);
    image(&bench, "image", 20);
    let [fresh, _] = fill_stock(&bench, "image");
    bench.create("taken", Some("image"));
    assert!(is_stocked(&bench, "taken"));
    for layer in [fresh.as_str(), "taken"] {
        // The directory that was written to beforehand, and nothing else.
        let tree = bench.mount(layer);
        fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        bench.unmount(layer);
    }
    assert_eq!(bench.changes("taken", None), ["Modified /"]);
    assert_eq!(told(&bench, "taken"), told(&bench, &fresh));
    assert_eq!(bench.driver().usage(&id("taken")).unwrap().inodes, 1);
}

#[test]
fn an_imported_image_has_a_spare_for_its_first_container() {
    if !here() {
        return;
    }
    let bench = Bench::new("stock-import", &[]);
    image(&bench, "source", 20);
    assert_eq!((spares(&bench), places(&bench)), (Some(0), Vec::new()), "it was not imported");
    let mut tar = Vec::new();
    bench.driver().diff(&id("source"), None, &mut tar).unwrap();
    for (layer, parent) in [("lower", None), ("upper", Some("lower"))] {
        bench.create(layer, parent);
        bench.driver().apply(&id(layer), &mut tar.as_slice()).unwrap();
        bench.commit(layer);
    }
    wait_until("no spare comes", || spares(&bench) == Some(1));
    bench.create("on-lower", Some("lower"));
    bench.create("first", Some("upper"));
    assert!(is_stocked(&bench, "first") && !is_stocked(&bench, "on-lower"));
    assert_eq!(bench.changes("first", None), Vec::<String>::new());
    wait_until("no spare for the second", || spares(&bench) >= Some(1));
    bench.driver().remove(&id("first")).unwrap();
    bench.driver().remove(&id("upper")).unwrap();
    wait_until("a spare of what is removed stays", || spares(&bench) <= Some(1));
    assert!(bench.driver().check().unwrap().is_empty());
}

#[test]
fn spares_go_with_their_parent_and_are_not_those_of_its_namesake() {
    if !here() {
        return;
    }
    let mut bench = Bench::new("stock-removal", &[]);
    for content in [10, 20] {
        image(&bench, "image", content);
        for layer in fill_stock(&bench, "image") {
            bench.driver().remove(&id(&layer)).unwrap();
        }
        assert_eq!(spares(&bench), Some(1));
        bench.driver().remove(&id("image")).unwrap();
        assert_eq!(spares(&bench), Some(0), "nobody can take it");
    }
    image(&bench, "image", 30);
    bench.create("container", Some("image"));
    assert!(!is_stocked(&bench, "container"));
    assert_eq!(bench.changes("container", None), Vec::<String>::new());
    wait_until("spares of what is removed stay", || places(&bench).is_empty());
    assert!(bench.driver().check().unwrap().is_empty());
    assert_eq!(bench.subvolumes(), 2, "the image and the container");
}

#[test]
fn closing_leaves_no_spares_and_a_crash_leaves_some_to_be_cleared_away() {
    if !here() {
        return;
    }
    let mut bench = Bench::new("stock-crash", &[]);
    image(&bench, "image", 10);
    fill_stock(&bench, "image");
    assert!(bench.driver().check().unwrap().is_empty(), "a spare is no leftover");
    bench.reopen_after(|_| ());
    assert_eq!(places(&bench), [], "closed");
    stock_by_hand(&bench, &["3/rw", "4/new"]);
    fs::create_dir(bench.home().join("stock/5")).unwrap();
    fs::write(bench.home().join("stock/6"), "a file").unwrap();
    let found = bench.driver().check().unwrap();
    let mut paths: Vec<_> = found.iter().map(|found| found.path.display().to_string()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["stock/3", "stock/4", "stock/5", "stock/6"]);
    assert!(found.iter().all(|found| found.repairable), "{found:?}");
    assert_eq!(bench.driver().repair().unwrap().len(), 4);
    assert_eq!((places(&bench), bench.driver().check().unwrap()), (Vec::new(), Vec::new()));

    // Without a repair their names are used again.
    stock_by_hand(&bench, &["0/rw", "1/new"]);
    for name in ["a", "b"] {
        bench.create(name, Some("image"));
    }
    wait_until("no spare comes", || spares(&bench) == Some(1));
    bench.create("c", Some("image"));
    assert!(is_stocked(&bench, "c"));
    assert_eq!(bench.changes("c", None), Vec::<String>::new());
}

/// Puts snapshots into the stock that the driver does not know.
fn stock_by_hand(bench: &Bench, names: &[&str]) {
    let image = bench.home().join("layers/image/ro");
    for name in names {
        let path = bench.home().join("stock").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let [image, path] = [&image, &path].map(|path| path.to_str().unwrap());
        bench.btrfs(&["-q", "subvolume", "snapshot", image, path]);
    }
}

#[test]
fn spares_count_for_nobody_with_quotas() {
    if !here() {
        return;
    }
    let size = CreateOptions { size: Some(64 << 20), ..CreateOptions::active() };
    for (mode, serves) in [("auto", true), ("full", false)] {
        let bench = Bench::new("stock-quota", &[&format!("quota={mode}")]);
        image(&bench, "image", 10);
        fill_stock(&bench, "image");
        bench.driver().create(&id("limited"), Some(&id("image")), &size).unwrap();
        assert!(!is_stocked(&bench, "limited"), "{mode}: it has a size");
        assert_eq!(
            bench.driver().metadata(&id("limited")).unwrap()["Size"],
            (64 << 20).to_string()
        );
        // Quotas are on from here on, and the spare is older.
        bench.create("free", Some("image"));
        assert_eq!(is_stocked(&bench, "free"), serves, "{mode}");
        fs::write(bench.mount("free").join("new"), vec![b'x'; 1 << 20]).unwrap();
        bench.unmount("free");
        bench.commit("free");
        let keys = bench.driver().metadata(&id("free")).unwrap();
        let exclusive: u64 = keys["ExclusiveBytes"].parse().unwrap();
        assert!(exclusive < 2 << 20, "{mode}: {keys:?}");
        wait_until("a spare stays", || serves || places(&bench).is_empty());
        assert!(bench.driver().check().unwrap().is_empty(), "{mode}");
    }
}

#[test]
fn with_simple_quotas_the_blocks_of_a_spare_are_those_of_the_first_write() {
    if !here() {
        return;
    }
    let bench = Bench::new("stock-blocks", &[]);
    let size = CreateOptions { size: Some(64 << 20), ..CreateOptions::active() };
    bench.driver().create(&id("limited"), None, &size).unwrap();
    image(&bench, "image", FILES);
    let [fresh, _] = fill_stock(&bench, "image");
    bench.create("taken", Some("image"));
    assert!(is_stocked(&bench, "taken"));
    let exclusive = |layer: &str| -> u64 {
        rustix::fs::syncfs(fs::File::open(bench.home()).unwrap()).unwrap();
        bench.driver().metadata(&id(layer)).unwrap()["ExclusiveBytes"].parse().unwrap()
    };
    let before = [exclusive(&fresh), exclusive("taken")];
    assert!(before[0] < before[1], "some were copied beforehand: {before:?}");
    for layer in [fresh.as_str(), "taken"] {
        work_in(&bench, layer);
    }
    assert_eq!(exclusive(&fresh), exclusive("taken"), "of {before:?}");
}

#[test]
fn without_a_stock_there_is_none() {
    if !here() {
        return;
    }
    let bench = Bench::new("stock-off", &["btrfs.stock=off"]);
    image(&bench, "image", 10);
    for name in ["a", "b", "c"] {
        bench.create(name, Some("image"));
        bench.driver().commit(&id(name), &LayerRecord::default()).unwrap();
    }
    assert_eq!(spares(&bench), None);
    assert!(!bench.home().join("stock").exists());
}

#[test]
fn a_killed_daemon_leaves_spares_and_the_next_clears_them_away() {
    if !here() {
        return;
    }
    let root = TempRoot::on_btrfs("stock-kill");
    let (archive, image) = life::archive(root.path(), 0, 200);
    let mut daemon = Daemon::start_on(&root, ["--driver", "btrfs"]);
    daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
    let image_shown = Durable::new(&daemon.client(), Kept::Image(image.clone()), 0);
    let mut kept = Vec::new();
    for round in 0..3 {
        let client = daemon.client();
        let stock = daemon.root().join("btrfs/stock");
        for container in 0..3 {
            let name = life::commit(&client, &image, round * 10 + container, false);
            kept.push(Durable::new(&client, Kept::Snapshot(name), 0));
            if container > 0 {
                stock::wait_for_spare(&daemon);
            }
        }
        daemon = Daemon::start_in(daemon.kill(), ["--driver", "btrfs"]);
        assert_eq!(stock::places(&stock), [], "round {round}");
    }
    image_shown.look(&daemon.client(), "at last");
    kept.iter().for_each(|kept| kept.look(&daemon.client(), "at last"));
}
