//! A container is looked into like an image.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::daemon::{Daemon, Finish};
use tests::host;
use tests::root::TempRoot;

use crate::{drivers, objects, parse, text, write_image};

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
            // Times of directories differ with what is put into them.
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
        let gone = daemon.layerctl(["cat", "work:/late"]);
        assert_eq!(gone.code, Some(1), "{driver}: {gone:?}");
        let layers = json(&["layers", "work"]);
        assert_eq!(objects(&layers["layers"]).len(), 4, "{driver}: three and its changes");
        let mut kept = objects(&json(&["layers"])).to_vec();
        kept.retain(|layer| layer["containers"] == json!([&container.id[..12]]));
        assert_eq!(kept.len(), 3, "{driver}: it stands on all layers of the image");
    }
}
