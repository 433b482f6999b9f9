//! Content that several layers have is kept once, on request.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bench::{Bench, here, id};

const KIB: usize = 1 << 10;

/// Bytes that neither repeat nor are those of another seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}

fn odd() -> &'static OsStr {
    OsStr::from_bytes(b"deep/er/\xff odd")
}

/// What both images have, in files of other names.
fn common() -> Vec<(PathBuf, Vec<u8>)> {
    vec![
        ("deep/er/file".into(), noise(1, 300 * KIB)),
        (odd().into(), noise(2, 5000)),
        ("block".into(), noise(3, 4 * KIB)),
        // More than the kernel compares at once.
        ("large".into(), noise(4, 17 << 20)),
    ]
}

fn fill(tree: &Path, prefix: &str, files: &[(PathBuf, Vec<u8>)]) {
    for (path, content) in files {
        let path = tree.join(prefix).join(path);
        fs::create_dir_all(path.parent().expect("a parent")).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// The bytes of a committed layer's file that no other file shares.
fn exclusive(bench: &Bench, layer: &str, path: impl AsRef<Path>) -> u64 {
    let path = bench.home().join("layers").join(layer).join("ro").join(path);
    let mut du = Command::new("btrfs");
    let done = du.args(["filesystem", "du", "--raw"]).arg(path).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8_lossy(&done.stdout);
    let line = said.lines().last().expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect(line)
}

#[test]
fn a_file_with_more_names_than_a_small_search_tells_is_found() {
    if !here() {
        return;
    }
    let bench = Bench::new("many-links", &["btrfs.dedupe=on"]);
    let content = noise(5, 64 * KIB);
    layer(&bench, "one", None, |tree| fs::write(tree.join("file"), &content).unwrap());
    layer(&bench, "two", None, |tree| {
        fs::write(tree.join("first"), &content).unwrap();
        // Together more than a leaf of 16 KiB holds.
        for number in 0..500 {
            let name = format!("a name of some length, with the number {number}");
            fs::hard_link(tree.join("first"), tree.join(name)).unwrap();
        }
    });
    assert_eq!(exclusive(&bench, "two", "first"), 0, "the content is kept once");
    assert!(bench.driver().check().unwrap().is_empty());
}

/// A layer without parent, or above one, that holds files.
fn layer(bench: &Bench, name: &str, parent: Option<&str>, work: impl FnOnce(&Path)) {
    bench.create(name, parent);
    work(&bench.mount(name));
    bench.unmount(name);
    bench.commit(name);
}

fn shared_by(bench: &Bench, name: &str) -> Option<u64> {
    let keys = bench.driver().metadata(&id(name)).unwrap();
    keys.get("DedupedBytes").map(|bytes| bytes.parse().unwrap())
}

#[test]
fn equal_files_of_different_layers_are_kept_once_on_request() {
    if !here() {
        return;
    }
    let total: u64 = common().iter().map(|(_, content)| content.len() as u64).sum();
    for dedupe in ["on", "off"] {
        let mut bench = Bench::new("dedupe", &[&format!("btrfs.dedupe={dedupe}")]);
        layer(&bench, "one", None, |tree| fill(tree, "", &common()));
        layer(&bench, "base", None, |tree| fs::write(tree.join("base"), noise(9, 9000)).unwrap());
        // What was noted is there after a restart.
        bench.reopen_after(|_| ());
        layer(&bench, "two", Some("base"), |tree| {
            fill(tree, "other", &common());
            fs::hard_link(tree.join("other/block"), tree.join("linked")).unwrap();
            fs::write(tree.join("small"), &common()[2].1[..4000]).unwrap();
            fs::write(tree.join("unlike"), noise(77, 20_000)).unwrap();
            fs::write(tree.join("twice"), noise(78, 20_000)).unwrap();
            fs::write(tree.join("again"), noise(78, 20_000)).unwrap();
            // Of what is below, only metadata changes: nothing was written that could be shared.
            fs::File::open(tree.join("base")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        });
        bench.settle();
        for (path, content) in common() {
            for (name, path) in [("one", path.clone()), ("two", Path::new("other").join(&path))] {
                let found = fs::read(bench.home().join(format!("layers/{name}/ro")).join(&path));
                assert!(found.unwrap() == content, "{dedupe}: content of {name}: {path:?}");
                let exclusive = exclusive(&bench, name, &path);
                let expected =
                    if dedupe == "on" { 0 } else { content.len().next_multiple_of(4096) };
                assert_eq!(exclusive, expected as u64, "{dedupe}: {name}: {path:?}");
            }
        }
        assert_eq!(exclusive(&bench, "two", "unlike"), 20_480, "{dedupe}: what nobody else has");
        let twice = if dedupe == "on" { 0 } else { 20_480 };
        assert_eq!(exclusive(&bench, "two", "twice"), twice, "{dedupe}: twice in one layer");
        assert_eq!(bench.changes("two", None), bench.walked("two", "base"), "{dedupe}: the diff");

        let saved = total + 20_000;
        let status = bench.driver().status();
        let fact = &status.iter().find(|(name, _)| name == "Dedupe").expect("a fact").1;
        let usage = bench.driver().usage(&id("two")).unwrap();
        if dedupe == "on" {
            assert_eq!(shared_by(&bench, "two"), Some(saved));
            assert_eq!(shared_by(&bench, "one"), Some(0), "the first has them first");
            assert_eq!(*fact, format!("{saved} bytes in 5 files shared, 0 failed"));
            assert!((40_960..120_000).contains(&usage.bytes), "what it takes by itself: {usage:?}");
        } else {
            assert_eq!((shared_by(&bench, "two"), fact.as_str()), (None, "off"));
            assert!(usage.bytes > saved, "{usage:?}");
        }
        assert!(usage.content > saved, "{dedupe}: {usage:?}");
        for layer in ["one", "two", "base"] {
            bench.driver().remove(&id(layer)).unwrap();
        }
        assert!(bench.driver().check().unwrap().is_empty(), "{dedupe}");
    }
}

#[test]
fn a_file_that_is_written_to_meanwhile_keeps_what_was_written() {
    const FILES: u64 = 300;
    if !here() {
        return;
    }
    let bench = Bench::new("dedupe-race", &["btrfs.dedupe=on"]);
    let files: Vec<_> =
        (0..FILES).map(|n| (PathBuf::from(n.to_string()), noise(n, 64 * KIB))).collect();
    layer(&bench, "one", None, |tree| fill(tree, "", &files));
    bench.create("two", None);
    let tree = bench.home().join("layers/two/rw");
    fill(&tree, "", &files);
    let open = |(path, _): &(PathBuf, _)| {
        File::options().read(true).write(true).open(tree.join(path)).unwrap()
    };
    let held: Vec<File> = files.iter().map(open).collect();
    // A writer changes one file after the other, as long as the commit lasts, and never back.
    let done = AtomicBool::new(false);
    let (begins, begun) = std::sync::mpsc::channel();
    let written = std::thread::scope(|scope| {
        let (held, done) = (&held, &done);
        let writer = scope.spawn(move || {
            let mut written = 0;
            while !done.load(Ordering::Relaxed) && written < held.len() {
                held[written].write_all_at(b"written", 5000).unwrap();
                if written == 0 {
                    begins.send(()).unwrap();
                }
                written += 1;
                std::thread::yield_now();
            }
            written
        });
        begun.recv().expect("the writer writes");
        bench.commit("two");
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    for (n, (file, (path, content))) in held.iter().zip(&files).enumerate() {
        let mut found = vec![0; content.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        let mut changed = content.clone();
        changed[5000..5007].copy_from_slice(b"written");
        let expected = if n < written { &changed } else { content };
        assert!(found == *expected, "file {n} of {written} lost what was written");
        let layer = |layer: &str| {
            fs::read(bench.home().join("layers").join(layer).join("ro").join(path)).unwrap()
        };
        assert!(layer("one") == *content, "the committed file {n} was written to");
        let committed = layer("two");
        assert!(committed == *content || committed == changed, "file {n} is neither old nor new");
    }
    let shared = shared_by(&bench, "two").expect("the note of it");
    assert!(shared <= FILES * 64 * KIB as u64, "{shared} bytes shared");
}

#[test]
fn notes_that_lie_do_no_harm() {
    if !here() {
        return;
    }
    let mut bench = Bench::new("dedupe-notes", &["btrfs.dedupe=on"]);
    let (old, new) = (noise(1, 8192), noise(2, 8192));
    layer(&bench, "one", None, |tree| fs::write(tree.join("file"), &old).unwrap());
    let note = bench.home().join("layers/one/sums");
    let noted = fs::read(&note).unwrap();
    layer(&bench, "like", None, |tree| fs::write(tree.join("file"), &new).unwrap());
    let lies = fs::read(bench.home().join("layers/like/sums")).unwrap();
    bench.driver().remove(&id("like")).unwrap();
    let no_inode = {
        let mut bytes = noted.clone();
        bytes[64..72].copy_from_slice(&999_999_u64.to_le_bytes());
        bytes
    };
    let cases: [(&str, &[u8], &[u8], u64); 5] = [
        ("true", &noted, &old, 8192),
        ("another file's", &lies, &new, 0),
        ("of no inode", &no_inode, &old, 0),
        ("cut off", &noted[..50], &old, 0),
        ("empty", &[], &old, 0),
    ];
    for (what, bytes, content, shared) in cases {
        fs::write(&note, bytes).unwrap();
        layer(&bench, "two", None, |tree| fs::write(tree.join("copy"), content).unwrap());
        assert_eq!(shared_by(&bench, "two"), Some(shared), "a note that is {what}");
        let found = fs::read(bench.home().join("layers/two/ro/copy")).unwrap();
        assert!(found == content, "content after a note that is {what}");
        bench.driver().remove(&id("two")).unwrap();
    }
    assert_eq!(bench.subvolumes(), 1, "only the first layer is left");
}
