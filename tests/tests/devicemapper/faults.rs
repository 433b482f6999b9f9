//! Disks that fail for a while: what is reported as done is done, what cannot be done says why, and
//! when the disk is well again the store is sound and has lost nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use drivers::{Access, CreateOptions, LayerRecord};
use layerd_api::types::CommitSnapshotRequest;
use tempfile::TempDir;
use tests::archive;
use tests::daemon::{Daemon, Finish as _};
use tests::life::{self, Active, Durable, Kept};
use tests::mapped::{Mapped, SECTOR};
use tests::programs;
use tests::uml::{self, Guest};

use crate::PATIENCE;
use crate::layout::{self, Layout, MIB, OPTIONS, PARTS};

const DISK: &str = "/dev/ubdb";

/// Which of the parts of a layout.
const HOME: usize = 0;
const METADATA: usize = 1;
const DATA: usize = 2;

/// What a disk does, and to whom.
struct Case {
    what: &'static str,
    parts: &'static [usize],
    /// A feature of `dm-flakey`.
    does: &'static str,
    /// What an import, a commit and a removal say then; nothing for one that may be done.
    said: [&'static str; 3],
}

const CASES: [Case; 5] = [
    Case {
        what: "data takes no writes",
        parts: &[DATA],
        does: "error_writes",
        said: ["apply layer", "commit layer", ""],
    },
    Case {
        what: "metadata takes no writes",
        parts: &[METADATA],
        does: "error_writes",
        said: ["thin_check", "thin_check", ""],
    },
    Case {
        what: "home takes no writes",
        parts: &[HOME],
        does: "error_writes",
        // The journal may have given up before anything is synced, by a commit of its own.
        said: ["Input/output error|Read-only file system", "commit layer", "Read-only file system"],
    },
    Case {
        what: "nothing takes writes",
        parts: &[HOME, METADATA, DATA],
        does: "error_writes",
        said: ["apply layer|Read-only file system", "commit layer", "Read-only file system"],
    },
    // A disk that lies, until the power is cut.
    Case {
        what: "writes are lost",
        parts: &[HOME, METADATA, DATA],
        does: "drop_writes",
        said: ["", "", ""],
    },
];

#[test]
fn disks_that_fail_for_a_while_lose_nothing() {
    if !uml::available() {
        return;
    }
    let _ = programs::path("layerd");
    let guest = Guest::new().patience(PATIENCE).disk(MIB);
    print!("{}", guest.run_ignored("faults::every_case_in_this_kernel"));
}

/// A disk in three parts, each of which can be made to fail.
struct Flaky([Mapped; 3]);

impl Flaky {
    fn new() -> Self {
        let flaky = |index: usize| {
            let (name, _, mib) = PARTS[index];
            let sectors = (mib << 20) / SECTOR;
            Mapped::new(&format!("flaky-{name}"), sectors, "flakey", &Self::well(index))
        };
        Self([HOME, METADATA, DATA].map(flaky))
    }

    /// Always up, never down.
    fn well(index: usize) -> String {
        format!("{DISK} {} 3600 0", (PARTS[index].1 << 20) / SECTOR)
    }

    fn fail(&self, parts: &[usize], feature: &str) {
        for &index in parts {
            let start = (PARTS[index].1 << 20) / SECTOR;
            self.0[index].replace("flakey", &format!("{DISK} {start} 0 3600 1 {feature}"));
        }
    }

    fn heal(&self) {
        for (index, part) in self.0.iter().enumerate() {
            part.replace("flakey", &Self::well(index));
        }
    }

    /// An empty home, and an empty pool.
    fn blank(&self) {
        let [home, metadata, _] = &self.0;
        let metadata = File::options().write(true).open(metadata.path()).expect("a disk");
        metadata.write_all_at(&[0; 65_536], 0).and_then(|()| metadata.sync_all()).expect("zeros");
        layout::make_home(&home.path());
    }

    /// What lies on them.
    fn layout(&self) -> Layout {
        let parts = [HOME, METADATA, DATA].map(|index| {
            let (name, _, mib) = PARTS[index];
            Mapped::part(name, self.0[index].path().to_str().expect("a name"), 0, mib)
        });
        Layout::of(parts)
    }
}

#[test]
#[ignore = "run in a guest by disks_that_fail_for_a_while_lose_nothing"]
fn every_case_in_this_kernel() {
    let dir = TempDir::new().expect("a directory");
    let archives: Vec<_> = (0..4).map(|number| life::archive(dir.path(), number, 24)).collect();
    for case in CASES {
        let begun = Instant::now();
        survives(&case, &archives);
        println!("{}: {:?}", case.what, begun.elapsed());
    }
}

/// Lives, fails, is mended, and lives on.
fn survives(case: &Case, archives: &[(PathBuf, String)]) {
    let what = case.what;
    let flaky = Flaky::new();
    flaky.blank();
    let layout = flaky.layout();
    let daemon = layout.daemon();
    let client = daemon.client();
    let import = |daemon: &Daemon, number: usize| {
        daemon.layerctl(["import".as_ref(), archives[number].0.as_os_str()])
    };
    let image = |number: usize| Kept::Image(archives[number].1.clone());
    import(&daemon, 0).ok();
    import(&daemon, 1).ok();
    let mut durable = vec![Durable::new(&client, image(0), 0)];
    let work = Active::new(&client, &archives[0].1, "active");
    let stays = Active::new(&client, &archives[0].1, "mounted");
    flaky.fail(case.parts, case.does);
    for client in [&work, &stays] {
        let _ = std::fs::write(client.path().join("new"), "x".repeat(50_000));
    }
    drop(work);
    let imported = import(&daemon, 2);
    let commit = |key: &str| {
        let (key, name) = (key.to_owned(), format!("{key}, committed"));
        client.commit_snapshot(&CommitSnapshotRequest { key, name, labels: BTreeMap::default() })
    };
    let committed = [commit("active"), commit("mounted")].map(Result::err);
    // Were it frozen, this would not end.
    let _ = std::fs::write(stays.path().join("more"), "x");
    drop(stays);
    let removed = daemon.layerctl(["rmi", &archives[1].1]);
    let [active, mounted] = committed.map(|error| error.map(|error| error.to_string()));
    let [of_import, of_commit, of_removal] = case.said;
    let failures = [
        ((imported.code != Some(0)).then_some(imported.stderr), of_import),
        (active, of_commit),
        (mounted, of_commit),
        ((removed.code != Some(0)).then_some(removed.stderr), of_removal),
    ];
    for (failure, said) in failures.iter().filter(|(_, said)| !said.is_empty()) {
        let failure = failure.as_ref().unwrap_or_else(|| panic!("{what}: done, though {said:?}"));
        let is_said = said.split('|').any(|said| failure.contains(said));
        assert!(is_said, "{what}: {said:?} is not said: {failure}");
    }
    drop(daemon.kill());
    drop(layout);
    flaky.heal();
    check_metadata(&flaky);

    let layout = flaky.layout();
    let store = life::find(layout.path()).expect("a store");
    let daemon = life::revive(layout.path(), &store, &OPTIONS, what);
    for image in &durable {
        image.look(&daemon.client(), what);
    }
    import(&daemon, 3).ok();
    durable.push(Durable::new(&daemon.client(), image(3), 0));
    drop(daemon.kill());
}

/// A tar during which the disk begins to fail.
struct Failing<'a> {
    tar: &'a [u8],
    flaky: &'a Flaky,
    begun: bool,
}

impl Read for Failing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            self.flaky.fail(&[DATA], "error_writes");
            self.begun = true;
        }
        self.tar.read(into)
    }
}

/// The kernel writes files when it likes, and an unmount tells nobody that it could not.
#[test]
#[ignore = "run in a guest by disks_that_fail_for_a_while_lose_nothing"]
fn every_case_in_this_kernel_of_a_fault_that_passes() {
    let flaky = Flaky::new();
    flaky.blank();
    let layout = flaky.layout();
    let options: Vec<&str> = OPTIONS.into_iter().filter(|word| word.starts_with("dm.")).collect();
    let driver = drivers::open("devicemapper", &layout.path().join("home"), &options);
    let driver = driver.expect("a driver");
    let content = "x".repeat(3_000_000);
    let tar = archive::layer(&[("file", &content)]);
    let mut applied = Vec::new();
    for (number, fails) in [false, true].into_iter().enumerate() {
        let id = format!("layer{number}").parse().expect("an id");
        driver.create(&id, None, &CreateOptions::active()).expect("a layer");
        let mut reader = Failing { tar: &tar, flaky: &flaky, begun: !fails };
        let done = driver.apply(&id, &mut reader).map(drop);
        flaky.heal();
        let done = done.and_then(|()| driver.commit(&id, &LayerRecord::default()).map(drop));
        println!("failing: {fails}: {done:?}");
        if done.is_ok() {
            let path = driver.mount(&id, Access::ReadOnly).expect("a mount").join("file");
            let found = std::fs::read_to_string(path).expect("the file");
            assert!(found == content, "what was committed is not there, and nobody said so");
            driver.unmount(&id).expect("not in use");
        }
        applied.push(done.is_ok());
    }
    assert_eq!(applied, [true, false], "what cannot be written is not applied");
}

/// What an administrator does with a pool that asks for it.
fn check_metadata(flaky: &Flaky) {
    let mut check = Command::new("thin_check");
    check.arg("--clear-needs-check-flag").arg(flaky.0[METADATA].path()).finish().ok();
}
