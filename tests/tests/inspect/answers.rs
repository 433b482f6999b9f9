//! The store gives the same answers as the archive, and notices when it is damaged.

use std::fs;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use tests::daemon::{Daemon, Finish, layerctl};
use tests::root::TempRoot;

use crate::{drivers, objects, offline, parse, text, tree_of, write_image};

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
