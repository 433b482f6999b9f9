//! Where the tree of an applied layer lies on the disk.

use std::fs;
use std::process::Command;

use cow::root::Root;
use tests::daemon::Finish as _;

use crate::bench::{Bench, here, id, lines};

/// So many that the tree has some five inner nodes.
const FILES: usize = 8000;

/// The distance from the first inner node of a layer's tree to the last, in bytes.
fn spread(bench: &Bench, layer: &str) -> u64 {
    let tree = bench.home().join("layers").join(layer).join("ro");
    let number = bench.btrfs(&["inspect-internal", "rootid", tree.to_str().unwrap()]);
    let device =
        Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(bench.root.path()).finish().ok();
    let dump = ["inspect-internal", "dump-tree", "-t", number.trim(), device.trim()];
    let dump = bench.btrfs(&dump);
    let nodes: Vec<u64> = dump
        .lines()
        .filter_map(|line| line.strip_prefix("node ")?.split_once(" level 1 "))
        .map(|(at, _)| at.parse().unwrap())
        .collect();
    assert!(nodes.len() > 2, "{layer}: {} inner nodes", nodes.len());
    nodes.iter().max().unwrap() - nodes.iter().min().unwrap()
}

#[test]
fn the_inner_nodes_of_an_applied_layer_lie_together() {
    if !here() {
        return;
    }
    let bench = Bench::new("nodes", &[]);
    bench.create("written", None);
    let tree = bench.mount("written");
    for file in 0..FILES {
        let dir = tree.join(format!("dir{}", file / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file{file}")), vec![b'x'; 2000]).unwrap();
    }
    bench.unmount("written");
    bench.commit("written");
    let mut tar = Vec::new();
    bench.driver().diff(&id("written"), None, &mut tar).unwrap();
    bench.create("applied", None);
    bench.driver().apply(&id("applied"), &mut tar.as_slice()).unwrap();
    bench.commit("applied");

    let root = |layer| Root::open(bench.home().join("layers").join(layer).join("ro")).unwrap();
    let changes = cow::diff::trees(Some(&root("written")), &root("applied")).unwrap();
    assert_eq!(lines(&changes), Vec::<String>::new(), "the same files, with the same times");
    let usage = |layer| bench.driver().usage(&id(layer)).unwrap();
    assert_eq!(usage("written"), usage("applied"));
    let [far, near] = ["written", "applied"].map(|layer| spread(&bench, layer));
    assert!(near * 4 < far, "{near} bytes of {far}");
}
