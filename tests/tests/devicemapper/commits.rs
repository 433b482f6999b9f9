//! Commits and sizes of layers that their clients have mounted, on thin devices: what is committed is one
//! instant, whole and clean, and the client goes on. In a guest.

mod client;
mod crashes;
mod limits;
mod look;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use client::Client;
use drivers::{Access, Usage};
use tests::ops::{self, Op::*};
use tests::uml::{self, Guest};

use crate::bench::{Bench, Log, id};
use crate::{FILE_SYSTEMS, PATIENCE};

#[test]
fn mounted_layers_are_committed_and_measured_in_a_guest() {
    if !uml::available() {
        return;
    }
    print!("{}", Guest::new().patience(PATIENCE).disk(2048).run_ignored("commits::"));
}

/// A layer "2" that its client has mounted, upon a committed one "1" that has the file `below`.
fn mounted_upon_another(options: &[&str]) -> (Bench, Client) {
    let bench = Bench::new(options);
    bench.create("1", None);
    fs::write(bench.mount("1").join("below"), "below").unwrap();
    bench.unmount("1");
    bench.commit("1");
    bench.create("2", Some("1"));
    let client = Client::mount(&bench, "2");
    (bench, client)
}

/// The numbers of the files that a writer has left in a directory.
fn numbers(dir: &Path) -> Vec<u32> {
    let entries = fs::read_dir(dir).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix('w')?.parse().ok();
    let mut numbers: Vec<u32> = names.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// A client writes all the time, each file whole before the next one is begun. What is committed has the
/// first so many of them, each of them whole.
#[test]
#[ignore = "runs in a guest"]
fn what_is_committed_is_one_instant() {
    for (label, options) in FILE_SYSTEMS {
        let (bench, client) = mounted_upon_another(options);
        // One whose name has gone, of which nothing may be left.
        let mut nameless = File::create(client.path().join("nameless")).unwrap();
        nameless.write_all(&[b'n'; 200_000]).unwrap();
        fs::remove_file(client.path().join("nameless")).unwrap();
        let writer = client.write_on();
        writer.wait_for(20);
        let log = Log::default();
        log.during(|| bench.commit("2"));
        let at_commit = writer.written();
        writer.wait_for(at_commit + 20);
        let written = writer.stop();

        assert_eq!(numbers(client.path()).len(), written as usize, "{label}: the client has all");
        nameless.write_all(b"more").and_then(|()| nameless.sync_all()).expect("it goes on");
        let shown = bench.mount("2");
        let committed = numbers(&shown);
        let count = u32::try_from(committed.len()).unwrap();
        assert!(count >= 20 && count <= at_commit, "{label}: {count} of {at_commit}");
        assert!(committed.iter().copied().eq(0..count), "{label}: not the first: {committed:?}");
        for number in 0..count {
            let content = fs::read(shown.join(format!("w{number}"))).unwrap();
            let expected = client::content(number);
            // The last may not have been written to the end.
            let is_right =
                content == expected || number + 1 == count && expected.starts_with(&content);
            assert!(is_right, "{label}: file {number} of {count} is not whole");
        }
        assert_eq!(fs::read(shown.join("below")).unwrap(), b"below", "{label}");
        bench.unmount("2");
        assert_eq!(log.walks(), [""; 0], "{label}: how it was measured");
        bench.is_clean("2");
        let old = client.device();
        drop(nameless);
        client.unmount();
        bench.until("the client's device is gone", || !bench.devices().contains(&old));
        assert_eq!(bench.findings(), [""; 0], "{label}: something is left over");

        // What is written upon it is told, however soon it is written.
        bench.create("3", Some("2"));
        let path = bench.mount("3").join("w0");
        File::options().write(true).open(path).unwrap().write_all_at(b"!", 0).unwrap();
        bench.unmount("3");
        assert_eq!(bench.changes("3", "2"), ["Modified /w0"], "{label}: its child");
    }
}

/// A client may have it mounted where the daemon does not see it, or as a part of its file tree.
#[test]
#[ignore = "runs in a guest"]
fn wherever_it_is_mounted_it_is_committed() {
    let bench = Bench::new(&[]);
    let ways: [(&str, client::Way); 4] = [
        ("a mount", Client::mount),
        ("a bind mount", Client::bind),
        ("another namespace", Client::elsewhere),
        ("a read-only mount", Client::read_only),
    ];
    for (number, (way, mount)) in ways.into_iter().enumerate() {
        let name = format!("layer{number}");
        bench.create(&name, None);
        fs::write(bench.mount(&name).join("file"), way).unwrap();
        bench.unmount(&name);
        let client = mount(&bench, &name);
        assert_eq!(bench.lone_changes(&name), ["Added /file"], "{way}");
        let usage = bench.driver().usage(&id(&name)).expect(way);
        assert_eq!((usage.inodes, usage.content), (2, way.len() as u64), "{way}: {usage:?}");
        bench.commit(&name);
        let shown = bench.mount(&name);
        assert_eq!(fs::read_to_string(shown.join("file")).unwrap(), way, "{way}");
        bench.unmount(&name);
        bench.is_clean(&name);
        assert_eq!(client.read("file"), way, "{way}: the client has what it had");
        // The layer may go before its client does.
        bench.remove(&name);
        assert_eq!(client.read("file"), way, "{way}: after the removal");
        let old = client.device();
        client.unmount();
        bench.until(way, || !bench.devices().contains(&old));
    }
    assert_eq!(bench.findings(), [""; 0], "something is left over");
}

/// The kernel mounts nothing that is frozen, and each look at a layer in use freezes it for a moment.
#[test]
#[ignore = "runs in a guest"]
fn many_look_at_one_layer_and_at_what_it_stands_on() {
    for (label, options) in FILE_SYSTEMS {
        let (bench, client) = mounted_upon_another(options);
        fs::write(client.path().join("above"), "above").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let bench = &bench;
                scope.spawn(move || {
                    for round in 0..4 {
                        let usage = bench.driver().usage(&id("2")).expect(label);
                        assert_eq!((usage.inodes, usage.content), (2, 5), "{label}: {usage:?}");
                        let child = format!("child{thread}-{round}");
                        bench.create(&child, Some("1"));
                        bench.commit(&child);
                        bench.remove(&child);
                    }
                });
            }
        });
        client.can_write(label);
        client.unmount();
        assert_eq!(bench.findings(), [""; 0], "{label}: something is left over");
    }
}

/// Sizes are those of the changes, whatever of them is in memory only, and the same after the commit.
#[test]
#[ignore = "runs in a guest"]
fn a_layer_is_as_large_as_its_changes() {
    let long = "x".repeat(150_000);
    for (label, options) in FILE_SYSTEMS {
        let bench = Bench::new(options);
        bench.create("1", None);
        let base =
            [File("kept", &long), File("changed", &long), File("gone", &long), Dir("d", 0o755)];
        ops::apply(&bench.mount("1"), &base);
        bench.unmount("1");
        bench.commit("1");
        let usage = |name: &str| bench.driver().usage(&id(name)).expect(name);
        assert_eq!((usage("1").inodes, usage("1").content), (5, 450_000), "{label}: below");
        bench.create("2", Some("1"));
        let client = Client::mount(&bench, "2");
        let empty = usage("2");
        assert_eq!((empty.inodes, empty.content), (1, 0), "{label}: nothing was changed");
        assert!(empty.bytes <= 4096, "{label}: {empty:?}");
        ops::apply(
            client.path(),
            &[
                Write("changed", 10, "y"),
                Remove("gone"),
                File("d/new", &long[..70_000]),
                Link("d/two", "d/new"),
                Symlink("link", "d"),
                Chmod("kept", 0o600),
                Chmod("kept", 0o644),
            ],
        );
        let active = usage("2");
        let exclusive = || {
            let keys = bench.driver().metadata(&id("2")).unwrap();
            keys["ExclusiveBytes"].parse::<u64>().unwrap()
        };
        let on_disk = exclusive();
        // Root, changed, d, d/new, link.
        let content = 150_000 + 70_000;
        assert_eq!((active.inodes, active.content), (5, content), "{label}: {active:?}");
        let room = content..content + 40_000;
        assert!(room.contains(&active.bytes), "{label}: {active:?}");
        bench.commit("2");
        client.unmount();
        let committed: Usage = usage("2");
        assert_eq!(committed, active, "{label}: after its commit");
        // The file of 70,000 bytes, one block of the changed one, and the file system's own.
        for own in [on_disk, exclusive()] {
            assert!((128 << 10..4 << 20).contains(&own), "{label}: {own} bytes of the pool");
            assert_eq!(own % (64 << 10), 0, "{label}: whole blocks");
        }
        let info = bench.driver().info(&id("2")).unwrap();
        assert_eq!(info.usage, Some(committed), "{label}");
        let shown = bench.driver().mount(&id("2"), Access::ReadOnly).unwrap();
        assert!(!shown.join("gone").exists() && shown.join("d/two").exists(), "{label}");
        bench.unmount("2");
    }
}
