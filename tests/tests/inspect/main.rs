//! Looking inside, held against other people's programs, and the store against archives.

#![allow(clippy::expect_used, clippy::panic)]

mod answers;
mod container;
mod files;
mod peers;
mod store;

use std::path::Path;

use serde_json::{Value, json};
use tests::archive::{self, Image};
use tests::daemon::{Finish, layerctl};
use tests::host;

pub(crate) fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub(crate) fn offline(arguments: &[&str]) -> Value {
    parse(&layerctl().arg("--json").args(arguments).finish().ok())
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}"))
}

pub(crate) fn objects(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// The drivers that work here.
pub(crate) fn drivers() -> Vec<&'static str> {
    let mut drivers = vec!["vfs"];
    if rustix::process::geteuid().is_root() {
        drivers.extend(["overlay2", "fuse"]);
        if host::provides(&["mkfs.btrfs", "btrfs"]) {
            drivers.push("btrfs");
        }
    }
    drivers
}

/// Where a driver keeps the files of a layer.
pub(crate) fn tree_of(driver: &str) -> &'static str {
    match driver {
        "overlay2" | "fuse" => "diff",
        "btrfs" => "ro",
        _ => "tree",
    }
}

/// An image with all that layers can do to each other.
pub(crate) fn write_image(path: &Path) {
    let base: archive::Files<'_> = &[
        ("etc/", ""),
        ("etc/keep", "keep\n"),
        ("etc/change", "one\ntwo\nthree\n"),
        ("etc/gone", "gone\n"),
        ("opt/", ""),
        ("opt/app/", ""),
        ("opt/app/old", "old\n"),
        ("twin", "the same\n"),
    ];
    let middle: archive::Files<'_> = &[
        ("etc/keep", "keep\n"),
        ("etc/change", "one\n2\nthree\n"),
        ("etc/.wh.gone", ""),
        ("opt/app/.wh..wh..opq", ""),
        ("opt/app/new", "new\n"),
        ("twin2", "the same\n"),
    ];
    let top: archive::Files<'_> = &[(".wh.opt", ""), ("opt", "a file now\n"), ("late", "late\n")];
    archive::docker(
        path,
        &[Image {
            names: &["app:1"],
            layers: &[base, middle, top],
            created: "2024-01-01T00:00:00Z",
            config: &json!({"Cmd": ["sh"]}),
        }],
    );
}
