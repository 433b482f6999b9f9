use std::sync::Arc;

use super::*;
use crate::compare::Differences;
use crate::digest::Digest;
use crate::index::{Builder, Content};
use crate::meta::Time;
use crate::tar::{Entry, EntryKind};

/// An index of entries in short: `d/`, `f=text`, `f:600=text` with a mode, `l->t`, `h=>t`,
/// whiteouts as in a tar.
fn index(entries: &[&str]) -> Arc<Index> {
    let mut builder = Builder::new();
    for text in entries {
        let mut entry =
            Entry { mode: 0o644, mtime: Time { secs: 1, nanos: 0 }, ..Entry::default() };
        let mut digest = None;
        let path = if let Some((path, link)) = text.split_once("->") {
            (entry.kind, entry.link) = (EntryKind::Symlink, link.into());
            path
        } else if let Some((path, link)) = text.split_once("=>") {
            (entry.kind, entry.link) = (EntryKind::HardLink, link.into());
            path
        } else if let Some((path, content)) = text.split_once('=') {
            entry.size = content.len() as u64;
            digest = Some(Digest::of(content.as_bytes()));
            path
        } else {
            if text.ends_with('/') {
                (entry.kind, entry.mode) = (EntryKind::Dir, 0o755);
            }
            text
        };
        let (path, mode) = path.split_once(':').unwrap_or((path, ""));
        entry.path = path.into();
        if !mode.is_empty() {
            entry.mode = u32::from_str_radix(mode.trim_end_matches('/'), 8).unwrap();
        }
        builder.push(&entry, Content { digest, offset: None }).unwrap();
    }
    Arc::new(builder.finish().unwrap())
}

fn stack(layers: &[&[&str]]) -> Stack {
    Stack::new(layers.iter().map(|entries| index(entries)).collect()).unwrap()
}

/// Each path with its events: `0A 1M(mode) 2D`.
fn histories(stack: &Stack) -> Vec<String> {
    let mut lines = Vec::new();
    stack.walk(|history| {
        // Every layer has a root, listed or not.
        if history.path.is_empty() {
            return;
        }
        let events = history.events.iter().map(|event| match event.change {
            Change::Added => format!(" {}A", event.layer),
            Change::Modified(what) => format!(" {}M({what})", event.layer),
            Change::Repeated => format!(" {}R", event.layer),
            Change::Deleted => format!(" {}D", event.layer),
        });
        let path = String::from_utf8_lossy(history.path);
        lines.push(format!("{path}{}", events.collect::<String>()));
    });
    lines
}

fn paths(tree: &Tree) -> Vec<String> {
    let files = tree.files().filter(|file| !file.path.is_empty());
    files.map(|file| String::from_utf8_lossy(file.path).into_owned()).collect()
}

#[test]
fn histories_follow_the_rules_of_applying() {
    for (what, layers, expected) in [
        (
            "added and changed",
            &[&["a=1", "b=1"][..], &["a=2"]][..],
            &["a 0A 1M(content)", "b 0A"][..],
        ),
        ("metadata alone", &[&["a=1"], &["a:600=1"]], &["a 0A 1M(mode)"]),
        ("copied up and not changed", &[&["a=1"], &["a=1"]], &["a 0A 1R"]),
        ("deleted, and added again", &[&["a=1"], &[".wh.a"], &["a=1"]], &["a 0A 1D 2A"]),
        (
            "hidden and had in one layer",
            &[&["a=1"], &[".wh.a", "a=22"]],
            &["a 0A 1M(size,content)"],
        ),
        ("nothing to hide", &[&["b=1"], &[".wh.a"]], &["b 0A"]),
        (
            "a deleted directory",
            &[&["d/", "d/x/", "d/x/f=1"], &[".wh.d"]],
            &["d 0A 1D", "d/x 0A 1D", "d/x/f 0A 1D"],
        ),
        (
            "opaque",
            &[&["d/", "d/f=1", "d/g=1"], &["d/", "d/.wh..wh..opq", "d/g=2"]],
            &["d 0A 1R", "d/f 0A 1D", "d/g 0A 1D 1A"],
        ),
        ("a file over a directory", &[&["d/", "d/f=1"], &["d=1"]], &["d 0A 1M(kind)", "d/f 0A 1D"]),
        (
            "and a directory again",
            &[&["d/", "d/f=1"], &["d=1"], &["d/", "d/f=1"]],
            &["d 0A 1M(kind) 2M(kind)", "d/f 0A 1D 2A"],
        ),
        (
            "directories that are not listed change nothing",
            &[&["d:700/", "d/f=1"], &["d/g=1"]],
            &["d 0A", "d/f 0A", "d/g 1A"],
        ),
        (
            "a link below is followed",
            &[&["lib->usr/lib", "usr/", "usr/lib/"], &["lib/x=1"]],
            &["lib 0A", "usr 0A", "usr/lib 0A", "usr/lib/x 1A"],
        ),
        (
            "a directory in its place is not",
            &[&["lib->usr"], &["lib/", "lib/x=1"]],
            &["lib 0A 1M(kind)", "lib/x 1A"],
        ),
        ("a name of a file below", &[&["a=1"], &["b=>a"]], &["a 0A", "b 1A"]),
        ("a name of nothing", &[&["a=1"], &["b=>c"]], &["a 0A"]),
        ("an opaque root", &[&["a=1"], &[".wh..wh..opq", "b=1"]], &["a 0A 1D", "b 1A"]),
        (
            "neighbours by name",
            &[&["d/", "d/f=1", "d.x=1", "d-y=1"], &[".wh.d"]],
            &["d 0A 1D", "d/f 0A 1D", "d-y 0A", "d.x 0A"],
        ),
    ] {
        assert_eq!(histories(&stack(layers)), expected, "{what}: {layers:?}");
    }
}

#[test]
fn origins_are_told_apart() {
    let stack = stack(&[&["f=1"], &["f:600=1"], &["f:600=2"], &["x=1"], &["f:600=2", ".wh.f"]]);
    let origin = |stack: &Stack| {
        let mut found = None;
        stack.walk(|history| found = found.or(history.origin().filter(|_| history.path == b"f")));
        found.expect("f has an origin")
    };
    let before = origin(&stack.lowest(4));
    assert_eq!((before.added, before.mode, before.content, before.owner), (0, 1, 2, 0));
    assert_eq!(before.deleted, None);
    let hidden = super::tests::stack(&[&["f=1"], &[".wh.f"]]);
    assert_eq!(origin(&hidden).deleted, Some(1), "who deleted it");
}

#[test]
fn trees_are_looked_into_as_a_process_would() {
    let tree = Tree::of(&stack(&[
        &["usr/", "usr/lib/", "usr/lib/x=1", "lib->usr/lib", "abs->/lib/x", "self->self"],
        &["lib/y=2", "up->../../usr", ".wh.abs"],
    ]));
    assert_eq!(paths(&tree), ["lib", "self", "up", "usr", "usr/lib", "usr/lib/x", "usr/lib/y"]);
    let at = |path: &str| {
        let found = tree.lookup_followed(path).ok().flatten();
        found.map(|file| String::from_utf8_lossy(file.path).into_owned())
    };
    for (path, expected) in [
        ("/lib/x", Some("usr/lib/x")),
        ("lib/../lib/y", Some("usr/lib/y")),
        ("up/lib/x", Some("usr/lib/x")),
        ("lib", Some("usr/lib")),
        ("abs", None),
        ("self", None),
    ] {
        assert_eq!(at(path).as_deref(), expected, "{path}");
    }
    assert!(tree.lookup_followed("self").is_err(), "a circle is told");
    let link = tree.lookup("lib").unwrap().unwrap();
    assert_eq!(link.facts.link(), b"usr/lib", "the link itself");
    let below: Vec<_> = tree.below(b"usr/lib").map(|file| file.path.to_vec()).collect();
    assert_eq!(below, [&b"usr/lib"[..], b"usr/lib/x", b"usr/lib/y"]);
    assert_eq!(tree.below(b"self").count(), 1, "a file is below itself");
    assert_eq!(tree.below(b"nothing").count(), 0);
}

#[test]
fn waste_is_what_no_name_shows() {
    let stack = stack(&[
        &["a=11111", "b=222", "c=>b", "d/", "d/e=4444", "k=1"],
        &["a=55", ".wh.b", ".wh.d", "k:600=1"],
    ]);
    let waste = Waste::of(&stack);
    assert_eq!(
        waste.layers,
        [LayerWaste { bytes: 13, wasted: 10 }, LayerWaste { bytes: 3, wasted: 0 },]
    );
    let files: Vec<_> = waste
        .files
        .iter()
        .map(|file| {
            let path = stack.row(file.place).unwrap().path_bytes().to_vec();
            (String::from_utf8(path).unwrap(), file.bytes, file.hidden_by, file.deleted)
        })
        .collect();
    assert_eq!(
        files,
        [
            ("a".to_owned(), 5, 1, false),
            ("d/e".to_owned(), 4, 1, true),
            ("k".to_owned(), 1, 1, false),
        ],
        "b is still seen as c"
    );
    assert_eq!((waste.bytes(), waste.wasted()), (16, 10));
}

#[test]
fn trees_are_compared_path_by_path() {
    let a = Tree::of(&stack(&[&["d/", "d/f=1", "same=1", "gone/", "gone/x=1", "mode:600=1"]]));
    let b = Tree::of(&stack(&[&["d/", "d/f=2", "d/new=1", "same=1", "mode:644=1"]]));
    let lines: Vec<_> = compare(&a, &b)
        .map(|difference| match difference {
            Difference::Removed(file) => format!("-{}", String::from_utf8_lossy(file.path)),
            Difference::Added(file) => format!("+{}", String::from_utf8_lossy(file.path)),
            Difference::Changed(file, _, what) => {
                format!("{}({what})", String::from_utf8_lossy(file.path))
            }
        })
        .collect();
    assert_eq!(lines, ["d/f(content)", "+d/new", "-gone", "-gone/x", "mode(mode)"]);
    assert_eq!(compare(&a, &a).count(), 0, "a tree is like itself");
    let kinds = Differences::KIND;
    assert!(!kinds.is_empty(), "a kind is a difference");
}

#[test]
fn names_of_lower_files_have_their_facts() {
    let tree = Tree::of(&stack(&[&["a:600=text"], &["b=>a"], &["c=>b", ".wh.a"]]));
    assert_eq!(paths(&tree), ["b", "c"]);
    for name in ["b", "c"] {
        let file = tree.find(name.as_bytes()).unwrap();
        assert_eq!(file.facts.mode(), 0o600, "{name}");
        assert_eq!(file.facts.digest(), Some(&Digest::of(b"text")), "{name}");
    }
}
