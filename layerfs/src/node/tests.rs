//! The size of a node, which a mount has for each file that the kernel remembers, and which node is found.

use std::ffi::OsStr;

use super::*;
use crate::union::{Found, Union, stat};

#[test]
fn a_node_and_its_places_in_the_table_stay_below_400_bytes() {
    let node = size_of::<Node>() + 2 * size_of::<usize>();
    // The number, the slot and a control byte; the real inode, the number and a control byte; both
    // tables at the worst moment, half empty after they grew.
    let tables = 2 * (8 + 16 + 1) + 2 * (16 + 8 + 1);
    // A name of 24 bytes, kept by the node and by its place, as the allocator rounds it.
    let names = 2 * 32;
    assert!(node + tables + names <= 400, "{node} + {tables} + {names}");
}

/// A union of one lower layer and an upper one, and the table of its nodes.
struct Stage {
    dir: tempfile::TempDir,
    union: Union,
    table: Table,
    root: Arc<Node>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for the layers");
        for name in ["low", "up", "work"] {
            std::fs::create_dir(dir.path().join(name)).expect("a layer");
        }
        let mut options = crate::options::Options::default();
        let path = |name| dir.path().join(name).display().to_string();
        let text =
            format!("lowerdir={},upperdir={},workdir={}", path("low"), path("up"), path("work"));
        options.add(OsStr::new(&text)).expect("options");
        let union = Union::open(&options).expect("the layers");
        let stat = stat(&union.fds.get(&union.roots()[0]).expect("an fd"), OsStr::new(""));
        let stat = stat.expect("the root's attributes");
        let id = union.id(&union.roots()[0], &stat);
        let table = Table::new(&Found { id, ino: id.ino, stat, place: Place::Dir(union.roots()) });
        let root = table.get(ROOT).expect("the root");
        Self { dir, union, table, root }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn found(&self, name: &str) -> Found {
        let found = self.union.lookup(&self.union.roots(), OsStr::new(name));
        found.expect("a lookup").unwrap_or_else(|| panic!("{name} is there"))
    }

    fn intern(&self, name: &str, parent: &Arc<Node>) -> Arc<Node> {
        let moment = self.table.moment();
        let found = self.found(name);
        let node = self.table.intern(&self.union, &found, parent, OsStr::new(name), moment);
        node.expect("nothing was copied up meanwhile")
    }
}

#[test]
fn what_is_made_gets_a_node_of_its_own_whatever_its_inode_led_to() {
    let stage = Stage::new();
    std::fs::create_dir(stage.path("up/removed")).expect("a directory");
    let old = stage.intern("removed", &stage.root);
    // It is removed, and its number given out again, before its node is known to be without a name.
    std::fs::rename(stage.path("up/removed"), stage.path("up/made")).expect("the same inode");
    let found = stage.found("made");
    let new = stage.table.made(&found, &stage.root, OsStr::new("made"));
    assert_ne!(new.id, old.id, "the kernel would take it for a directory in two places");
    stage.table.unalias(found.id, old.id);
    assert_eq!(
        stage.table.find(found.id).map(|node| node.id),
        Some(new.id),
        "its inode leads to it"
    );
    stage.table.forget(old.id, 1);
    assert_eq!(stage.table.find(found.id).map(|node| node.id), Some(new.id), "and goes on so");
}

#[test]
fn a_successor_stays_as_long_as_the_node_that_it_succeeds() {
    let stage = Stage::new();
    std::fs::write(stage.path("low/f"), "lower").expect("a file");
    let old = stage.intern("f", &stage.root);
    std::fs::write(stage.path("up/f"), "upper").expect("its copy");
    let found = stage.found("f");
    let state = State {
        parent: Some(Arc::clone(&stage.root)),
        name: OsStr::new("f").into(),
        place: found.place.clone(),
        real: found.id,
        extra: None,
    };
    let next = stage.table.succeed(&old, state);
    stage.table.alias(found.id, next.id);
    old.state().extra().successor = Some(Arc::clone(&next));
    // The kernel is told of it and forgets it, while it still knows the other.
    assert_eq!(stage.intern("f", &stage.root).id, next.id, "the copy leads to the successor");
    stage.table.forget(next.id, 1);
    assert_eq!(stage.table.find(found.id).map(|node| node.id), Some(next.id), "it is found still");
    stage.table.forget(old.id, 1);
    assert!(stage.table.find(found.id).is_none(), "both are gone");
    assert_eq!(stage.table.len(), 1, "but for the root");
}

#[test]
fn a_directory_comes_back_as_itself_while_others_refer_to_it() {
    let stage = Stage::new();
    std::fs::create_dir(stage.path("low/d")).expect("a directory");
    let first = stage.intern("d", &stage.root).id;
    let child = stage.table.get(first).expect("a node");
    stage.table.forget(first, 1);
    assert_eq!(stage.intern("d", &stage.root).id, first, "a file below it knows this one");
    stage.table.forget(first, 1);
    drop(child);
    // Enough of them that somebody asks who is needed.
    for number in 0..100 {
        let name = format!("d{number}");
        std::fs::create_dir(stage.path("low").join(&name)).expect("a directory");
        let held = stage.intern(&name, &stage.root);
        stage.table.forget(held.id, 1);
    }
    assert!(stage.table.len() <= 65, "{} nodes for nobody", stage.table.len());
    assert!(stage.table.get(first).is_err(), "what nothing refers to any more is dropped");
}

#[test]
fn what_was_read_before_a_copy_up_is_read_again() {
    let stage = Stage::new();
    std::fs::write(stage.path("low/f"), "lower").expect("a file");
    let (moment, found) = (stage.table.moment(), stage.found("f"));
    let intern =
        |moment| stage.table.intern(&stage.union, &found, &stage.root, OsStr::new("f"), moment);
    stage.table.copied_up();
    assert!(intern(moment).is_none(), "it may be this file that was copied up");
    let node = intern(stage.table.moment()).expect("nothing was copied up since");
    stage.table.copied_up();
    let again = intern(moment).expect("a file that is known is the same wherever it is");
    assert_eq!(again.id, node.id, "its node");
}

#[test]
fn data_that_is_with_its_file_by_now_stays_there() {
    let stage = Stage::new();
    std::fs::write(stage.path("low/x"), "lower").expect("the data");
    std::fs::write(stage.path("up/x"), "").expect("a file without its own");
    std::fs::hard_link(stage.path("up/x"), stage.path("up/y")).expect("another name of it");
    let set = |mark: &str, value: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        let name = stage.union.prefix.name(mark);
        rustix::fs::setxattr(stage.path("up/x"), name, value.as_bytes(), flags)
    };
    set("metacopy", "").expect("the mark");
    set("redirect", "/x").expect("where it is");
    let (moment, found) = (stage.table.moment(), stage.found("y"));
    assert!(matches!(&found.place, Place::File { data: Some(_), .. }), "its data is below");
    let node = stage.intern("x", &stage.root);
    // It is opened to be written: its data is copied.
    let Place::File { dir, name, .. } = node.state().place.clone() else { panic!("a file") };
    node.state().place = Place::File { dir, name, data: None };
    let intern =
        |moment| stage.table.intern(&stage.union, &found, &stage.root, OsStr::new("y"), moment);
    stage.table.copied_up();
    assert!(intern(moment).is_none(), "what was found may be out of date");
    let again = intern(stage.table.moment()).expect("nothing was copied up since");
    assert_eq!(again.id, node.id, "one file");
    let with_it = matches!(&node.state().place, Place::File { data: None, .. });
    assert!(with_it, "the next one who opens it reads what was written");
}
