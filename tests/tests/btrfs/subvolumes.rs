//! Subvolumes inside layers, and layers that are none.

use std::fs;
use std::path::Path;

use drivers::{Access, ErrorKind};
use tests::daemon::Finish as _;
use tests::root::TempRoot;
use tests::tree;

use crate::bench::{Bench, here, id};

/// Makes subvolumes inside subvolumes, one of them read-only, as a container with btrfs tools may.
fn nest(bench: &Bench, base: &Path) {
    let path = |name: &str| base.join(name).to_str().expect("UTF-8").to_owned();
    fs::create_dir_all(base.join("var/lib")).unwrap();
    bench.btrfs(&["-q", "subvolume", "create", &path("var/lib/machines")]);
    fs::write(base.join("var/lib/machines/file"), "in the first").unwrap();
    bench.btrfs(&["-q", "subvolume", "create", &path("var/lib/machines/inner")]);
    fs::write(base.join("var/lib/machines/inner/file"), "in the second").unwrap();
    bench.btrfs(&["-q", "subvolume", "create", &path("var/lib/machines/inner/deep")]);
    bench.btrfs(&["property", "set", &path("var/lib/machines/inner"), "ro", "true"]);
}

#[test]
fn subvolumes_inside_a_layer_are_shown_committed_and_removed() {
    if !here() {
        return;
    }
    let mut bench = Bench::new("nested", &[]);
    bench.create("1", None);
    bench.commit("1");
    bench.create("2", Some("1"));
    let merged = bench.mount("2");
    nest(&bench, &merged);
    let shown = tree::portrait(&merged).unwrap();
    bench.unmount("2");
    let changes = bench.changes("2", None);
    assert_eq!(changes, bench.walked("2", "1"));
    assert!(changes.contains(&"Added /var/lib/machines/inner/file".to_owned()), "{changes:?}");

    bench.commit("2");
    assert_eq!(bench.subvolumes(), 2, "a committed layer has no others inside");
    bench.create("3", Some("2"));
    let merged = bench.mount("3");
    let differences = tree::differences(&tree::portrait(&merged).unwrap(), &shown);
    assert!(differences.is_empty(), "a child sees all of it: {differences:#?}");
    bench.unmount("3");
    assert_eq!(bench.changes("2", None), changes, "the commit changes nothing");

    bench.create("4", Some("1"));
    nest(&bench, &bench.mount("4"));
    bench.unmount("4");
    for layer in ["4", "3", "2", "1"] {
        bench.driver().remove(&id(layer)).unwrap_or_else(|error| panic!("{layer}: {error}"));
    }
    assert_eq!(bench.subvolumes(), 0, "nothing is left");
    assert!(bench.driver().check().unwrap().is_empty());
}

#[test]
fn what_a_crash_leaves_is_cleared_away() {
    if !here() {
        return;
    }
    let mut bench = Bench::new("crash", &[]);
    bench.create("1", None);
    bench.commit("1");
    bench.create("2", Some("1"));
    bench.create("3", Some("1"));
    nest(&bench, &bench.mount("3"));
    bench.unmount("3");
    bench.reopen_after(|root| {
        let at = |path: &str| root.join("home").join(path).to_str().unwrap().to_owned();
        let snapshot = |from: &str, to: &str| {
            let mut btrfs = std::process::Command::new("btrfs");
            btrfs.args(["-q", "subvolume", "snapshot", &at(from), &at(to)]).finish().ok();
        };
        // A commit that had come to its end but for the removal, and one that had not.
        snapshot("layers/1/ro", "layers/1/rw");
        snapshot("layers/2/rw", "layers/2/ro");
        // A removal and a creation that did not end.
        fs::rename(at("layers/3"), at("trash/3.0")).unwrap();
        fs::create_dir(at("tmp/4.0")).unwrap();
        snapshot("layers/1/ro", "tmp/4.0/rw");
    });
    let found = bench.driver().check().unwrap();
    let mut paths: Vec<_> = found.iter().map(|found| found.path.display().to_string()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["layers/1/rw", "layers/2/ro", "tmp/4.0", "trash/3.0"]);
    assert!(found.iter().all(|found| found.repairable), "{found:?}");
    assert_eq!(bench.driver().repair().unwrap().len(), 4);
    assert!(bench.driver().check().unwrap().is_empty());
    assert_eq!(bench.subvolumes(), 2, "the two layers");
    bench.commit("2");
}

#[test]
fn a_copied_store_is_walked_and_told() {
    if !here() {
        return;
    }
    let mut bench = Bench::new("copied", &[]);
    bench.create("1", None);
    let base = bench.mount("1");
    fs::write(base.join("kept"), "x").unwrap();
    fs::write(base.join("gone"), "x").unwrap();
    bench.unmount("1");
    bench.commit("1");
    bench.create("2", Some("1"));
    fs::remove_file(bench.mount("2").join("gone")).unwrap();
    bench.unmount("2");
    bench.reopen_after(|root| {
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a").arg(root.join("home")).arg(root.join("copy")).finish().ok();
    });
    let copy = drivers::open::<&str>("btrfs", &bench.root.join("copy"), &[]).unwrap();
    let found = copy.check().unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|f| f.problem.contains("not a subvolume") && !f.repairable));
    let changes = copy.changes(&id("2"), None);
    // The numbers in the copy mean nothing; it must not be taken for unchanged.
    assert!(changes.is_err() || changes.unwrap().changes.len() == 1);
    let path = copy.mount(&id("1"), Access::Default).unwrap();
    assert!(path.join("kept").exists(), "what is there can be read");
    copy.unmount(&id("1")).unwrap();
}

#[test]
fn another_file_system_is_refused_by_its_name() {
    if !here() {
        return;
    }
    let root = TempRoot::in_memory("elsewhere");
    let error = drivers::open::<&str>("btrfs", &root.join("home"), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("lies on tmpfs"), "{error}");
    assert!(!root.join("home").exists(), "nothing is made");
}

#[test]
fn without_privileges_layers_are_walked_and_removed_file_by_file() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    if !here() {
        return;
    }
    let mut bench = Bench::new("rootless", &[]);
    let home = bench.root.join("other");
    // Capabilities are a thread's own.
    let work = std::thread::spawn(move || {
        let mut mine = capabilities(None).unwrap();
        mine.effective.remove(CapabilitySet::SYS_ADMIN);
        set_capabilities(None, mine).unwrap();
        let driver = drivers::open::<&str>("btrfs", &home, &[]).unwrap();
        assert!(!driver.capabilities().native_diff && !driver.capabilities().quota);
        let active = drivers::CreateOptions::active();
        driver.create(&id("1"), None, &active).unwrap();
        fs::write(home.join("layers/1/rw/file"), "x").unwrap();
        driver.commit(&id("1"), &drivers::LayerRecord::default()).unwrap();
        driver.create(&id("2"), Some(&id("1")), &active).unwrap();
        fs::write(home.join("layers/2/rw/file"), "longer").unwrap();
        let changes = driver.changes(&id("2"), None).unwrap();
        assert_eq!(crate::bench::lines(&changes), ["Modified /file"]);
        driver.remove(&id("2")).unwrap();
        driver.remove(&id("1")).unwrap();
        assert!(driver.check().unwrap().is_empty(), "nothing is left");
        let size = drivers::CreateOptions { size: Some(1 << 20), ..active };
        let error = driver.create(&id("3"), None, &size).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    });
    if let Err(panic) = work.join() {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(bench.subvolumes(), 0, "nothing is left");
}
