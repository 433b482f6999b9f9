//! Where a pool comes from, what is refused and why, and what grows: each in a guest, by the driver's
//! own interface.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use drivers::{Access, CreateOptions, Driver, LayerId, LayerRecord, PoolReport};
use tests::daemon::Finish as _;
use tests::mapped::Mapped;
use tests::root::TempRoot;
use tests::thinpool::ThinPool;
use tests::uml::{self, Guest};
use tests::{host, programs};

use crate::PATIENCE;

/// The disks after the one that [`ThinPool`] takes: two for a pool, and one to be added.
const FIRST: &str = "/dev/ubdc";
const SECOND: &str = "/dev/ubdd";
const THIRD: &str = "/dev/ubde";

/// Makes a partition table with one partition.
const PARTITIONS: &str = concat!(
    r"{ head -c 446 /dev/zero; printf '\0\40\41\0\203\0\0\0\0\10\0\0\0\120\0\0'; ",
    r"head -c 48 /dev/zero; printf '\125\252'; } >/dev/ubdc"
);

#[test]
fn every_way_to_a_pool_is_gone() {
    if !uml::available() || !host::provides(&["busybox"]) {
        return;
    }
    let _ = programs::path("layerd");
    let guest = Guest::new().patience(PATIENCE).disk(1024).disk(128).disk(128).disk(64);
    print!("{}", guest.run_ignored("::in_this_kernel"));
}

fn id(name: &str) -> LayerId {
    name.parse().expect("an id")
}

fn open(home: &Path, options: &[&str]) -> Box<dyn Driver> {
    drivers::open("devicemapper", home, options)
        .unwrap_or_else(|error| panic!("{options:?}: {error}"))
}

/// What a driver says that must not open.
fn refusal(home: &Path, options: &[&str]) -> String {
    match drivers::open("devicemapper", home, options) {
        Ok(_) => panic!("{options:?} is taken"),
        Err(error) => error.to_string(),
    }
}

fn shell(script: &str) -> String {
    Command::new("sh").args(["-ec", script]).finish().ok()
}

/// Waits for what the driver or the kernel does behind the calls.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn used(driver: &dyn Driver) -> u64 {
    driver.pool().expect("a pool").report().expect("its report").data.used
}

/// Writes a file into a layer, as its client would.
fn write(driver: &dyn Driver, layer: &str, name: &str, bytes: usize) {
    let path = driver.mount(&id(layer), Access::Default).expect("a mount");
    let file = File::create(path.join(name)).expect("a file");
    file.write_all_at(&vec![b'x'; bytes], 0).and_then(|()| file.sync_all()).expect("room");
    drop(file);
    driver.unmount(&id(layer)).expect("not in use");
}

fn create(driver: &dyn Driver, layer: &str, parent: Option<&str>, size: Option<u64>) {
    let options = CreateOptions { size, ..CreateOptions::active() };
    let made = driver.create(&id(layer), parent.map(id).as_ref(), &options);
    made.unwrap_or_else(|error| panic!("{layer}: {error}"));
}

#[test]
#[ignore = "run in a guest by every_way_to_a_pool_is_gone"]
fn in_this_kernel_options_are_refused_with_the_reason() {
    let root = TempRoot::new("refused");
    let cases: [(&[&str], &str); 6] = [
        (&[], "give dm.directlvm_device"),
        (&["dm.datadev=/dev/ubdc"], "option datadev: give a whole pool by dm.thinpooldev"),
        (&["dm.metadatadev=/dev/ubdc"], "option metadatadev: give a whole pool"),
        (&["dm.libdm_log_level=3"], "option libdm_log_level: libdm is not used"),
        (
            &["dm.override_udev_sync_check=true"],
            "option override_udev_sync_check: the driver works",
        ),
        (&["dm.colour=red"], "colour"),
    ];
    for (options, reason) in cases {
        let said = refusal(&root.join("home"), options);
        assert!(said.contains(reason), "{options:?}: {said}");
    }
}

#[test]
#[ignore = "run in a guest by every_way_to_a_pool_is_gone"]
fn in_this_kernel_a_device_that_holds_something_is_refused() {
    let root = TempRoot::new("not-empty");
    let cases = [
        ("mkfs.ext4 -q -F /dev/ubdc", "TYPE=ext4"),
        ("mkswap -q /dev/ubdc", "TYPE=swap"),
        (PARTITIONS, "PTTYPE=dos"),
        ("pvcreate -qy --config 'activation{udev_sync=0 udev_rules=0}' /dev/ubdc", "LVM2_member"),
    ];
    for (number, (script, found)) in cases.into_iter().enumerate() {
        shell(&format!("wipefs -qa {FIRST}; {script}"));
        let option = format!("dm.directlvm_device={FIRST}");
        let said = refusal(&root.join(format!("home{number}")), &[&option]);
        let force = "dm.directlvm_device_force=true";
        assert!(said.contains(found) && said.contains(force), "{script}: {said}");
    }
    shell(&format!("wipefs -qa {FIRST}; mkfs.ext4 -q -F {FIRST}"));
    let option = format!("dm.directlvm_device={FIRST}");
    let mounted = TempRoot::new("mounted");
    shell(&format!("mount {FIRST} {}", mounted.path().display()));
    let force = [&option, "dm.directlvm_device_force=true", "dm.basesize=64m"];
    let said = refusal(&root.join("used"), &force);
    assert!(said.contains("in use"), "a mounted disk: {said}");
    drop(mounted);
    let said = refusal(&root.join("none"), &["dm.directlvm_device=/dev/no-such"]);
    assert!(said.contains("/dev/no-such"), "a disk that is not there: {said}");

    let driver = open(&root.join("forced"), &force);
    create(&*driver, "layer", None, None);
    drop(driver);
    end_group();
}

/// Takes the volume group of a test away.
fn end_group() {
    tests::mapped::remove_thin_devices();
    shell(
        "c='activation{udev_sync=0 udev_rules=0}'; vgremove -qfy --config \"$c\" layerd; \
         for d in /dev/ubdc /dev/ubdd /dev/ubde; do wipefs -qa $d; done",
    );
}

#[test]
#[ignore = "run in a guest by every_way_to_a_pool_is_gone"]
fn in_this_kernel_two_disks_are_a_pool_that_grows() {
    let root = TempRoot::new("direct");
    let home = root.join("home");
    let devices = format!("dm.directlvm_device={FIRST},{SECOND}");
    let options =
        [&*devices, "dm.thinp_percent=60", "dm.basesize=128m", "dm.thinp_autoextend_threshold=50"];
    let driver = open(&home, &options);
    let report = || driver.pool().expect("a pool").report().expect("its report");
    let first = report();
    assert_eq!(first.devices, [FIRST, SECOND].map(Path::new), "its devices");

    // Each layer writes to each leaf of the mappings, which it shares with the others until then.
    create(&*driver, "below", None, None);
    write(&*driver, "below", "big", 48 << 20);
    driver.commit(&id("below"), &LayerRecord::default()).expect("a commit");
    let mut layers = 0;
    while report().metadata.total == first.metadata.total && layers < 150 {
        let name = format!("layer{layers}");
        create(&*driver, &name, Some("below"), None);
        let path = driver.mount(&id(&name), Access::Default).expect("a mount");
        let file = File::options().write(true).open(path.join("big")).expect("the file");
        for place in 0..8 {
            file.write_all_at(&[b'y'; 512], place * (6 << 20)).expect("room");
        }
        file.sync_all().expect("a disk");
        drop(file);
        driver.unmount(&id(&name)).expect("not in use");
        layers += 1;
    }
    // The thread that watches the pool may be slower than all this.
    let deadline = Instant::now() + Duration::from_secs(60);
    while report().metadata.total == first.metadata.total && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = report();
    println!("metadata: {:?}, after {layers} layers {:?}", first.metadata, grown.metadata);
    assert!(grown.metadata.total > first.metadata.total, "metadata has not grown: {grown:?}");

    driver.pool().expect("a pool").add_device(Path::new(THIRD), false).expect("another disk");
    assert_eq!(report().devices.len(), 3, "the disk that was added");
    let all = |report: &PoolReport| report.data.total + report.metadata.total + report.spare;
    let more = report();
    assert!(all(&more) > all(&grown) + (32 << 20), "what the disk brought: {grown:?}, {more:?}");
    drop(driver);
    let said = refusal(&home, &["dm.thinpooldev=other"]);
    assert!(said.contains("the home has its pool already"), "another pool: {said}");

    let driver = open(&home, &["dm.min_free_space=95%"]);
    let refused = driver.create(&id("more"), None, &CreateOptions::active());
    let said = refused.expect_err("a layer without space").to_string();
    for part in ["dm.min_free_space=95%", "remove layers, or add a device", "MiB"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    drop(driver);
    end_group();
}

#[test]
#[ignore = "run in a guest by every_way_to_a_pool_is_gone"]
fn in_this_kernel_files_are_a_pool_that_gives_space_back() {
    let root = TempRoot::new("loop");
    let home = root.join("home");
    let options = ["dm.loopdatasize=256m", "dm.loopmetadatasize=16m", "dm.basesize=64m"];
    let driver = open(&home, &options);
    create(&*driver, "kept", None, None);
    write(&*driver, "kept", "file", 1000);
    driver.commit(&id("kept"), &LayerRecord::default()).expect("a commit");
    create(&*driver, "big", Some("kept"), None);
    let before = used(&*driver);
    write(&*driver, "big", "fat", 20 << 20);
    let full = used(&*driver);
    assert!(full >= before + (20 << 20), "a file takes space: {before}, then {full}");

    // A file that is removed: by the file system's own discards.
    let path = driver.mount(&id("big"), Access::Default).expect("a mount");
    fs::remove_file(path.join("fat")).expect("the file");
    rustix::fs::syncfs(File::open(&path).expect("a directory")).expect("a disk");
    until("a removed file gives its space back", || used(&*driver) + (16 << 20) < full);
    driver.unmount(&id("big")).expect("not in use");

    // A layer that is removed: down to the file below the pool.
    write(&*driver, "big", "fat", 20 << 20);
    let data = File::open(home.join("loop/data")).expect("the file");
    let taken = || {
        data.sync_all().expect("a disk");
        data.metadata().expect("a file").blocks() * 512
    };
    let full = taken();
    driver.remove(&id("big")).expect("a removal");
    until("a removed layer gives its space back", || taken() + (16 << 20) < full);
    drop(driver);
    let loops = shell("losetup --noheadings --list --output BACK-FILE");
    assert!(!loops.contains("loop/data"), "loop devices are left: {loops}");

    let driver = open(&home, &[]);
    let path = driver.mount(&id("kept"), Access::Default).expect("a mount");
    assert_eq!(fs::read(path.join("file")).expect("the file").len(), 1000, "after a restart");
    driver.unmount(&id("kept")).expect("not in use");
}

#[test]
#[ignore = "run in a guest by every_way_to_a_pool_is_gone"]
fn in_this_kernel_a_pool_of_somebodys_is_taken_if_it_is_free() {
    let root = TempRoot::new("given");
    let pool = ThinPool::new("given", 256);
    let line = Mapped::part("line", FIRST, 0, 16);
    let no_pools = [
        ("dm.thinpooldev=/dev/ubdd", "not a device of the device mapper"),
        ("dm.thinpooldev=line", "a linear, no thin pool"),
        ("dm.thinpooldev=missing", "missing"),
    ];
    for (number, (option, reason)) in no_pools.into_iter().enumerate() {
        let said = refusal(&root.join(format!("none{number}")), &[option]);
        assert!(said.contains(reason), "{option}: {said}");
    }
    drop(line);
    let option = format!("dm.thinpooldev={}", pool.path().display());
    let driver = open(&root.join("home"), &[&option, "dm.basesize=64m"]);
    create(&*driver, "layer", None, None);
    let added = driver.pool().expect("a pool").add_device(Path::new(SECOND), false);
    let said = added.expect_err("no group").to_string();
    assert!(said.contains("the pool is not LVM's"), "another disk: {said}");
    drop(driver);
    let said = refusal(&root.join("second"), &[&option]);
    assert!(said.contains("the pool belongs to somebody"), "two homes on a pool: {said}");
    drop(open(&root.join("home"), &[]));
}

#[test]
#[ignore = "run in a guest by every_way_to_a_pool_is_gone"]
fn in_this_kernel_file_systems_grow() {
    // mkfs.xfs makes nothing below 300 MiB.
    for (fs, base, size) in [("ext4", 64_u64, 128_u64), ("xfs", 320, 448)] {
        let root = TempRoot::new("sizes");
        let _pool = ThinPool::new("sizes", 900);
        let home = root.join("home");
        let option = |mib: u64| format!("dm.basesize={mib}m");
        let kind = format!("dm.fs={fs}");
        // What is asked for counts as long as no layer is made of the base device.
        drop(open(&home, &["dm.thinpooldev=sizes", &kind, &option(2 * size)]));
        let driver = open(&home, &["dm.thinpooldev=sizes", &kind, &option(base)]);
        let shows = |driver: &dyn Driver, layer: &str, mib: u64| {
            let path = driver.mount(&id(layer), Access::Default).expect("a mount");
            let stat = rustix::fs::statvfs(&path).expect("its size");
            let found = stat.f_blocks * stat.f_frsize;
            let lawful = (mib << 20) / 100 * 75..=mib << 20;
            assert!(lawful.contains(&found), "{fs}: {layer} has {found}, not {mib} MiB");
            driver.unmount(&id(layer)).expect("not in use");
        };
        create(&*driver, "plain", None, None);
        shows(&*driver, "plain", base);
        create(&*driver, "large", None, Some(size << 20));
        shows(&*driver, "large", size);
        driver.commit(&id("large"), &LayerRecord::default()).expect("a commit");
        create(&*driver, "child", Some("large"), None);
        shows(&*driver, "child", size);
        let less = CreateOptions { size: Some(base << 20), ..CreateOptions::active() };
        let said = driver.create(&id("less"), Some(&id("large")), &less).expect_err("less");
        assert!(said.to_string().contains("option size: "), "{fs}: {said}");
        drop(driver);
        let said = refusal(&home, &[&option(base / 2)]);
        assert!(said.contains("option basesize: "), "{fs}: {said}");
        let driver = open(&home, &[&option(size)]);
        create(&*driver, "later", None, None);
        shows(&*driver, "later", size);
        drop(driver);
    }
}
