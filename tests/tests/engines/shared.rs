//! Images that layerctl imported, pulled by containerd: what is there is neither fetched nor unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::archive;
use tests::daemon::Daemon;
use tests::engines::Containerd;
use tests::host;
use tests::root::TempRoot;

const NAME: &str = "docker.io/library/base:latest";

/// An image of two layers, as an OCI layout.
fn layout(root: &TempRoot, name: &str, layers: usize) -> PathBuf {
    let dir = root.join(name);
    let base = archive::layer_with_busybox(&[("etc/base", "base ")]);
    let top = archive::layer(&[("etc/top", "top")]);
    let config = json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] });
    archive::layout_of_tars(&dir, &[base, top][..layers], &config);
    dir
}

/// A driver holds some layers, once containerd has collected the snapshot of the container that ran.
#[track_caller]
fn holds(daemon: &Daemon, driver: &str, expected: usize, why: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let dir = daemon.root().join(driver).join("layers");
    loop {
        let layers = fs::read_dir(&dir).expect("layers").count();
        if layers == expected {
            return;
        }
        assert!(layers > expected && Instant::now() < deadline, "{driver}: {why}: {layers}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// How many layers containerd asks for when it pulls.
fn fetched(containerd: &Containerd, layout: &Path) -> usize {
    let blobs = containerd.pull(layout, NAME);
    assert!(blobs.iter().any(|kind| kind.contains("manifest")), "what is fetched: {blobs:?}");
    blobs.iter().filter(|kind| kind.contains("layer")).count()
}

fn runs(containerd: &Containerd, driver: &str) {
    // runc knows all containers of the machine by their names.
    let command = ["run", "--rm", "--snapshotter", "layerd", "--net-host", NAME, "shared"];
    let ran = containerd.ctr(command.iter().chain(&["cat", "/etc/base", "/etc/top"]));
    assert_eq!(ran.ok(), "base top", "{driver}: what the container sees");
}

#[test]
fn containerd_takes_the_layers_of_imported_images() {
    if !host::provides(&["containerd", "ctr", "runc", "busybox", "go", "mkfs.btrfs"]) {
        return;
    }
    for driver in host::DRIVERS {
        let root = TempRoot::for_driver(driver, "shared");
        let daemon = Daemon::start_on(&root, ["--driver", driver]);
        let containerd = Containerd::start(root.path(), &daemon.socket());
        let image = layout(&root, "image", 2);
        daemon.layerctl(["import", "--name", "app"].iter().map(Path::new).chain([&*image])).ok();
        assert_eq!(fetched(&containerd, &image), 0, "{driver}: everything is there");
        holds(&daemon, driver, 2, "nothing is applied twice");
        runs(&containerd, driver);

        // The image goes, and layerd dies: containerd keeps what it holds.
        daemon.layerctl(["rmi", "app"]).ok();
        holds(&daemon, driver, 2, "containerd holds the layers");
        let daemon = Daemon::start_in(daemon.kill(), ["--driver", driver]);
        containerd.find_layerd();
        runs(&containerd, driver);
        containerd.ctr(["image", "rm", "--sync", NAME]).ok();
        super::containerd::collected(&containerd, driver);
        super::assert_empty(&daemon, driver);

        // Only the lower layer is there.
        let base = layout(&root, "base", 1);
        daemon.layerctl(["import", "--name", "app"].iter().map(Path::new).chain([&*base])).ok();
        assert_eq!(fetched(&containerd, &image), 1, "{driver}: one layer is missing");
        holds(&daemon, driver, 2, "nothing is applied twice");
        runs(&containerd, driver);
        containerd.ctr(["image", "rm", "--sync", NAME]).ok();
        super::containerd::collected(&containerd, driver);
        holds(&daemon, driver, 1, "the image keeps its layer");
        daemon.layerctl(["rmi", "app"]).ok();
        containerd.stop();
        super::assert_empty(&daemon, driver);
    }
}
