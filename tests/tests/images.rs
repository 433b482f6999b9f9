//! Real images against the tree that another implementation makes of them.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tests::daemon::{Daemon, Finish};
use tests::host::{self, Mounted};
use tests::root::TempRoot;
use tests::tree::{self, Portrait};

const NAME: &str = "localhost/debian-four:latest";
const DRIVERS: [&str; 3] = ["overlay2", "vfs", "btrfs"];

/// The image's tree as umoci unpacks it.
fn unpacked_by_umoci(archive: &Path) -> Portrait {
    let dir = TempDir::new().expect("a directory");
    let layout = dir.path().join("layout");
    std::fs::create_dir(&layout).expect("a directory");
    Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout).finish().ok();
    let bundle = dir.path().join("bundle");
    let image = format!("{}:{NAME}", layout.display());
    Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).finish().ok();
    tree::portrait(&bundle.join("rootfs")).expect("the unpacked tree")
}

#[test]
fn every_archive_gives_the_tree_that_umoci_unpacks() {
    if !host::provides(&["mmdebstrap", "buildah", "umoci", "setcap", "mkfs.btrfs"]) {
        return;
    }
    let images = host::debian_image();
    let expected = unpacked_by_umoci(&images.join("oci-gzip.tar"));
    assert!(expected.len() > 5000, "umoci unpacked {} files", expected.len());
    for driver in DRIVERS {
        let root = TempRoot::for_driver(driver, "images");
        for archive in ["docker.tar", "oci-gzip.tar", "oci-zstd.tar"] {
            let daemon = Daemon::start_on(&root, ["--driver", driver]);
            let archive = images.join(archive);
            daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
            let mounted = Mounted::image(&daemon.client(), NAME);
            let found = tree::portrait(mounted.path()).expect("the mounted tree");
            let differences = tree::differences(&expected, &found);
            assert!(
                differences.is_empty(),
                "{} on {driver} differs from umoci's tree:\n{}",
                archive.display(),
                differences.join("\n")
            );
        }
    }
}
