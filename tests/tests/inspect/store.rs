//! All that a store has: its layers, their users, and what is there more than once.

use serde_json::{Value, json};
use tests::archive::{self, Image};
use tests::daemon::Daemon;

use crate::{objects, parse, text};

/// A content worth keeping but once.
const BIG: &str = "a content that is longer than the others of these tests\n";

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
    let table = daemon.layerctl(["layers"]).ok();
    assert_eq!(table.lines().count(), 4, "a heading and a row each:\n{table}");
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
