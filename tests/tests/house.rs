//! Holds the workspace to the picture in `docs/ARCHITECTURE.md`: which crate may know which.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every arrow that the design draws, dev-dependencies not counted; a crate not listed may know none.
const ARROWS: &[(&str, &[&str])] = &[
    ("cow-sys", &[]),
    ("cow", &["cow-sys"]),
    ("layerfs", &["cow", "cow-sys"]),
    ("drivers", &["cow", "cow-sys"]),
    ("image", &["cow", "cow-sys"]),
    ("layerd-api", &[]),
    ("layerd", &["cow", "cow-sys", "drivers", "image", "layerd-api"]),
    ("layerun", &["cow-sys", "layerd-api"]),
    ("layerctl", &["cow", "image", "layerd-api"]),
];

/// Crates that stand outside of the house and may know every room.
const OUTSIDE: &[&str] = &["tests", "benches"];

/// Libraries that belong to some rooms alone.
const KEPT_APART: &[(&str, &[&str])] = &[
    ("tokio", &["layerd"]),
    ("hyper", &["layerd"]),
    ("hyper-util", &["layerd"]),
    ("axum", &["layerd"]),
    ("tonic", &["layerd"]),
    ("redb", &["layerd"]),
    ("libcontainer", &["layerun"]),
    ("fuser", &["layerfs"]),
    ("io-uring", &["cow-sys"]),
    ("devicemapper", &["drivers"]),
    ("ratatui", &["layerctl"]),
    ("btrfs-uapi", &["drivers"]),
    ("anyhow", &["layerd", "layerun", "layerctl", "layerfs"]),
    ("clap", &["layerd", "layerun", "layerctl", "layerfs"]),
];

/// The most lines a source file may have; five of the six code bases we learn from have a file far
/// beyond this, and it is their worst page.
const LONGEST_FILE: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace root").to_owned()
}

/// Each workspace crate with the names of its normal and build dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let names = package["dependencies"].as_array().expect("dependencies").iter();
            let names = names.filter(|dependency| dependency["kind"] != "dev");
            let names = names.map(|dependency| text(&dependency["name"]));
            (text(&package["name"]), names.collect())
        })
        .collect()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// All Rust sources of the workspace.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_know_only_what_the_design_draws() {
    let crates = dependencies();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (name, dependencies) in &crates {
        if OUTSIDE.contains(&name.as_str()) {
            continue;
        }
        let known = allowed.get(name.as_str());
        let known = known.unwrap_or_else(|| panic!("{name} is not in the design: draw it first"));
        for dependency in dependencies.iter().filter(|name| crates.contains_key(*name)) {
            assert!(
                known.contains(&dependency.as_str()),
                "{name} -> {dependency} is an arrow that the design does not draw"
            );
        }
    }
}

#[test]
fn libraries_stay_in_their_rooms() {
    for (name, dependencies) in dependencies() {
        for (library, rooms) in KEPT_APART {
            let fine = OUTSIDE.contains(&name.as_str()) || rooms.contains(&name.as_str());
            assert!(fine || !dependencies.contains(*library), "{name} must not use {library}");
        }
    }
}

#[test]
fn every_crate_but_cow_sys_takes_the_workspace_lints() {
    let crates = dependencies();
    for name in crates.keys().filter(|name| *name != "cow-sys") {
        let dir = match name.as_str() {
            "layerd-api" => "tools/api".to_owned(),
            "image" | "layerd" | "layerun" | "layerctl" => format!("tools/{name}"),
            other => other.to_owned(),
        };
        let manifest = fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} has lints of its own");
    }
}

#[test]
fn unsafe_code_is_in_cow_sys_alone() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    for file in files.iter().filter(|file| !file.starts_with(root().join("cow/sys"))) {
        let source = fs::read_to_string(file).expect("UTF-8");
        let allowed = source.contains(concat!("allow(", "unsafe_code"));
        assert!(!allowed, "{} allows unsafe code", file.display());
    }
}

#[test]
fn no_file_holds_more_than_one_idea() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    for file in files {
        let lines = fs::read_to_string(&file).expect("UTF-8").lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", file.display());
    }
}
