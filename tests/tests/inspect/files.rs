//! Files are taken out, and mistakes told.

use std::fs;

use serde_json::json;
use tempfile::TempDir;
use tests::daemon::{Finish, layerctl};

use crate::{offline, write_image};

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
        (
            &["layers", "./nonexistent.tar"][..],
            1,
            "nonexistent.tar: No such file or directory (os error 2)\n",
        ),
        (&["diff", "@"], 2, "and what?"),
        (&["diff", "--stat", "name"], 2, "<B>"),
        (&["graph", "@"], 2, "import"),
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
