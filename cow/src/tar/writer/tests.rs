#![allow(clippy::cast_possible_truncation, reason = "the numbers are small and the test's own")]

use super::*;
use crate::meta::{Device, Time};
use crate::tar::Reader;

fn file(path: &str, size: u64) -> Entry {
    Entry { path: path.into(), size, mode: 0o644, ..Entry::default() }
}

/// Entries that need every record there is, and every kind.
fn samples() -> Vec<Entry> {
    let long = "long/".repeat(60) + "name";
    let plain =
        |path: &str, kind| Entry { path: path.into(), kind, mode: 0o755, ..Entry::default() };
    let linked = |path: &str, kind, link: &str| Entry { link: link.into(), ..plain(path, kind) };
    vec![
        plain("dir/", EntryKind::Dir),
        file("dir/file", 700),
        Entry { uid: 3_000_000_000, gid: 2_097_152, ..file("ids", 0) },
        Entry { uid: 0o7_777_777, gid: 1, mode: 0o6755, ..file("plain-ids", 0) },
        Entry { mtime: Time { secs: 1_700_000_000, nanos: 1 }, ..file("nanos", 0) },
        Entry { mtime: Time { secs: -2, nanos: 500_000_000 }, ..file("before-1970", 0) },
        Entry { mtime: Time { secs: 1 << 40, nanos: 0 }, ..file("far", 0) },
        Entry {
            xattrs: vec![
                (b"security.capability".to_vec(), b"\x01\0\0\x02\n=\n\0".to_vec()),
                (b"user.empty".to_vec(), vec![]),
            ],
            ..file("xattrs", 3)
        },
        file(&long, 1),
        file(&format!("{}/{}", "p".repeat(150), "n".repeat(99)), 1),
        file(&"n".repeat(101), 1),
        linked("hard", EntryKind::HardLink, "dir/file"),
        linked("soft", EntryKind::Symlink, "/dir/file"),
        linked("far-soft", EntryKind::Symlink, &"t/".repeat(100)),
        plain("char", EntryKind::Char(Device { major: 1, minor: 3 })),
        plain("block", EntryKind::Block(Device { major: 4095, minor: 1_048_575 })),
        plain("fifo", EntryKind::Fifo),
        Entry { path: b"raw-\xff\xc3".to_vec(), ..file("", 0) },
    ]
}

fn content(entry: &Entry) -> Vec<u8> {
    (0..entry.size).map(|index| (index % 250) as u8).collect()
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
        let content = content(entry);
        assert_eq!(writer.copy(&mut content.as_slice()).unwrap(), entry.size, "all is copied");
    }
    let (bytes, length) = writer.finish().unwrap();
    assert_eq!(length, bytes.len() as u64, "length of the archive");
    bytes
}

#[test]
fn what_is_written_reads_back() {
    let samples = samples();
    let archive = write(&samples);
    let mut reader = Reader::new(&archive[..]);
    let mut found = Entry::default();
    for sample in &samples {
        assert!(reader.next_entry(&mut found).unwrap(), "an entry for {sample:?}");
        assert_eq!(found, *sample);
        let mut bytes = Vec::new();
        reader.stored().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, content(sample), "content of {sample:?}");
    }
    assert!(!reader.next_entry(&mut found).unwrap(), "no more entries");
    assert_eq!(reader.drain().unwrap(), archive.len() as u64, "length");
}

#[test]
fn records_are_written_only_where_needed() {
    let pax = |entry: Entry| write(&[entry])[header::TYPE] == b'x';
    let cases = [
        (file("plain", 5), false),
        (file(&format!("{}/{}", "p".repeat(155), "n".repeat(100)), 1), false),
        (file(&format!("{}/{}", "p".repeat(156), "n".repeat(100)), 1), true),
        (file(&format!("{}/{}", "p".repeat(10), "n".repeat(101)), 1), true),
        (Entry { kind: EntryKind::Dir, ..file(&"d".repeat(99), 0) }, false),
        (Entry { kind: EntryKind::Dir, ..file(&"d".repeat(100), 0) }, true),
        (Entry { uid: 0o7_777_777, ..file("a", 0) }, false),
        (Entry { uid: 0o10_000_000, ..file("a", 0) }, true),
        (Entry { mtime: Time { secs: 0o77_777_777_777, nanos: 0 }, ..file("a", 0) }, false),
        (Entry { mtime: Time { secs: 0o100_000_000_000, nanos: 0 }, ..file("a", 0) }, true),
        (Entry { mtime: Time { secs: 0, nanos: 1 }, ..file("a", 0) }, true),
    ];
    for (entry, needed) in cases {
        let shown = format!("{entry:?}");
        assert_eq!(pax(entry), needed, "{shown}");
    }
}

#[test]
fn order_of_xattrs_does_not_show() {
    let xattr = |name: &str| (name.as_bytes().to_vec(), b"v".to_vec());
    let one = Entry { xattrs: vec![xattr("user.a"), xattr("user.b")], ..file("a", 0) };
    let other = Entry { xattrs: vec![xattr("user.b"), xattr("user.a")], ..file("a", 0) };
    assert_eq!(write(&[one]), write(&[other]));
}

#[test]
fn content_is_held_to_the_announced_size() {
    let mut writer = Writer::new(Vec::new());
    writer.entry(&file("short", 1000)).unwrap();
    assert_eq!(writer.copy(&mut &b"short"[..]).unwrap(), 5, "a file that shrank");
    writer.entry(&file("long", 4)).unwrap();
    writer.data(b"longer than said").unwrap();
    writer.entry(&file("large", 600_000)).unwrap();
    let (archive, _) = writer.finish().unwrap();
    let mut reader = Reader::new(&archive[..]);
    let mut entry = Entry::default();
    let mut bytes = Vec::new();
    for (size, start) in [(1000, &b"short\0\0"[..]), (4, b"long"), (600_000, b"\0")] {
        assert!(reader.next_entry(&mut entry).unwrap(), "entry of {size}");
        bytes.clear();
        reader.stored().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), size, "padded or cut");
        assert!(bytes.starts_with(start), "{:?}", &bytes[..start.len()]);
    }
}

#[test]
fn an_empty_archive_is_its_end_marker() {
    assert_eq!(write(&[]), vec![0; 1024]);
}

#[test]
fn gnu_tar_and_python_read_what_is_written() {
    use std::process::Command;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    std::fs::write(&path, write(&samples())).unwrap();
    let names = samples().len();
    if crate::testing::can("needs tar", Command::new("tar").arg("--version").output().is_ok()) {
        let listed = Command::new("tar").arg("tf").arg(&path).output().unwrap();
        let lines = listed.stdout.iter().filter(|byte| **byte == b'\n').count();
        let stderr = String::from_utf8_lossy(&listed.stderr);
        assert!(listed.status.success() && lines == names, "tar: {lines} of {names}: {stderr}");
    }
    let script = "import sys, tarfile\n\
        t = tarfile.open(sys.argv[1])\n\
        m = {x.name: x for x in t}\n\
        assert m['ids'].uid == 3000000000, m['ids'].uid\n\
        assert m['before-1970'].mtime == -1.5, m['before-1970'].mtime\n\
        assert m['hard'].islnk() and m['hard'].linkname == 'dir/file'\n\
        assert m['block'].devminor == 1048575\n\
        assert t.extractfile('dir/file').read()[:3] == bytes([0, 1, 2])\n\
        print(len(m))\n";
    if crate::testing::can("needs python3", Command::new("python3").arg("-V").output().is_ok()) {
        let run = Command::new("python3").args(["-c", script]).arg(&path).output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        let count = String::from_utf8_lossy(&run.stdout).trim().parse();
        assert_eq!(count, Ok(names), "python: {stderr}");
    }
}

/// What GNU tar writes in each of its formats, sparse files in each of theirs, reads back whole.
#[test]
fn what_gnu_tar_writes_is_read() {
    use std::process::Command;
    if !crate::testing::can("needs tar", Command::new("tar").arg("--version").output().is_ok()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(120);
    let mut sparse = vec![0; 3 << 20];
    for at in 0..40 {
        sparse[at * 70_000 + 4096..][..4096].fill(at as u8 + 1);
    }
    let holes = std::fs::File::create(dir.path().join("sparse")).unwrap();
    holes.set_len(sparse.len() as u64).unwrap();
    for (index, piece) in
        sparse.chunks(4096).enumerate().filter(|(_, piece)| piece.iter().any(|b| *b != 0))
    {
        std::os::unix::fs::FileExt::write_all_at(&holes, piece, index as u64 * 4096).unwrap();
    }
    std::fs::write(dir.path().join(&long), b"long").unwrap();
    let formats: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=gnu", "-S"],
        &["--format=pax"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=pax", "-S", "--sparse-version=1.0"],
    ];
    for options in formats {
        let made = Command::new("tar")
            .arg("-c")
            .args(options)
            .args(["-C".as_ref(), dir.path().as_os_str(), "sparse".as_ref(), long.as_ref()])
            .output()
            .unwrap();
        let mut reader = Reader::new(&made.stdout[..]);
        let mut entry = Entry::default();
        assert!(reader.next_entry(&mut entry).unwrap(), "{options:?}: an entry");
        assert_eq!(entry.path, b"sparse", "{options:?}");
        assert_eq!(entry.sparse.is_some(), options.contains(&"-S"), "{options:?}");
        let mut bytes = vec![0; entry.size as usize];
        reader
            .content(&entry, |offset, piece| {
                bytes[offset as usize..][..piece.len()].copy_from_slice(piece);
                Ok(())
            })
            .unwrap();
        assert!(bytes == sparse, "{options:?}: content of the sparse file");
        assert!(reader.next_entry(&mut entry).unwrap(), "{options:?}: a second entry");
        assert_eq!(entry.path, long.as_bytes(), "{options:?}");
        assert!(!reader.next_entry(&mut entry).unwrap(), "{options:?}: the end");
    }
}
