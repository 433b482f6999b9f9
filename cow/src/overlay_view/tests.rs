//! Layers marked by hand; that real mounts are seen as the kernel shows them is tested with
//! [`diff`](crate::diff), on every stack that its tests make.

use std::fs;

use super::*;
use crate::xattr;

struct Stack {
    _dir: tempfile::TempDir,
    roots: Vec<Root>,
}

impl Stack {
    /// Layers of files, uppermost first: `PATH/` is a directory, `PATH MARK=VALUE` a marked file
    /// or directory, `PATH !` a whiteout, everything else a file with its path as content.
    fn new(layers: &[&[&str]]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut roots = Vec::new();
        for (number, files) in layers.iter().enumerate() {
            let base = dir.path().join(number.to_string());
            fs::create_dir(&base).unwrap();
            let root = Root::open(&base).unwrap();
            for file in *files {
                make(&base, &root, file);
            }
            roots.push(root);
        }
        Self { _dir: dir, roots }
    }

    /// `ROOT:PATH` of the metadata and of the data, or the parts of a directory.
    fn resolve(&self, path: &str) -> Result<String> {
        let view = OverlayView::new(self.roots.iter().collect(), XattrSpace::User);
        let show = |at: &Location| format!("{}:{}", at.root, at.path.display());
        Ok(match view.resolve(path)? {
            None => "none".to_owned(),
            Some(Node { dir: Some(dir), .. }) => {
                dir.parts.iter().map(show).collect::<Vec<_>>().join(" ")
            }
            Some(Node { meta_at, data_at: Some(data), .. }) if meta_at != data => {
                format!("{} data {}", show(&meta_at), show(&data))
            }
            Some(node) => show(&node.meta_at),
        })
    }
}

fn make(base: &Path, root: &Root, file: &str) {
    let (path, mark) = file.split_once(' ').unwrap_or((file, ""));
    let full = base.join(path);
    if path.ends_with('/') {
        fs::create_dir_all(&full).unwrap();
    } else {
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(&full, if mark == "!" { "" } else { path }).unwrap();
    }
    let mark = if mark == "!" { "whiteout=y" } else { mark };
    if let Some((name, value)) = mark.split_once('=') {
        let handle = root.open_handle(path).unwrap();
        let attr = XattrSpace::User.attr(name);
        xattr::set_at(handle, OsStr::new(""), &attr, value.as_bytes()).unwrap();
    }
}

#[test]
fn names_are_found_where_the_marks_lead() {
    let stack = Stack::new(&[
        &[
            "gone !",
            "d/hidden !",
            "d/own",
            "opaque/ opaque=y",
            "opaque/own",
            "renamed/ redirect=before",
            "far/away/ redirect=/a/b",
            "meta metacopy=",
            "metafar redirect=/a/file",
        ],
        &[
            "gone",
            "d/hidden",
            "d/middle",
            "opaque/under",
            "renamed/not-here",
            "before/middle",
            "before/over !",
            "a/b/middle",
            "meta metacopy=",
            "a/ redirect=deeper",
            "a/file metacopy=",
            "blocked",
            "cut/ opaque=y",
        ],
        &[
            "d/hidden",
            "d/low",
            "before/low",
            "before/over",
            "a/b/not-here",
            "deeper/b/low",
            "deeper/file",
            "meta",
            "blocked/under",
            "cut/under",
        ],
    ]);
    let attr = XattrSpace::User.attr("metacopy");
    xattr::set_at(&stack.roots[0], OsStr::new("metafar"), &attr, b"").unwrap();
    let cases = [
        ("", "0: 1: 2:"),
        ("gone", "none"),
        ("gone/x", "none"),
        ("d", "0:d 1:d 2:d"),
        ("d/hidden", "none"),
        ("d/own", "0:d/own"),
        ("/d/middle", "1:d/middle"),
        ("d/low", "2:d/low"),
        ("d/low/x", "none"),
        ("opaque", "0:opaque"),
        ("opaque/own", "0:opaque/own"),
        ("opaque/under", "none"),
        ("renamed", "0:renamed 1:before 2:before"),
        ("renamed/not-here", "none"),
        ("renamed/middle", "1:before/middle"),
        ("renamed/low", "2:before/low"),
        ("renamed/over", "none"),
        ("far/away", "0:far/away 1:a/b 2:deeper/b"),
        ("far/away/low", "2:deeper/b/low"),
        ("far/away/not-here", "none"),
        ("a", "1:a 2:deeper"),
        ("meta", "0:meta data 2:meta"),
        ("metafar", "0:metafar data 2:deeper/file"),
        ("blocked", "1:blocked"),
        ("blocked/under", "none"),
        ("cut", "1:cut"),
        ("cut/under", "none"),
        ("missing/x/y", "none"),
    ];
    for (path, expected) in cases {
        assert_eq!(stack.resolve(path).unwrap(), expected, "{path:?}");
    }
}

#[test]
fn contradictions_are_errors() {
    let stack = Stack::new(&[
        &["nowhere metacopy=", "onto-dir metacopy=", "up redirect=../x", "far redirect=/a/../b"],
        &["onto-dir/file", "up/", "far"],
    ]);
    for path in ["nowhere", "onto-dir", "up", "far"] {
        // `up` and `far` are files without metacopy, so that their redirect is read but not used.
        assert!(stack.resolve(path).is_err(), "{path}: {:?}", stack.resolve(path));
    }
    assert!(stack.resolve("../etc").is_err(), "`..` was resolved");
    let view = OverlayView::new(stack.roots.iter().collect(), XattrSpace::User);
    let foreign = Location { root: 2, path: PathBuf::new() };
    assert!(view.root(&foreign).is_err(), "a layer that is not in the stack");
    assert_eq!(OverlayView::new(Vec::new(), XattrSpace::User).resolve("").unwrap(), None);
}

#[test]
fn the_lowers_alone_are_seen_in_the_same_numbers() {
    let stack = Stack::new(&[&["d/a !", "d/new"], &["d/a"], &["d/b"]]);
    let view = OverlayView::new(stack.roots.iter().collect(), XattrSpace::User);
    let node = view.resolve_from(view.top_of(1..3), Path::new("d")).unwrap().unwrap();
    let dir = node.dir.unwrap();
    assert_eq!(dir.parts.iter().map(|part| part.root).collect::<Vec<_>>(), [1, 2]);
    let open = view.open(&dir);
    let names = open.candidates().unwrap();
    assert_eq!(names.iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(open.lookup(OsStr::new("a")).unwrap().unwrap().meta_at.root, 1);
    assert_eq!(open.lookup(OsStr::new("new")).unwrap(), None);
}
