//! Commits on a pool that is full, or fills up in the middle, and of a layer that somebody else has frozen.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use drivers::{ErrorKind, LayerRecord, State};
use tests::daemon::Finish as _;

use super::client::Client;
use super::look::{Raw, is_suspended};
use crate::bench::{Bench, id};

const BLOCK: u64 = 64 << 10;

/// A number outside of what the driver gives out, for a device that takes space away.
const NUMBER: &str = "1000000";

/// Somebody who leaves so many blocks of the pool free as he likes.
struct Filler {
    raw: Raw,
    has: u64,
}

impl Filler {
    fn new(bench: &Bench) -> Self {
        bench.message(&format!("create_thin {NUMBER}"));
        Self { raw: Raw::new("filler", NUMBER, 1 << 30, false), has: 0 }
    }

    fn leave(&mut self, bench: &Bench, free: u64) {
        // They would give blocks back after they were counted.
        bench.until("deferred devices are deleted", || {
            bench.driver().pool().expect("a pool").report().expect("its report").deferred == 0
        });
        let file = File::options().write(true).open(self.raw.path()).expect("the device");
        let there = Self::free(bench);
        for _ in free..there {
            file.write_all_at(&vec![b'x'; 65_536], self.has * BLOCK).expect("a block");
            self.has += 1;
        }
        file.sync_all().expect("a pool with so much space");
        drop(file);
        if there < free {
            self.has -= free - there;
            let offset = (self.has * BLOCK).to_string();
            Command::new("blkdiscard").args(["-o", &offset]).arg(self.raw.path()).finish().ok();
        }
        bench.until("the pool says so", || Self::free(bench) == free);
    }

    fn free(bench: &Bench) -> u64 {
        let data = bench.driver().pool().expect("a pool").report().expect("its report").data;
        (data.total - data.used) / BLOCK
    }
}

/// Below 16 MiB a layer that is mounted is left alone: its client would come to harm.
#[test]
#[ignore = "runs in a guest"]
fn on_a_pool_that_is_nearly_full_nobody_is_frozen() {
    let bench = Bench::sized(&[], 96);
    bench.create("1", None);
    bench.commit("1");
    let mut filler = Filler::new(&bench);
    for (left, is_done) in [(0, false), (1, false), (100, false), (255, false), (256, true)] {
        let name = format!("layer{left}");
        filler.leave(&bench, 300);
        bench.create(&name, Some("1"));
        let client = Client::mount(&bench, &name);
        fs::write(client.path().join("before"), "before").unwrap();
        rustix::fs::syncfs(File::open(client.path()).unwrap()).unwrap();
        filler.leave(&bench, left);
        // What is only looked at is told all the same.
        assert_eq!(bench.changes(&name, "1"), ["Added /before"], "{left} left");
        let usage = bench.driver().usage(&id(&name)).expect("its size");
        assert_eq!((usage.inodes, usage.content), (2, 6), "{left} left");
        let outcome = bench.driver().commit(&id(&name), &LayerRecord::default());
        let device = client.device();
        assert!(!is_suspended(&device), "{left} left: its client is frozen");
        assert_eq!(outcome.is_ok(), is_done, "{left} left: {outcome:?}");
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{left} left: {error}");
            let said = error.to_string();
            assert!(said.contains(&name) && said.contains("add-device"), "{left} left: {error}");
            assert_eq!(bench.driver().info(&id(&name)).unwrap().state, State::Active, "{left}");
            filler.leave(&bench, 300);
            client.can_write(&format!("{left} left"));
            bench.commit(&name);
        }
        bench.is_clean(&name);
        client.unmount();
        bench.until("the client's device is gone", || !bench.devices().contains(&device));
        bench.remove(&name);
        assert_eq!(bench.findings(), [""; 0], "{left} left: something is left over");
    }
}

/// Somebody makes a backup of a container's file system.
#[test]
#[ignore = "runs in a guest"]
fn what_somebody_else_has_frozen_is_refused_and_stays_so() {
    let bench = Bench::new(&[]);
    bench.create("1", None);
    bench.commit("1");
    bench.create("2", Some("1"));
    let client = Client::mount(&bench, "2");
    fs::write(client.path().join("before"), "before").unwrap();
    let freeze = |how: &str| Command::new("fsfreeze").arg(how).arg(client.path()).finish().ok();
    freeze("--freeze");
    let error = bench.driver().commit(&id("2"), &LayerRecord::default()).expect_err("frozen");
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(!is_suspended(&client.device()), "it is frozen twice");
    // A look needs no freeze of its own.
    assert_eq!(bench.changes("2", "1"), ["Added /before"]);
    freeze("--unfreeze");
    client.can_write("unfrozen");
    bench.commit("2");
    bench.is_clean("2");
}
