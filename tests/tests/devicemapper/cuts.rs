//! Power cuts: home and pool lie on one device whose writes are logged, and the log is played onto
//! another one, to each mark and to points between.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;
use tests::life::{self, Durable, Random};
use tests::logwrites::Log;
use tests::mapped::{Mapped, SECTOR};
use tests::programs;
use tests::uml::{self, Guest};

use crate::PATIENCE;
use crate::layout::{Layout, MIB, OPTIONS};

/// The guest's disks: what is written to, its log, what the log is played onto, and what a cut writes.
const DISK: &str = "/dev/ubdb";
const LOG: &str = "/dev/ubdc";
const PLAYED: &str = "/dev/ubdd";
const WRITTEN: &str = "/dev/ubde";

/// How many points between the marks are played.
const BETWEEN: usize = 8;

#[test]
fn what_was_durable_survives_power_cuts() {
    if !uml::available() {
        return;
    }
    let _ = programs::path("layerd");
    let guest = Guest::new().patience(PATIENCE).disk(MIB).disk(2 * MIB).disk(MIB).disk(MIB);
    print!("{}", guest.run_ignored("cuts::every_cut_in_this_kernel"));
}

#[test]
#[ignore = "run in a guest by what_was_durable_survives_power_cuts"]
fn every_cut_in_this_kernel() {
    let begun = Instant::now();
    let (log, durable) = logged_life();
    let marks = points(&log);
    let mut cuts: Vec<usize> = marks.iter().map(|mark| mark + 1).collect();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (first, end) = (marks[0], log.len());
    cuts.extend(
        (0..BETWEEN)
            .map(|part| first + (part * (end - first) + random.below(end - first)) / BETWEEN),
    );
    cuts.sort_unstable();
    println!("{} entries, {} marks, in {:?}", log.len(), marks.len(), begun.elapsed());

    let played = File::options().write(true).open(PLAYED).expect("a disk");
    let (mut done, mut seen) = (0, 0);
    for &at in &cuts {
        let safe = log.flushed(at);
        log.play(done..safe, &played, || true).expect("room");
        played.sync_all().expect("a disk");
        done = safe;
        let kept = random.below(4);
        let point = marks.iter().filter(|&&mark| mark < at).count();
        let expected: Vec<_> = durable.iter().filter(|image| image.is_at(point)).collect();
        let what = format!("cut at {at} of {end}, after {point} marks");
        let disk = Cut::new();
        let writable = File::options().write(true).open(disk.0.path()).expect("a disk");
        log.play(safe..at, &writable, || random.below(3) < kept).expect("room");
        writable.sync_all().expect("a disk");
        drop(writable);
        survives(&disk, &expected, &what);
        seen += expected.len();
        println!("{what}: {} are whole ({:?})", expected.len(), begun.elapsed());
    }
    println!(
        "{} cuts, {seen} images and snapshots looked at, in {:?}",
        cuts.len(),
        begun.elapsed()
    );
}

/// Lives on a device whose writes are logged, with a mark at each point of time.
fn logged_life() -> (Log<File>, Vec<Durable>) {
    let dir = TempDir::new().expect("a directory");
    let archives: Vec<_> = (0..3).map(|number| life::archive(dir.path(), number, 24)).collect();
    let sectors = (MIB << 20) / SECTOR;
    let device = Mapped::new("logged", sectors, "log-writes", &format!("{DISK} {LOG}"));
    let layout = Layout::new("/dev/mapper/logged");
    let mut point = 0;
    let mut mark = || {
        device.message(&format!("mark {point}"));
        point += 1;
        point
    };
    mark();
    let daemon = layout.daemon();
    let durable = life::live(&daemon, &archives, &[1, 2], &mut mark);
    mark();
    drop(daemon.kill());
    drop(layout);
    drop(device);
    (Log::open(Path::new(LOG)).expect("a log"), durable)
}

/// The places of the numbered marks in the log.
fn points(log: &Log<File>) -> Vec<usize> {
    let numbered = |(at, mark): (usize, &str)| mark.parse::<usize>().is_ok().then_some(at);
    log.marks().into_iter().filter_map(numbered).collect()
}

/// A disk after a cut: what was played, which stays as it is, and what is written from then on.
struct Cut(Mapped);

impl Cut {
    fn new() -> Self {
        // A snapshot is empty whose store begins with zeros.
        fs::OpenOptions::new()
            .write(true)
            .open(WRITTEN)
            .and_then(|disk| {
                use std::os::unix::fs::FileExt as _;
                disk.write_all_at(&[0; 65_536], 0)?;
                disk.sync_all()
            })
            .expect("a disk");
        let parameters = format!("{PLAYED} {WRITTEN} N 16");
        Self(Mapped::new("cut", (MIB << 20) / SECTOR, "snapshot", &parameters))
    }
}

/// Looks at a disk after a cut.
fn survives(disk: &Cut, expected: &[&Durable], what: &str) {
    let layout = Layout::on(disk.0.path().to_str().expect("a name"));
    let Some(store) = life::find(layout.path()) else {
        assert!(expected.is_empty(), "{what}: the whole store is gone");
        return;
    };
    let daemon = life::revive(layout.path(), &store, &OPTIONS, what);
    for image in expected {
        image.look(&daemon.client(), what);
    }
    drop(daemon.kill());
}
