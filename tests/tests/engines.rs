//! The engines that are layerd's clients, for real: Docker and containerd from Debian's packages, and
//! their own suites for storage drivers.

#![allow(clippy::expect_used, clippy::panic)]

#[path = "engines/containerd.rs"]
mod containerd;
#[path = "engines/docker.rs"]
mod docker;
#[path = "engines/podman.rs"]
mod podman;
#[path = "engines/restarts.rs"]
mod restarts;
#[path = "engines/shared.rs"]
mod shared;
#[path = "engines/suites.rs"]
mod suites;

use std::fs;

use serde_json::json;
use tests::archive;
use tests::daemon::Daemon;
use tests::root::{TempRoot, mounts_below};

/// Writes an image of one layer with a busybox, and gives its path.
fn busybox_image(root: &TempRoot, name: &str) -> String {
    let path = root.join("image.tar");
    let tar = archive::layer_with_busybox(&[("tmp/", ""), ("etc/base", "base")]);
    let config = json!({ "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] });
    archive::docker_of_tars(&path, name, vec![tar], &config);
    path.display().to_string()
}

/// Whatever an engine made in the store is gone again.
fn assert_empty(daemon: &Daemon, driver: &str) {
    let layers = daemon.root().join(driver).join("layers");
    let left: Vec<_> = fs::read_dir(&layers)
        .expect("the layers of the driver")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(left.is_empty(), "{driver}: layers are left behind: {left:?}");
    assert_eq!(daemon.client().info().expect("info").layers, 0, "{driver}: layers are known");
    let mounts = mounts_below(&daemon.root());
    assert!(mounts.is_empty(), "{driver}: mounts are left behind: {mounts:?}");
}
