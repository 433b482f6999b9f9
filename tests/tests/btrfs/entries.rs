//! Changes among the entries of large directories, which the search for what was written passes over.

use std::fs;
use std::path::Path;

use drivers::Usage;

use crate::bench::{Bench, here, id};

/// Entries of a directory that take several leaves of 16 KiB.
const MANY: usize = 2000;
/// Fewer than are passed over.
const FEW: usize = 20;

fn fill(dir: &Path, files: usize) {
    fs::create_dir_all(dir).unwrap();
    for file in 0..files {
        fs::write(dir.join(format!("file{file}")), format!("{file}").repeat(file % 300)).unwrap();
    }
}

/// Three directories, made one after the other, and one of each size between their files.
fn image(bench: &Bench) {
    bench.create("image", None);
    let tree = bench.mount("image");
    for round in 0..3 {
        fill(&tree.join(format!("many{round}")), MANY);
        fill(&tree.join(format!("few{round}")), FEW);
    }
    (0..MANY).for_each(|name| fs::create_dir(tree.join(format!("{name}"))).unwrap());
    bench.unmount("image");
    bench.commit("image");
}

/// Writes at both ends of directories and in their midst; gives what it takes.
fn work_in(bench: &Bench, layer: &str) -> Usage {
    let tree = bench.mount(layer);
    // Larger than what is asked for at first, and what lies in the tree behind it.
    let attribute = vec![b'a'; 9000];
    cow::xattr::set_at(
        fs::File::open(tree.join("many0")).unwrap(),
        "".as_ref(),
        "user.large".as_ref(),
        &attribute,
    )
    .unwrap();
    fs::write(tree.join("many0/new"), "in a large directory").unwrap();
    fs::write(tree.join("many1/file1000"), "changed").unwrap();
    fs::write(tree.join("many2/large"), vec![b'x'; 100_000]).unwrap();
    fs::remove_file(tree.join("many2/file0")).unwrap();
    fs::rename(tree.join("many2/file1999"), tree.join("few0/moved")).unwrap();
    fs::write(tree.join("few1/new"), "in a small directory").unwrap();
    fs::write(tree.join("new"), "in the root directory").unwrap();
    bench.unmount(layer);
    bench.commit(layer);
    bench.driver().usage(&id(layer)).unwrap()
}

#[test]
fn what_is_written_among_many_entries_is_found_and_measured() {
    if !here() {
        return;
    }
    let bench = Bench::new("entries", &[]);
    image(&bench);
    // Twelve thousand files and directories, with the root.
    let usage = bench.driver().usage(&id("image")).unwrap();
    assert_eq!(usage.inodes, (3 * (MANY + 1 + FEW + 1) + MANY + 1) as u64);
    let content: usize = [MANY, FEW]
        .into_iter()
        .flat_map(|files| (0..files).map(|file| format!("{file}").len() * (file % 300)))
        .sum();
    assert_eq!(usage.content, 3 * content as u64);

    bench.create("container", Some("image"));
    let usage = work_in(&bench, "container");
    let changes = bench.changes("container", None);
    assert_eq!(changes, bench.walked("container", "image"));
    assert_eq!(changes.len(), 12, "{changes:#?}");
    // Six files; and the root, two large directories and two small ones.
    assert_eq!(usage.inodes, 6 + 5, "{usage:?}");
    let moved = "1999".len() * (1999 % 300);
    let texts =
        ["in a large directory", "changed", "in a small directory", "in the root directory"];
    let texts: usize = texts.iter().map(|text| text.len()).sum();
    assert_eq!(usage.content, (texts + 100_000 + moved) as u64);
    assert!((100_000..150_000).contains(&usage.bytes), "{usage:?}");
}

#[test]
fn a_layer_of_many_entries_is_told_as_by_a_walk() {
    if !here() {
        return;
    }
    let bench = Bench::new("entries-new", &[]);
    bench.create("image", None);
    bench.commit("image");
    bench.create("container", Some("image"));
    let tree = bench.mount("container");
    for (number, files) in [1, 31, 32, 33, 64, 65, 500].into_iter().enumerate() {
        fill(&tree.join(format!("dir{number}/inner")), files);
    }
    bench.unmount("container");
    assert_eq!(bench.changes("container", None), bench.walked("container", "image"), "active");
    bench.commit("container");
    assert_eq!(bench.changes("container", None), bench.walked("container", "image"));
}
