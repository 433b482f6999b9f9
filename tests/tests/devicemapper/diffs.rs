//! The difference of layers on thin devices: it is what a walk over both trees finds, and costs what
//! the change costs. In a guest, since this machine's kernel may have no device mapper.

mod cases;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, SystemTime};

use tests::daemon::Finish as _;
use tests::random::{self, Random};
use tests::uml::{self, Guest};

use crate::bench::{Bench, Log, id};
use crate::deaths::die;
use crate::{FILE_SYSTEMS, PATIENCE};

/// How many random histories are compared.
const ROUNDS: &str = "THIN_DIFF_ROUNDS";

#[test]
fn differences_are_exact_and_cost_what_changed_in_a_guest() {
    if !uml::available() {
        return;
    }
    let rounds = std::env::var_os(ROUNDS);
    let guest = Guest::new().patience(PATIENCE).disk(2048);
    let guest = rounds.into_iter().fold(guest, |guest, rounds| guest.variable(ROUNDS, rounds));
    print!("{}", guest.run_ignored("diffs::"));
}

/// Every kind of change, told as it is: while the layer is mounted, and of some when it is not, and after
/// their commit.
#[test]
#[ignore = "runs in a guest"]
fn every_kind_of_change() {
    for (label, options) in FILE_SYSTEMS {
        let bench = Bench::new(options);
        bench.create("1", None);
        cases::base(&bench.mount("1"));
        bench.unmount("1");
        bench.commit("1");
        for (number, (name, change, expected)) in cases::CASES.iter().enumerate() {
            let layer = format!("case{number}");
            bench.create(&layer, Some("1"));
            change(&bench.mount(&layer));
            let compare = |when: &str| {
                let log = Log::default();
                let found = log.during(|| bench.changes(&layer, "1"));
                assert_eq!(found, *expected, "{label}: {name}, {when}");
                assert_eq!(log.walks(), [""; 0], "{label}: {name}, {when}: it was walked");
            };
            compare("mounted");
            assert_eq!(bench.walked(&layer, "1"), *expected, "{label}: {name}, walked");
            bench.unmount(&layer);
            if number % 8 == 0 {
                compare("unmounted");
            }
            if number % 3 == 0 {
                bench.commit(&layer);
                compare("committed");
            }
            bench.remove(&layer);
        }
    }
}

#[test]
#[ignore = "runs in a guest"]
fn random_work_is_found_as_the_double_walk_finds_it() {
    for (label, options) in FILE_SYSTEMS {
        let bench = Bench::new(options);
        let rounds = std::env::var(ROUNDS).map_or(2, |rounds| rounds.parse().expect("a number"));
        (1..=rounds).for_each(|seed| random_work(&bench, seed, label));
        assert_eq!(bench.findings(), [""; 0], "{label}: a snapshot of a comparison is left");
    }
}

/// A base, and three layers on it.
fn random_work(bench: &Bench, seed: u64, label: &str) {
    let mut random = Random::new(seed);
    let mut log = Vec::new();
    let layer = |number: u64| format!("{seed}-{number}");
    bench.create(&layer(0), None);
    let base = bench.mount(&layer(0));
    (0..200).for_each(|_| random::step(&mut random, &base, &mut log));
    bench.unmount(&layer(0));
    bench.commit(&layer(0));
    for number in 1..=3 {
        let (name, below) = (layer(number), layer(number - 1));
        bench.create(&name, Some(&below));
        for check in 0..2 {
            let merged = bench.mount(&name);
            (0..25).for_each(|_| random::step(&mut random, &merged, &mut log));
            // Mounted, and with data that is in memory only.
            let ways = Log::default();
            let found = ways.during(|| bench.changes(&name, &below));
            assert_eq!(ways.walks(), [""; 0], "{label}: {name}: it was walked");
            let walked = bench.walked(&name, &below);
            assert_eq!(found, walked, "{label}: {name}, check {check}: {log:#?}");
            bench.unmount(&name);
        }
        bench.commit(&name);
        log.push("commit".to_owned());
        for base in (0..number).map(layer) {
            let found = bench.changes(&name, &base);
            assert_eq!(found, bench.walked(&name, &base), "{label}: {name} on {base}: {log:#?}");
        }
    }
}

#[test]
#[ignore = "runs in a guest"]
fn a_crash_in_a_comparison_leaves_what_repair_deletes() {
    let mut bench = Bench::new(&[]);
    bench.create("1", None);
    bench.commit("1");
    bench.create("2", Some("1"));
    fs::write(bench.mount("2").join("new"), "x").unwrap();
    bench.unmount("2");
    bench.reopen_after(|home| die("dies_in_a_comparison", "snapshot lent", home));
    let findings = bench.findings();
    assert!(findings.len() == 1 && findings[0].contains("belongs to no layer"), "{findings:?}");
    bench.driver().repair().expect("repair");
    assert_eq!(bench.findings(), [""; 0], "after the repair");
    assert_eq!(bench.changes("2", "1"), ["Added /new"], "and all goes on");
    // More numbers than one window has are taken, and none is left behind.
    bench.mount("2");
    for number in 0..70 {
        let held = bench.driver().diff(&id("2"), None, &mut std::io::sink());
        held.unwrap_or_else(|error| panic!("diff {number}: {error}"));
    }
    bench.unmount("2");
    assert_eq!(bench.findings(), [""; 0], "after more than a window of comparisons");
}

#[test]
#[ignore = "runs in a guest"]
fn ten_changes_cost_as_much_in_a_large_tree_as_in_a_small_one() {
    FILE_SYSTEMS.into_iter().for_each(|(label, options)| ten_changes(&Bench::new(options), label));
}

fn ten_changes(bench: &Bench, label: &str) {
    let mut costs = Vec::new();
    for directories in [20, 100] {
        let (image, layer) = (format!("image{directories}"), format!("layer{directories}"));
        bench.create(&image, None);
        let base = bench.mount(&image);
        for directory in 0..directories {
            let directory = base.join(format!("dir{directory}"));
            fs::create_dir(&directory).unwrap();
            (0..20).for_each(|file| {
                fs::write(directory.join(format!("file{file}")), vec![b'x'; 10_000]).unwrap();
            });
        }
        bench.unmount(&image);
        bench.commit(&image);
        bench.create(&layer, Some(&image));
        let merged = bench.mount(&layer);
        for number in 0..10 {
            let file = format!("dir{}/file{number}", number % 4);
            fs::write(merged.join(file), "changed").unwrap();
        }
        bench.unmount(&layer);
        bench.commit(&layer);

        // A mount of xfs reads up to 2 MiB of its log, the more the more was written.
        let mounted: Vec<_> = [&image, &layer].into_iter().filter(|_| label == "xfs").collect();
        mounted.iter().for_each(|name| drop(bench.mount(name)));
        let log = Log::default();
        let (told, bytes, time) = bench.cost(|| log.during(|| bench.changes(&layer, &image)));
        let (walked, all_bytes, all_time) = bench.cost(|| bench.walked(&layer, &image));
        mounted.iter().for_each(|name| bench.unmount(name));
        assert_eq!(told, walked, "{label}: {directories} directories");
        assert_eq!(told.len(), 10, "{told:?}");
        let [inodes, written, read] = ["inodes", "written", "directories"].map(|n| log.number(n));
        println!(
            "{label}: {} files, 10 changed: {bytes} bytes read in {time:?}, {inodes} inodes compared, {read} \
             directories read, {written} files looked at; walk: {all_bytes} bytes in {all_time:?}",
            directories * 20
        );
        assert_eq!(written, 10, "{label}: files looked at");
        // One block of the pool has 256 inodes; the files are in the tables of few groups.
        assert!(inodes <= 10 * 256, "{label}: {inodes} inodes compared");
        costs.push((bytes, all_bytes));
    }
    let [(small, small_walk), (large, large_walk)] = costs[..] else { panic!("{costs:?}") };
    assert!(large_walk > 4 * small_walk, "{label}: the walk grows with the tree: {costs:?}");
    assert!(large < 2 * small, "{label}: the other does not: {costs:?}");
    assert!(large * 10 < large_walk, "{label}: and is far below: {costs:?}");
}

/// What is not certain is walked, and the reason is said.
#[test]
#[ignore = "runs in a guest"]
fn whatever_is_uncertain_is_walked() {
    let bench = Bench::new(&["dm.mkfsarg=-Oinline_data"]);
    let check = |bench: &Bench, base: &str, layer: &str, reason: &str| {
        let log = Log::default();
        let found = log.during(|| bench.changes(layer, base));
        assert_eq!(found, ["Added /new"], "{reason}");
        let walks = log.walks();
        assert!(walks.len() == 1 && walks[0].contains(reason), "{reason}: {walks:?}");
    };
    let make = |bench: &Bench, size: Option<u64>| {
        bench.create("1", None);
        bench.commit("1");
        bench.create_sized("2", "1", size);
        fs::write(bench.mount("2").join("new"), "x").unwrap();
        bench.unmount("2");
    };
    make(&bench, None);
    check(&bench, "1", "2", "features 0x8000");
    drop(bench);

    let bench = Bench::new(&[]);
    make(&bench, Some(768 << 20));
    check(&bench, "1", "2", "is not");
    bench.remove("2");
    bench.create("3", Some("1"));
    fs::write(bench.mount("3").join("new"), "x").unwrap();
    bench.unmount("3");
    let message = |text: &str| bench.message(text);
    // Somebody else reads the pool's metadata.
    message("reserve_metadata_snap");
    check(&bench, "1", "3", "reserve_metadata_snap");
    message("release_metadata_snap");
    // The file system was mended, which dates nothing.
    bench.commit("3");
    bench.create("4", Some("3"));
    // The date of a check has whole seconds, and this file system was made in one, which must be over.
    let made = whole_seconds();
    while whole_seconds() == made {
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.fsck("4");
    let log = Log::default();
    assert_eq!(log.during(|| bench.changes("4", "3")), ["Added /lost+found"]);
    let walks = log.walks();
    assert!(walks.len() == 1 && walks[0].contains("checked"), "{walks:?}");
}

/// What mends an xfs file system leaves no date, neither on it nor on what it has changed.
#[test]
#[ignore = "runs in a guest"]
fn what_was_mended_on_xfs_is_walked() {
    let bench = Bench::new(&["dm.fs=xfs"]);
    bench.create("1", None);
    fs::write(bench.mount("1").join("file"), "x").unwrap();
    bench.unmount("1");
    bench.commit("1");
    bench.create("2", Some("1"));
    let ino = fs::metadata(bench.mount("2").join("file")).unwrap().ino();
    bench.unmount("2");
    let names = [format!("inode {ino}"), "write core.nlinkv2 7".to_owned()];
    bench.on_device("2", |node| {
        let mut xfs_db = Command::new("xfs_db");
        xfs_db.args(["-x", "-c", &names[0], "-c", &names[1]]).arg(node).finish().ok();
    });
    let findings = bench.findings();
    assert!(findings.len() == 1 && findings[0].contains("its file system"), "{findings:?}");
    bench.driver().repair().expect("repair");
    assert_eq!(bench.findings(), [""; 0], "after the repair");
    bench.commit("2");
    bench.create("3", Some("2"));
    fs::write(bench.mount("3").join("new"), "x").unwrap();
    bench.unmount("3");
    for (name, base, is_mended) in [("2", "1", true), ("3", "1", true), ("3", "2", false)] {
        let log = Log::default();
        let found = log.during(|| bench.changes(name, base));
        assert_eq!(found, bench.walked(name, base), "{name} on {base}");
        let walks = log.walks();
        assert_eq!(!walks.is_empty(), is_mended, "{name} on {base}: {walks:?}");
        assert!(walks.iter().all(|reason| reason.contains("mended")), "{walks:?}");
    }
}

fn whole_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("a clock that is past 1970").as_secs()
}
