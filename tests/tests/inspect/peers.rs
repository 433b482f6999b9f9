//! Held against tar, sha256sum and rsync.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::daemon::{Finish, layerctl};
use tests::host;

use crate::{objects, offline, parse, text};

#[test]
fn blame_and_waste_agree_with_tar_and_sha256sum() {
    if !host::provides(&["mmdebstrap", "buildah", "python3", "setcap"]) {
        return;
    }
    let archive = host::debian_image().join("docker.tar");
    let archive = archive.to_str().expect("UTF-8");
    let scratch = TempDir::new().expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/image-facts.py");
    let facts = Command::new(script).arg(archive).arg(scratch.path()).finish().ok();
    let facts = parse(&facts);

    let blame = offline(&["blame", "--all", archive]);
    let (mut files, mut deleted) = (BTreeMap::new(), BTreeMap::new());
    for path in objects(&blame) {
        let name = text(&path["path"]).to_owned();
        match &path["file"] {
            Value::Null => drop(deleted.insert(name, path["deleted"].clone())),
            file => drop(files.insert(name, (file.clone(), path["content"].clone()))),
        }
    }
    files.remove("/");
    let expected = facts["files"].as_object().expect("files");
    let names = |keys: BTreeSet<&String>| keys.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(names(files.keys().collect()), names(expected.keys().collect()), "the same files");
    for (path, (file, layer)) in &files {
        let (what, source) = (&expected[path][0], &expected[path][1]);
        assert_eq!(layer, source, "{path}: the layer of its content");
        if file["kind"] == "file" {
            assert_eq!(&file["sha256"], what, "{path}: its content");
        }
    }
    assert_eq!(json!(deleted), facts["deleted"], "who deleted what");

    let finished = layerctl().args(["--json", "check-image", archive]).finish();
    assert_eq!(finished.code, Some(1), "it wastes too much: {finished:?}");
    let check = parse(&finished.stdout);
    assert_eq!(check["stored"], facts["stored"], "bytes of files in all layers");
    assert_eq!(check["wasted"], facts["wasted"], "bytes that nobody sees");
}

/// What rsync would do to make the first tree like the second, as path and letters of what differs.
fn rsync(a: &Path, b: &Path) -> BTreeMap<String, String> {
    let dir = |path: &Path| format!("{}/", path.display());
    let out = Command::new("rsync")
        .args(["-naxcX", "--delete", "--itemize-changes", "--modify-window=-1"])
        .args([dir(b), dir(a)])
        .finish()
        .ok();
    let mut found = BTreeMap::new();
    for line in out.lines() {
        let (what, path) = line.split_at_checked(12).expect("an itemized line");
        let path = path.split(" -> ").next().unwrap_or_default();
        let path = format!("/{}", path.trim_end_matches('/').trim_start_matches("./"));
        let letters = match what.trim_end() {
            "*deleting" => "deleted".to_owned(),
            what if what.ends_with("+++++++++") => "added".to_owned(),
            what => what[2..].chars().filter(char::is_ascii_alphabetic).collect(),
        };
        found.insert(if path == "/." { "/".to_owned() } else { path }, letters);
    }
    found
}

/// The same by layerctl, in rsync's letters.
fn by_layerctl(a: &str, b: &str) -> BTreeMap<String, String> {
    let report = offline(&["diff", a, b]);
    let mut found = BTreeMap::new();
    for change in objects(&report["changes"]) {
        let kind = |side: &str| change[side]["kind"].clone();
        let mut letters = BTreeSet::new();
        for what in objects(&change["what"]) {
            letters.insert(match text(what) {
                "content" | "link" => 'c',
                "size" => 's',
                "mtime" => 't',
                "mode" => 'p',
                "owner" => 'o',
                "xattrs" => 'x',
                other => panic!("rsync has no letter for {other}: {change}"),
            });
        }
        // rsync tells owner and group apart.
        if letters.contains(&'o') {
            let side = |side: &str, id: &str| change[side][id].clone();
            if side("old", "gid") != side("new", "gid") {
                letters.insert('g');
            }
            if side("old", "uid") == side("new", "uid") {
                letters.remove(&'o');
            }
        }
        let order = "cstpogx";
        let word = match text(&change["change"]) {
            "added" => "added".to_owned(),
            "removed" => "deleted".to_owned(),
            _ => order.chars().filter(|letter| letters.contains(letter)).collect(),
        };
        assert_eq!(kind("old").is_null(), word == "added", "{change}");
        found.insert(text(&change["path"]).to_owned(), word);
    }
    found
}

#[test]
fn diff_of_two_images_agrees_with_rsync_of_their_trees() {
    if !host::provides(&["mmdebstrap", "buildah", "umoci", "rsync", "setcap", "setfattr"]) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let layout = scratch.path().join("layout");
    fs::create_dir(&layout).expect("a directory");
    let archive = host::debian_image().join("oci-gzip.tar");
    Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&layout).finish().ok();
    let umoci = |arguments: &[&str], dir: &Path| {
        Command::new("umoci").args(arguments).arg(dir).finish().ok();
    };
    let tags = Command::new("umoci").args(["list", "--layout"]).arg(&layout).finish().ok();
    let first = tags.lines().next().expect("a tag");
    let image = |tag: &str| format!("{}:{tag}", layout.display());
    let bundle = scratch.path().join("work");
    umoci(&["unpack", "--image", &image(first)], &bundle);
    // Everything that can differ, and things that rsync would not see if they were done carelessly.
    let script = "cd $1/rootfs
        touch -d 2001-02-03T04:05:06.789 etc/hostname
        chmod 0600 etc/passwd; chown 7:8 etc/group; chgrp 9 etc/shells
        echo more >>etc/fstab; rm -r usr/share/zoneinfo 2>/dev/null || rm -r usr/share/perl5
        mkdir -p srv/new/deep; echo x >srv/new/deep/file; ln -s nowhere srv/new/link
        ln -sfn elsewhere srv/dangling; setfattr -n user.colour -v red srv/one
        cp -a usr/bin/env usr/bin/env2; mv opt/new opt/renamed
        rm -r etc/apt; mkdir etc/apt; echo again >etc/apt/only";
    Command::new("sh").args(["-ec", script, "sh"]).arg(&bundle).finish().ok();
    umoci(&["repack", "--image", &image("second")], &bundle);
    let trees = ["one", "two"].map(|name| scratch.path().join(name));
    umoci(&["unpack", "--image", &image(first)], &trees[0]);
    umoci(&["unpack", "--image", &image("second")], &trees[1]);

    // One image a layout, as layerctl names images of layouts by annotations that umoci writes too.
    let layouts = ["a", "b"].map(|name| scratch.path().join(name).display().to_string());
    for (to, tag) in layouts.iter().zip([first, "second"]) {
        Command::new("cp").arg("-r").arg(&layout).arg(to).finish().ok();
        for other in [first, "second"].iter().filter(|other| **other != tag) {
            Command::new("umoci").args(["rm", "--image", &format!("{to}:{other}")]).finish().ok();
        }
    }
    let expected = rsync(&trees[0].join("rootfs"), &trees[1].join("rootfs"));
    assert!(expected.len() > 20, "the trees differ: {expected:?}");
    let found = by_layerctl(&layouts[0], &layouts[1]);
    let differ = |path: &&String| expected.get(*path) != found.get(*path);
    let wrong: Vec<_> = expected
        .keys()
        .chain(found.keys())
        .filter(differ)
        .map(|path| (path, expected.get(path), found.get(path)))
        .collect();
    assert!(wrong.is_empty(), "rsync and layerctl: {wrong:#?}");
    assert_eq!(rsync(&trees[0], &trees[0]), BTreeMap::new(), "nothing differs from itself");
    assert_eq!(by_layerctl(&layouts[0], &layouts[0]), BTreeMap::new(), "nor by layerctl");
}
