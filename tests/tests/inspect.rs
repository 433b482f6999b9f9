//! Looking inside, held against other people's programs, and the store against archives.

#![allow(clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::archive::{self, Image};
use tests::daemon::{Daemon, Finish, layerctl};
use tests::host;
use tests::root::TempRoot;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn offline(arguments: &[&str]) -> Value {
    parse(&layerctl().arg("--json").args(arguments).finish().ok())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}"))
}

fn objects(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

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

/// The drivers that work here.
fn drivers() -> Vec<&'static str> {
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
fn tree_of(driver: &str) -> &'static str {
    match driver {
        "overlay2" | "fuse" => "diff",
        "btrfs" => "ro",
        _ => "tree",
    }
}

/// An image with all that layers can do to each other.
fn write_image(path: &Path) {
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

#[test]
fn the_store_and_the_archive_give_the_same_answers() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("app.tar");
    write_image(&path);
    let file = path.to_str().expect("UTF-8");
    for driver in drivers() {
        let root = TempRoot::for_driver(driver, "inspect");
        let daemon = Daemon::start_on(&root, ["--driver", driver]);
        daemon.layerctl(["import", file]).ok();
        for arguments in [
            &["history", "@"][..],
            &["tree", "--depth", "0", "@"],
            &["tree", "@", "/etc"],
            &["tree", "--changes", "@#2"],
            &["tree", "--changes", "@"],
            &["blame", "--all", "@"],
            &["blame", "/opt/app", "@#2"],
            &["check-image", "--max-wasted", "1GB", "@"],
            &["du", "@"],
            &["diff", "@#1", "@#3"],
            &["diff", "--content", "@#1", "@#2"],
        ] {
            let with = |target: &str| -> Vec<String> {
                let mut words = vec!["--json".to_owned()];
                words.extend(arguments.iter().map(|word| word.replace('@', target)));
                words
            };
            let from_store = parse(&daemon.layerctl(with("app:1")).ok());
            let from_file = parse(&layerctl().args(with(file)).finish().ok());
            assert_eq!(from_store, from_file, "{driver}: {arguments:?}");
        }
        for arguments in [&["cat", "@:/etc/change"][..], &["cat", "@#1:etc/change"]] {
            let with = |target: &str| -> Vec<String> {
                arguments.iter().map(|word| word.replace('@', target)).collect()
            };
            let from_store = daemon.layerctl(with("app:1")).ok();
            assert_eq!(from_store, layerctl().args(with(file)).finish().ok(), "{arguments:?}");
        }
        let between = parse(&daemon.layerctl(["--json", "diff", "app:1", file]).ok());
        assert_eq!(between["changes"], json!([]), "{driver}: store and archive are alike");
        let layers = parse(&daemon.layerctl(["--json", "layers", "app:1"]).ok());
        let in_file = offline(&["layers", file]);
        for (kept, lies) in objects(&layers["layers"]).iter().zip(objects(&in_file["layers"])) {
            for member in ["number", "diff_id", "chain_id", "parent", "size", "images", "tar_size"]
            {
                assert_eq!(kept[member], lies[member], "{driver}: {member}");
            }
            assert_eq!(kept["kept"][0]["driver"], driver, "{kept}");
        }
        let space = parse(&daemon.layerctl(["--json", "du"]).ok());
        let kept = daemon.root().join(driver).join("layers");
        let trees = tree_of(driver);
        let script =
            format!("du -s --block-size=1 */{trees} | awk '{{sum += $1}} END {{print sum}}'");
        // A snapshot of btrfs shows what it shares with its parent as well, which du cannot tell.
        if driver != "btrfs" {
            let by_du = Command::new("sh").args(["-c", &script]).current_dir(kept).finish().ok();
            assert_eq!(space["layers_bytes"].to_string(), by_du.trim(), "{driver}: as du counts");
        }
        assert_eq!(space["reclaimable"], space["layers_bytes"], "{driver}: no container uses it");
        let chain = text(&layers["layers"][1]["chain_id"]).replace("sha256:", "");
        let by_id = daemon.layerctl(["cat", &format!("{}:/etc/change", &chain[..12])]).ok();
        assert_eq!(by_id, "one\n2\nthree\n", "{driver}: a layer by a short id");
    }
}

#[test]
fn layers_of_the_store_are_held_against_their_diff_ids() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("app.tar");
    write_image(&path);
    let file = path.to_str().expect("UTF-8");
    for driver in drivers() {
        let root = TempRoot::for_driver(driver, "inspect");
        let daemon = Daemon::start_on(&root, ["--driver", driver]);
        daemon.layerctl(["import", file]).ok();
        let states = |target: &str, code: i32| -> Vec<String> {
            let finished = daemon.layerctl(["--json", "verify", target]);
            assert_eq!(finished.code, Some(code), "{driver}: {finished:?}");
            let report = parse(&finished.stdout);
            objects(&report).iter().map(|layer| text(&layer["state"]).to_owned()).collect()
        };
        assert_eq!(states("app:1", 0), ["sound"; 3], "{driver}: as imported");
        let client = daemon.client();
        for layer in client.layers().expect("layers") {
            let mut tar = Vec::new();
            let mut reader = client.layer_tar(&layer.chain_id).expect("a tar");
            std::io::Read::read_to_end(&mut reader, &mut tar).expect("its bytes");
            let found = cow::digest::Digest::of(&tar).to_string();
            assert_eq!(found, layer.diff_id, "{driver}: the tar is that of the archive");
        }
        let tree = tree_of(driver);
        let script = format!(
            "for f in root/{driver}/layers/*/{tree}/late; do
                [ {driver} != btrfs ] || btrfs property set -f -ts $(dirname $f) ro false
                printf LATE >$f
            done"
        );
        Command::new("sh").args(["-ec", &script]).current_dir(daemon.dir()).finish().ok();
        assert_eq!(states("app:1", 1), ["sound", "sound", "damaged"], "{driver}: one was changed");
        assert_eq!(states("app:1#2", 0), ["sound"; 2], "{driver}: those below are sound");
        assert_eq!(states(file, 0), ["sound"; 3], "the archive is what it was");
    }
    let mut bytes = fs::read(&path).expect("the archive");
    let at = bytes.windows(5).position(|bytes| bytes == b"late\n").expect("a file's content");
    bytes[at] = b'L';
    fs::write(&path, bytes).expect("the archive");
    let damaged = layerctl().args(["verify", file]).finish();
    assert_eq!(damaged.code, Some(1), "{damaged:?}");
    assert!(damaged.stdout.contains("damaged"), "{damaged:?}");
}

/// Writes into a container's file system as its processes do: through the mounts that the daemon names.
fn change(container: &layerd_api::Container, script: &str) {
    let at = TempDir::new().expect("a directory");
    for mount in &container.mounts {
        let options: Vec<_> = mount.options.iter().map(String::as_str).collect();
        let kind = if mount.fstype == "bind" { "none" } else { &mount.fstype };
        Command::new("mount")
            .args(["-t", kind, "-o", &options.join(","), &mount.source])
            .arg(at.path())
            .finish()
            .ok();
    }
    let finished = Command::new("sh").args(["-ec", script]).current_dir(at.path()).finish();
    Command::new("umount").arg(at.path()).finish().ok();
    finished.ok();
}

#[test]
fn a_container_is_looked_into_like_an_image() {
    if !host::provides(&[]) {
        return;
    }
    for driver in drivers() {
        let root = TempRoot::for_driver(driver, "container");
        let daemon = Daemon::start_on(&root, ["--driver", driver]);
        let path = daemon.dir().join("app.tar");
        write_image(&path);
        daemon.layerctl(["import", path.to_str().expect("UTF-8")]).ok();
        let request = layerd_api::CreateContainerRequest {
            image: "app:1".into(),
            name: Some("work".into()),
            ..Default::default()
        };
        let container = daemon.client().create_container(&request).expect("a container");
        let script = "printf mine >etc/mine; printf CHANGE >etc/change; rm late; chmod 600 etc/keep
            ln -s etc/mine link";
        change(&container, script);
        let json =
            |arguments: &[&str]| parse(&daemon.layerctl([&["--json"], arguments].concat()).ok());
        let changes = |report: &Value, member: &str| -> Vec<(String, String)> {
            let pairs = objects(report)
                .iter()
                .map(|entry| (text(&entry["path"]).to_owned(), text(&entry[member]).to_owned()));
            pairs.filter(|(path, _)| !["/", "/etc"].contains(&path.as_str())).collect()
        };
        let expected = |added: &str, changed: &str, deleted: &str| {
            [
                ("/etc/change", changed),
                ("/etc/keep", changed),
                ("/etc/mine", added),
                ("/late", deleted),
                ("/link", added),
            ]
            .map(|(path, what)| (path.to_owned(), what.to_owned()))
        };
        for name in ["work", &container.id[..12]] {
            let diff = json(&["diff", "app:1", name]);
            let words = expected("added", "changed", "removed");
            assert_eq!(changes(&diff["changes"], "change"), words, "{driver}: against its image");
        }
        let tree = daemon.layerctl(["tree", "--changes", "work"]).ok();
        for line in ["mine", "change", "late", "link"] {
            assert!(tree.contains(line), "{driver}: {line} is not in\n{tree}");
        }
        let blame = json(&["blame", "--all", "work"]);
        let of = |path: &str| {
            let found = objects(&blame).iter().find(|entry| entry["path"] == path);
            found.unwrap_or_else(|| panic!("{driver}: no {path}")).clone()
        };
        assert_eq!(of("/etc/mine")["content"], 4, "{driver}: its own layer is on top");
        assert_eq!(of("/etc/change")["content"], 4, "{driver}: overwritten here");
        assert_eq!(of("/late")["deleted"], 4, "{driver}: deleted here");
        assert_eq!(of("/etc/keep")["mode"], 4, "{driver}: chmod here");
        assert_eq!(of("/etc/keep")["content"], 1, "{driver}: its content is the image's");
        for (path, content) in
            [("work:/etc/mine", "mine"), ("work:/link", "mine"), ("work#3:/late", "late\n")]
        {
            assert_eq!(daemon.layerctl(["cat", path]).ok(), content, "{driver}: {path}");
        }
        let layers = json(&["layers", "work"]);
        assert_eq!(objects(&layers["layers"]).len(), 4, "{driver}: three and its changes");
        let mut kept = objects(&json(&["layers"])).to_vec();
        kept.retain(|layer| layer["containers"] == json!([&container.id[..12]]));
        assert_eq!(kept.len(), 3, "{driver}: it stands on all layers of the image");
    }
}

/// Imports three images that have their lowest layer in common.
fn import_three(daemon: &Daemon) {
    let path = daemon.dir().join("two.tar");
    let base: archive::Files<'_> = &[("etc/", ""), ("etc/os", "os\n"), ("big", BIG)];
    let app: archive::Files<'_> = &[("copy", BIG), ("app", "app\n")];
    let other: archive::Files<'_> = &[("opt/", ""), ("opt/big", BIG), ("empty", "")];
    let stacks =
        [("base:1", vec![base]), ("app:1", vec![base, app]), ("other:1", vec![base, other])];
    let named: Vec<_> = stacks.iter().map(|(name, layers)| ([*name], layers)).collect();
    let images: Vec<_> = named
        .iter()
        .map(|(names, layers)| Image {
            names,
            layers,
            created: "2024-01-01T00:00:00Z",
            config: &Value::Null,
        })
        .collect();
    archive::docker(&path, &images);
    daemon.layerctl(["import", path.to_str().expect("UTF-8")]).ok();
}

#[test]
fn the_whole_store_is_listed_and_its_duplicates_found() {
    let daemon = Daemon::start();
    import_three(&daemon);
    let client = daemon.client();

    let layers = parse(&daemon.layerctl(["--json", "layers"]).ok());
    let layers = objects(&layers);
    assert_eq!(layers.len(), 3, "each once: {layers:?}");
    assert_eq!(layers[0]["number"], 1, "the lowest comes first");
    assert_eq!(layers[0]["images"].as_array().map(Vec::len), Some(3), "all have it: {layers:?}");
    assert_eq!(layers[0]["shared"], layers[0]["size"], "it is shared");
    for above in &layers[1..] {
        assert_eq!(above["number"], 2, "on the lowest");
        assert_eq!(above["parent"], layers[0]["chain_id"], "on the lowest");
        assert_eq!(above["shared"], 0, "one image's own");
        assert_eq!(above["step"]["created_by"], "test", "the step that made it");
    }
    let rows =
        daemon.layerctl(["layers", "--no-trunc", "--format", "{{.ChainID}} {{.Users}}"]).ok();
    assert!(rows.contains(&format!("{} 3\n", text(&layers[0]["chain_id"]))), "in full:\n{rows}");

    let found = parse(&daemon.layerctl(["--json", "du", "--duplicates"]).ok());
    assert_eq!(found["contents"], 1, "one content is there more than once: {found}");
    assert_eq!(found["duplicate"], 2 * BIG.len(), "two of three: {found}");
    let stored: u64 = client.layers().expect("layers").iter().map(|layer| layer.size).sum();
    assert_eq!(found["stored"], stored, "all content: {found}");
    let big = &found["duplicates"][0];
    assert_eq!((&big["copies"], &big["size"]), (&json!(3), &json!(BIG.len())), "{big}");
    let digest = cow::digest::Digest::of(BIG.as_bytes()).hex();
    assert_eq!(big["sha256"], digest, "{big}");
    let mut paths: Vec<_> =
        objects(&big["places"]).iter().map(|place| text(&place["path"])).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["big", "copy", "opt/big"], "across images and layers");
    let lines = daemon.layerctl(["du", "--duplicates", "--format", "{{.Copies}} {{.SHA256}}"]).ok();
    assert_eq!(lines, format!("3 {}\n", &digest[..12]), "by a template");

    let lines = daemon.layerctl(["du", "--format", "{{.Kind}} {{.Name}} {{.Users}}"]).ok();
    let mut lines: Vec<_> = lines.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["image app:1 0", "image base:1 0", "image other:1 0"], "a line an image");
    let one = daemon.layerctl(["du", "--format", "{{.Name}} {{.Efficiency}}", "app:1"]).ok();
    assert_eq!(one, "app:1 100.00%\n", "one image by a template");
    let rule = "{{.Rule}} {{.Passed}} {{.Name}}";
    let check = daemon.layerctl(["check-image", "--max-wasted", "1GB", "--format", rule, "app:1"]);
    assert_eq!(check.ok(), "max-wasted true app:1\n", "one line a rule");
}

#[test]
fn images_and_layers_are_inspected_by_short_ids() {
    let daemon = Daemon::start();
    import_three(&daemon);
    let client = daemon.client();
    let layers = parse(&daemon.layerctl(["--json", "layers"]).ok());
    let chain = text(&layers[0]["chain_id"]).to_owned();
    let diff = text(&layers[1]["diff_id"]).trim_start_matches("sha256:").to_owned();
    for (name, member, expected) in [
        (&chain[7..19], "chain_id", &layers[0]["chain_id"]),
        (&diff[..12], "diff_id", &layers[1]["diff_id"]),
    ] {
        for arguments in [&["inspect", name][..], &["inspect", "--type", "layer", name]] {
            let shown = parse(&daemon.layerctl(arguments).ok());
            assert_eq!(&shown[0][member], expected, "{arguments:?}");
        }
    }
    let image = client.image("app:1").expect("an image").image.id;
    let short = &image[7..19];
    let shown = parse(&daemon.layerctl(["inspect", "--type", "image", short]).ok());
    assert_eq!(shown[0]["image"]["id"], image.as_str(), "an image by a short id");
    for (kind, name) in [("layer", "app:1"), ("container", short), ("image", &chain[7..19])] {
        let finished = daemon.layerctl(["inspect", "--type", kind, name]);
        assert_eq!(finished.code, Some(1), "{kind} {name}: {finished:?}");
        assert!(finished.stderr.contains(&format!("no such {kind}")), "{kind}: {finished:?}");
    }
}

const BIG: &str = "a content that is longer than the others of these tests\n";

#[test]
fn files_come_out_as_they_are() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("app.tar");
    write_image(&path);
    let file = path.to_str().expect("UTF-8");
    let to = dir.path().join("out");
    let from = format!("{file}#2:/");
    layerctl().arg("cp").args([&from]).arg(&to).finish().ok();
    let read = |name: &str| fs::read_to_string(to.join(name)).unwrap_or_default();
    assert_eq!(read("etc/change"), "one\n2\nthree\n");
    assert_eq!(read("opt/app/new"), "new\n");
    for gone in ["opt/app/old", "etc/gone", "late"] {
        assert!(!to.join(gone).exists(), "{gone} is not in layer 2");
    }
    let differences = offline(&[
        "diff",
        "--ignore",
        "owner,time",
        &format!("{file}#2"),
        to.to_str().expect("UTF-8"),
    ]);
    assert_eq!(differences["changes"], json!([]), "the copy is like the layer");
    let again =
        layerctl().arg("cp").args([&format!("{file}:/etc/keep")]).arg(to.join("etc/keep")).finish();
    assert_eq!(again.code, Some(1), "nothing is overwritten: {again:?}");
}

#[test]
fn mistakes_are_told() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("app.tar");
    write_image(&path);
    let file = path.to_str().expect("UTF-8");
    for (arguments, code, message) in [
        (&["layers", "./nonexistent.tar"][..], 1, "nonexistent.tar"),
        (&["layers", "@#9"], 1, "has no layer 9"),
        (&["layers", "@:other"], 1, "there is app:1"),
        (&["cat", "@"], 2, "TARGET:PATH"),
        (&["cat", "@:/etc"], 1, "not a regular file"),
        (&["cat", "@:/nonexistent"], 1, "no such file"),
        (&["blame", "/nonexistent", "@"], 1, "no layer has such a file"),
        (&["blame", "@"], 2, "blame PATH IMAGE"),
        (&["check-image", "--max-wasted", "lots", "@"], 2, "lots"),
        (&["check-image", "--max-wasted", "1B", "@"], 1, ""),
        (&["diff", "--stat", "--content", "@", "@"], 2, "cannot be used"),
        (&["layers", "--format", "{{.Nome}}", "@"], 2, "DiffID"),
    ] {
        let words: Vec<_> = arguments.iter().map(|word| word.replace('@', file)).collect();
        let finished = layerctl().args(words).finish();
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(message), "{arguments:?}: {finished:?}");
    }
}
