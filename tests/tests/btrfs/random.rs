//! Random work in containers: what the file system tells of it is what a walk over both trees finds.

use std::fs;
use std::path::Path;

use tests::random::{self, Random};

use crate::bench::{Bench, here};

#[test]
fn random_work_is_found_as_the_double_walk_finds_it() {
    if !here() {
        return;
    }
    let rounds = std::env::var("BTRFS_DIFF_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    for seed in 1..=rounds {
        let bench = Bench::new("random", &[]);
        let mut random = Random::new(seed);
        let mut log = Vec::new();
        bench.create("0", None);
        let base = bench.mount("0");
        (0..200).for_each(|_| random::step(&mut random, &base, &mut log));
        bench.unmount("0");
        bench.commit("0");
        for layer in 1..=4 {
            let (name, below) = (layer.to_string(), (layer - 1).to_string());
            bench.create(&name, Some(&below));
            for check in 0..3 {
                let merged = bench.mount(&name);
                (0..25).for_each(|_| random::step(&mut random, &merged, &mut log));
                // Mounted, and with data that is in memory only.
                let found = bench.changes(&name, None);
                assert_eq!(
                    found,
                    bench.walked(&name, &below),
                    "seed {seed}, layer {layer}, check {check}: {log:#?}"
                );
                bench.unmount(&name);
            }
            bench.commit(&name);
            log.push("commit".to_owned());
            for base in 0..layer {
                let base = base.to_string();
                let found = bench.changes(&name, Some(&base));
                let walked = bench.walked(&name, &base);
                assert_eq!(found, walked, "seed {seed}, layer {layer} on {base}: {log:#?}");
            }
        }
    }
}

#[test]
fn an_inode_number_that_is_used_again_is_another_file() {
    if !here() {
        return;
    }
    let mut bench = Bench::new("reuse", &[]);
    bench.create("1", None);
    let base = bench.mount("1");
    fs::create_dir(base.join("old")).unwrap();
    fs::write(base.join("old/below"), "x").unwrap();
    fs::create_dir(base.join("last")).unwrap();
    bench.unmount("1");
    bench.commit("1");
    bench.create("2", Some("1"));
    let ino = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let merged = bench.mount("2");
    let before = ino(&merged.join("last"));
    fs::remove_dir(merged.join("last")).unwrap();
    bench.unmount("2");
    // Which numbers were given out is forgotten with the mount: the highest that is left counts.
    bench.reopen_after(TempRoot::remount);
    let merged = bench.mount("2");
    fs::create_dir(merged.join("last")).unwrap();
    fs::rename(merged.join("old/below"), merged.join("last/below")).unwrap();
    assert_eq!(ino(&merged.join("last")), before, "the number is given out again");
    assert_eq!(bench.changes("2", None), bench.walked("2", "1"));
    assert!(bench.changes("2", None).contains(&"Added /last/below".to_owned()));
    bench.unmount("2");
}

use tests::root::TempRoot;

#[test]
fn a_large_directory_and_many_names_are_told_exactly() {
    if !here() {
        return;
    }
    let bench = Bench::new("large", &[]);
    bench.create("1", None);
    let base = bench.mount("1");
    fs::create_dir(base.join("many")).unwrap();
    for number in 0..3000 {
        fs::write(base.join(format!("many/{number:0>60}")), "x").unwrap();
    }
    // More names than fit in one item of each kind.
    fs::create_dir(base.join("links")).unwrap();
    for number in 0..700 {
        fs::hard_link(
            base.join("many").join("0".repeat(60)),
            base.join(format!("links/{number:0>80}")),
        )
        .unwrap();
    }
    bench.unmount("1");
    bench.commit("1");
    bench.create("2", Some("1"));
    let merged = bench.mount("2");
    fs::write(merged.join("links").join(format!("{:0>80}", 5)), "changed").unwrap();
    fs::remove_file(merged.join(format!("many/{:0>60}", 17))).unwrap();
    bench.unmount("2");
    let found = bench.changes("2", None);
    assert_eq!(found, bench.walked("2", "1"));
    assert_eq!(found.iter().filter(|line| line.starts_with("Modified /links/")).count(), 700);
    bench.commit("2");
    assert_eq!(bench.changes("2", None), found, "the same after the commit");
}
