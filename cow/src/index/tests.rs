use std::io::Cursor;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

use super::*;
use crate::index::Contents;
use crate::root::Root;
use crate::tar::{Entry, EntryKind, Reader, Writer};

/// One entry: a directory ends with `/`, `a -> b` is a link, `a => b` a further name, `a=text` a
/// file.
fn entry(text: &str) -> (Entry, &str) {
    let of = |path: &str, kind, link: &str| Entry {
        path: path.as_bytes().to_owned(),
        kind,
        link: link.as_bytes().to_owned(),
        mode: 0o644,
        ..Entry::default()
    };
    if let Some((path, link)) = text.split_once(" -> ") {
        return (of(path, EntryKind::Symlink, link), "");
    }
    if let Some((path, link)) = text.split_once(" => ") {
        return (of(path, EntryKind::HardLink, link), "");
    }
    match text.split_once('=') {
        Some((path, content)) => {
            (Entry { size: content.len() as u64, ..of(path, EntryKind::File, "") }, content)
        }
        None if text.ends_with('/') => (of(text, EntryKind::Dir, ""), ""),
        None => (of(text, EntryKind::File, ""), ""),
    }
}

fn tar(entries: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for text in entries {
        let (entry, content) = entry(text);
        writer.entry(&entry).unwrap();
        writer.data(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().0
}

fn index(entries: &[&str]) -> Index {
    Index::read(&mut Reader::new(&tar(entries)[..]), Contents::Digest).unwrap()
}

/// Rows in short: path, kind, marks; without a root that is not listed.
fn rows(index: &Index) -> Vec<String> {
    let row = |node: Node<'_>| {
        let kind = match node.kind() {
            Some(FileKind::Dir) if node.is_implicit() => "(d)",
            Some(FileKind::Dir) => "d",
            Some(FileKind::File) => "f",
            Some(_) => "o",
            None if node.link_below().is_some() => "l",
            None => "-",
        };
        let marks = [(node.is_whiteout(), "!"), (node.is_opaque(), "o")];
        let marks: String = marks.iter().filter(|mark| mark.0).map(|mark| mark.1).collect();
        format!("{} {kind}{marks}", node.path().display())
    };
    let nodes = index.nodes().filter(|node| !(node.path_bytes().is_empty() && node.is_implicit()));
    nodes.map(row).collect()
}

#[test]
fn entries_become_rows_by_the_rules_of_applying() {
    for (what, entries, expected) in [
        ("order is by path", &["b=1", "./a/", "a/x=1"][..], &["a d", "a/x f", "b f"][..]),
        ("directories that are not listed", &["a/b/c=1"], &["a (d)", "a/b (d)", "a/b/c f"]),
        ("a later entry wins", &["a=1", "a/", "a/b=2"], &["a d", "a/b f"]),
        ("what is no directory takes its content away", &["a/", "a/b=1", "a=2"], &["a f"]),
        ("a directory keeps what is in it", &["a/", "a/b=1", "a/"], &["a d", "a/b f"]),
        ("whiteouts", &["a/.wh.b", ".wh.c"], &["a (d)", "a/b -!", "c -!"]),
        ("hiding and having", &[".wh.a", "a=1"], &["a f!"]),
        ("having and hiding", &["a=1", ".wh.a"], &["a f!"]),
        (
            "opaque before and after",
            &["a/.wh..wh..opq", "a/", "b/", "b/.wh..wh..opq"],
            &["a do", "b do"],
        ),
        ("AUFS's own files", &[".wh..wh.aufs", ".wh..wh.plnk/"], &[]),
        (
            "links of the layer are followed",
            &["lib -> usr/lib", "usr/lib/", "lib/x=1"],
            &["lib o", "usr (d)", "usr/lib d", "usr/lib/x f"],
        ),
        ("names stay inside", &["../../a=1", "/b=1"], &["a f", "b f"]),
        ("a name of a file below", &["a => b"], &["a l"]),
        ("the root", &["./", "a=1"], &[" d", "a f"]),
    ] {
        assert_eq!(rows(&index(entries)), expected, "{what}: {entries:?}");
    }
}

#[test]
fn names_of_one_file_share_it() {
    let index = index(&["z=text", "a => z", "m => a", "n=text"]);
    let node = |path: &str| index.find(path.as_bytes()).unwrap();
    for path in ["a", "m", "z"] {
        assert_eq!(node(path).inode(), node("a").at(), "{path} is the file of a");
        assert_eq!(node(path).digest(), Some(&Digest::of(b"text")), "{path} has its content");
    }
    assert_ne!(node("n").inode(), node("a").inode(), "equal content is not one file");
    assert_eq!(index.content_size(), 8, "counted once");
    assert_eq!(index.counts().files, 2, "two files");
    let replaced = super::tests::index(&["z=text", "a => z", "z=new"]);
    let a = replaced.find(b"a").unwrap();
    assert_eq!(
        a.digest(),
        Some(&Digest::of(b"text")),
        "the old file lives on under its other name"
    );
}

#[test]
fn hostile_tars_are_refused_or_bounded() {
    for (what, entries) in [
        ("a whiteout of nothing", &[".wh."][..]),
        ("a whiteout of the parent", &["a/.wh..."]),
        ("a circle of links", &["a -> b", "b -> a", "a/x=1"]),
    ] {
        let tar = tar(entries);
        let read = Index::read(&mut Reader::new(&tar[..]), Contents::Digest);
        assert!(read.is_err(), "{what}: {read:?}");
    }
    let mut deep = Vec::new();
    for number in 0..2000 {
        deep.push(if number % 2 == 0 { "d/".to_owned() } else { "d=x".to_owned() });
    }
    let deep: Vec<&str> = deep.iter().map(String::as_str).collect();
    assert_eq!(rows(&index(&deep)), ["d f"], "replacing again and again");
}

#[test]
fn contents_may_be_passed_over_by_seeking() {
    let big = format!("big={}", "x".repeat(1_000_000));
    let tar = tar(&["a=1", &big, "z=2"]);
    let whole = Index::read(&mut Reader::new(&tar[..]), Contents::Digest).unwrap();
    let mut reader = Reader::seeking(Cursor::new(&tar));
    let quick = Index::read(&mut reader, Contents::Skip).unwrap();
    assert_eq!(rows(&quick), rows(&whole), "the same files");
    for (a, b) in quick.nodes().zip(whole.nodes()).filter(|(a, _)| a.is_file()) {
        assert_eq!(a.offset(), b.offset(), "{:?}", a.path());
        assert_eq!(a.digest(), None, "{:?} was not read", a.path());
        let start = usize::try_from(b.offset().unwrap()).unwrap();
        let end = start + usize::try_from(b.size()).unwrap();
        assert_eq!(Digest::of(&tar[start..end]), *b.digest().unwrap(), "{:?}", b.path());
    }
    let cut = &tar[..tar.len() - 1024 - 1024];
    let read = Index::read(&mut Reader::seeking(Cursor::new(cut)), Contents::Skip);
    assert!(read.is_err(), "a stream that ends before its end mark: {read:?}");
}

#[test]
fn a_directory_is_indexed_like_its_tar() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("d")).unwrap();
    std::fs::write(path("d/f"), "text").unwrap();
    std::fs::hard_link(path("d/f"), path("a")).unwrap();
    symlink("d/f", path("l")).unwrap();
    std::fs::set_permissions(path("d"), PermissionsExt::from_mode(0o2750)).unwrap();
    let index = Index::of_tree(&Root::open(dir.path()).unwrap(), Contents::Digest).unwrap();
    assert_eq!(rows(&index), [" d", "a f", "d d", "d/f f", "l o"]);
    let node = |path: &str| index.find(path.as_bytes()).unwrap();
    assert_eq!(node("d/f").inode(), node("a").inode(), "one file");
    assert_eq!(node("d/f").digest(), Some(&Digest::of(b"text")));
    assert_eq!(node("d").mode(), 0o2750);
    assert_eq!(node("l").link(), b"d/f");
    let meta = std::fs::symlink_metadata(path("d/f")).unwrap();
    assert_eq!((node("a").uid(), node("a").gid()), (meta.uid(), meta.gid()));
    assert_eq!(node("a").mtime().secs, meta.mtime());
}
