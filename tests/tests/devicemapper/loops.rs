//! A pool of files on loop devices, in a guest.

use std::fs;
use std::path::Path;

use drivers::{Access, CreateOptions, Driver, ErrorKind, LayerId};
use tests::root::TempRoot;

const MIB: u64 = 1 << 20;

fn open(home: &Path, sizes: &[&str]) -> Result<Box<dyn Driver>, drivers::Error> {
    let options = [&["dm.basesize=64m", "dm.min_free_space=0"], sizes].concat();
    drivers::open("devicemapper", home, &options.into_iter().map(str::to_owned).collect::<Vec<_>>())
}

/// How large data and metadata are, in MiB.
fn totals(driver: &dyn Driver) -> (u64, u64) {
    let report = driver.pool().expect("a pool").report().expect("a report");
    (report.data.total / MIB, report.metadata.total / MIB)
}

#[test]
#[ignore = "run in a guest by every_way_to_a_pool_is_gone"]
fn in_this_kernel_a_pool_of_files_grows_whether_it_is_in_use_or_not() {
    let root = TempRoot::new("loop");
    let home = root.join("home");
    let layer: LayerId = "1".parse().unwrap();
    let driver = open(&home, &["dm.loopdatasize=128m", "dm.loopmetadatasize=16m"]).unwrap();
    assert_eq!(totals(&*driver), (128, 16), "as it was made");
    driver.create(&layer, None, &CreateOptions::active()).unwrap();
    let shown = driver.mount(&layer, Access::Default).unwrap();
    fs::write(shown.join("file"), "content").unwrap();

    // Its layer is mounted, so that it stays over the daemon's end.
    drop(driver);
    let driver = open(&home, &["dm.loopdatasize=192m", "dm.loopmetadatasize=24m"]).unwrap();
    assert_eq!(totals(&*driver), (192, 24), "in use");
    fs::write(shown.join("more"), "more").unwrap();
    driver.unmount(&layer).unwrap();
    drop(driver);

    for (sizes, expected) in [
        (&[][..], (192, 24)),
        (&["dm.loopmetadatasize=32m"], (192, 32)),
        (&["dm.loopdatasize=256m"], (256, 32)),
    ] {
        let driver = open(&home, sizes).unwrap();
        assert_eq!(totals(&*driver), expected, "{sizes:?}");
    }
    let error = open(&home, &["dm.loopdatasize=255m"]).expect_err("less than there is");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("loopdatasize"), "{error}");

    let driver = open(&home, &[]).unwrap();
    let shown = driver.mount(&layer, Access::Default).unwrap();
    let read = |name: &str| fs::read_to_string(shown.join(name)).unwrap();
    assert_eq!((read("file"), read("more")), ("content".to_owned(), "more".to_owned()));
    driver.unmount(&layer).unwrap();
    assert!(driver.check().unwrap().is_empty(), "what check says");
}
