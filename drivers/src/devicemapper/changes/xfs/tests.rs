//! Real file systems, made and changed by xfsprogs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use cow::error::ErrorKind;

use super::*;
use crate::devicemapper::changes::inodes;
use crate::devicemapper::changes::places::Places;

/// mkfs.xfs makes nothing below 300 MiB.
const LENGTH: u64 = 320 << 20;
/// As many in one group as need more than one leaf of blocks of 1 KiB.
const MANY: usize = 4000;

fn run(program: &str, words: &[&str], image: &Path) -> String {
    let output = Command::new(program).args(words).arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    text
}

fn xfs_db(image: &Path, commands: &[&str]) -> String {
    let words: Vec<_> = commands.iter().flat_map(|command| ["-c", command]).collect();
    run("xfs_db", &[&["-x"][..], &words].concat(), image)
}

/// A file system with a few directories, and so many files besides.
fn image(dir: &Path, many: usize, words: &[&str]) -> PathBuf {
    let content = dir.join("content");
    std::fs::write(&content, "content").unwrap();
    let mut tree = String::from("/dev/null\n0 0\nd--755 0 0\nlink l--777 0 0 elsewhere\n");
    for number in 0..7 {
        let _ = writeln!(tree, "dir{number} d--755 0 0");
        for file in 0..20 {
            let _ = writeln!(tree, "file{file} ---644 0 0 {}", content.display());
        }
        tree.push_str("$\n");
    }
    for file in 0..many {
        let _ = writeln!(tree, "file{file} ---644 0 0 {}", content.display());
    }
    tree.push_str("$\n");
    let proto = dir.join("proto");
    std::fs::write(&proto, tree).unwrap();
    let path = dir.join("image");
    File::create(&path).unwrap().set_len(LENGTH).unwrap();
    let proto = proto.to_str().unwrap();
    run("mkfs.xfs", &[&["-q", "-f", "-p", proto][..], words].concat(), &path);
    path
}

/// The numbers of all inodes that have a name, by it.
fn names(image: &Path) -> BTreeMap<String, u64> {
    let listed = xfs_db(image, &["blockget -n", "ncheck"]);
    let pair = |line: &str| {
        let (number, name) = line.trim().split_once(char::is_whitespace)?;
        Some((name.trim().to_owned(), number.parse().ok()?))
    };
    listed.lines().filter_map(pair).collect()
}

/// Where an inode is, in bytes.
fn place(image: &Path, ino: u64) -> u64 {
    let said = xfs_db(image, &[&format!("convert inode {ino} byte")]);
    let hex = said.trim().strip_prefix("0x").and_then(|rest| rest.split(' ').next());
    hex.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_else(|| panic!("{said}"))
}

fn places(fs: &Xfs) -> Places {
    Places::new(fs.places().unwrap(), fs.inode_size())
}

#[test]
fn inodes_are_where_the_file_system_has_them() {
    for (many, words) in [
        (200, &[][..]),
        (MANY, &["-b", "size=1024", "-d", "agcount=2"]),
        (200, &["-b", "size=2048", "-i", "size=1024"]),
        (200, &["-i", "size=2048,sparse=0", "-d", "agcount=3"]),
        (200, &["-m", "finobt=0,reflink=0,inobtcount=0,bigtime=0"]),
        (200, &["-m", "rmapbt=1", "-i", "nrext64=1", "-s", "size=4096"]),
        (200, &["-b", "size=65536", "-d", "agcount=2"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), many, words);
        let lower = Xfs::open(path.clone()).unwrap();
        let inodes: BTreeMap<u64, u64> = lower
            .places()
            .unwrap()
            .iter()
            .flat_map(|place| {
                let size = lower.inode_size();
                (0..place.count).map(move |index| (place.first + index, place.at + index * size))
            })
            .collect();
        let names = names(&path);
        assert!(names.len() >= many + 140, "{words:?}: {} names", names.len());
        for (name, ino) in &names {
            assert!(inodes.contains_key(ino), "{words:?}: {name} is {ino}");
        }
        let few = names.values().step_by(names.len() / 20).chain([&lower.superblock.root]);
        for ino in few.chain(inodes.last_key_value().map(|(ino, _)| ino)) {
            assert_eq!(inodes[ino], place(&path, *ino), "{words:?}: {ino}");
        }

        // A changed copy, which is compared over the whole device or over one block of a pool.
        let changed = dir.path().join("changed");
        std::fs::copy(&path, &changed).unwrap();
        let ino = |name: &str| names[name];
        for (name, field) in [
            ("dir3/file3", "core.ctime.nsec"),
            ("dir5/.", "core.mtime.sec"),
            ("dir6/file6", "core.atime.sec"),
        ] {
            let inode = format!("inode {}", ino(name));
            xfs_db(&changed, &[&inode, &format!("write {field} 5")]);
        }
        let upper = Xfs::open(changed).unwrap();
        upper.compare(&lower).unwrap();
        let expected = BTreeSet::from([ino("dir3/file3"), ino("dir5/.")]);
        let mut touched = places(&upper);
        touched.touch(0..LENGTH);
        let found = inodes::compare(&lower, &upper, touched).unwrap();
        assert_eq!(found.inodes.keys().copied().collect::<BTreeSet<_>>(), expected, "{words:?}");
        assert_eq!(found.looked_at, inodes.len() as u64, "{words:?}: each once");
        let mut touched = places(&upper);
        (0..LENGTH >> 16).for_each(|part| touched.touch(part << 16..(part + 1) << 16));
        let found = inodes::compare(&lower, &upper, touched).unwrap();
        assert_eq!(found.inodes.keys().copied().collect::<BTreeSet<_>>(), expected, "{words:?}");
        assert_eq!(found.looked_at, inodes.len() as u64, "{words:?}: in parts");
    }
}

#[test]
fn what_is_not_wholly_understood_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 70, &[]);
    let mut sound = vec![0; SUPERBLOCK_LEN];
    File::open(&path).unwrap().read_exact_at(&mut sound, 0).unwrap();
    Superblock::parse(&sound).unwrap();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = sound.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let geometry = "makes no sense";
    for (what, bytes, reason) in [
        ("no magic", with(0, b"XFSA"), "no xfs"),
        ("version 4", with(100, &[0xb4, 0xa4]), "version 4"),
        ("needs repair", with(219, &[0x1b]), "features 0x10"),
        ("a directory of metadata", with(218, &[1]), "features 0x100"),
        ("written by others only in part", with(215, &[0x1d]), "0x10"),
        ("attributes in the log", with(223, &[1]), "0x1"),
        ("not made to its end", with(126, &[1]), "being made: 1"),
        ("a real-time device", with(23, &[1]), "real-time blocks: 1"),
        ("huge blocks", with(4, &[0, 2, 0, 0]), geometry),
        ("inodes of 3 bytes", with(104, &[0, 3]), geometry),
        ("another number of inodes in a block", with(123, &[4]), geometry),
        ("no groups", with(88, &[0; 4]), geometry),
        ("groups without blocks", with(84, &[0; 4]), geometry),
        ("longer groups than numbers", with(124, &[31]), geometry),
        ("more blocks than groups", with(8, &[1, 0]), geometry),
        ("fewer blocks than groups", with(8, &[0; 8]), geometry),
    ] {
        let error = Superblock::parse(&bytes).unwrap_err();
        assert!(error.contains(reason), "{what}: {error}");
    }
    for length in 0..sound.len() {
        let _ = Superblock::parse(&sound[..length]);
    }

    let other = dir.path().join("other");
    std::fs::copy(&path, &other).unwrap();
    run("xfs_admin", &["-U", "generate"], &other);
    let (one, two) = (Xfs::open(path).unwrap(), Xfs::open(other).unwrap());
    let error = one.compare(&two).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // Its metadata has the old identity.
    assert_eq!(two.places().unwrap(), one.places().unwrap());
}

/// Trees that are not as they should be are refused, and end.
#[test]
fn damage_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), MANY, &["-b", "size=1024", "-d", "agcount=2"]);
    let sound = Xfs::open(path.clone()).unwrap();
    let all = sound.places().unwrap();
    let header = 2 * sound.superblock.sector_size;
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let number = |at: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).unwrap();
        u32::from_be_bytes(bytes)
    };
    assert_eq!(number(header + 24), 2, "levels");
    let root = u64::from(number(header + 20)) * sound.superblock.block_size;
    // Of 1 KiB less 56 bytes a half are the numbers of blocks.
    let (key, pointer) = (root + 56, root + 56 + 121 * 4);
    let leaf = u64::from(number(pointer)) * sound.superblock.block_size;
    let own = number(header + 20);
    for (what, at, value) in [
        ("another magic", header, 0),
        ("another group's", header + 8, 1),
        ("another length", header + 12, 77),
        ("one inode more", header + 16, number(header + 16) + 1),
        ("a root outside", header + 20, u32::MAX),
        ("a root that is none", header + 20, 0),
        ("no levels", header + 24, 0),
        ("levels without end", header + 24, u32::MAX),
        ("one level more", header + 24, 3),
        ("another identity", header + 296, 0),
        ("another block's magic", root, 0),
        ("more entries than there is room for", root + 4, 0x0001_ffff),
        ("another place", root + 20, 1),
        ("another tree", root + 48, 3),
        ("a tree in itself", pointer, own),
        ("a leaf twice", pointer + 4, number(pointer)),
        ("a leaf outside", pointer, u32::MAX),
        ("a leaf of another level", leaf + 4, 0x0001_0001),
        ("a chunk outside", leaf + 56, u32::MAX - 63),
        ("a chunk in the middle of a block", leaf + 56, number(leaf + 56) + 1),
        ("a chunk twice", leaf + 56 + 16, number(leaf + 56)),
        ("holes that were not counted", leaf + 56 + 4, 0x0001_4000),
    ] {
        let before = number(at);
        file.write_all_at(&value.to_be_bytes(), at).unwrap();
        let error = Xfs::open(path.clone()).unwrap().places().expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error}");
        assert!(error.to_string().contains("group 0"), "{what}: {error}");
        file.write_all_at(&before.to_be_bytes(), at).unwrap();
    }
    // What a key says is not asked.
    assert_eq!(number(key), number(leaf + 56));
    assert_eq!(Xfs::open(path).unwrap().places().unwrap(), all);
}

#[test]
fn holes_in_a_chunk_have_no_inodes() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), 200, &["-d", "agcount=2"]);
    let sound = Xfs::open(path.clone()).unwrap();
    let places = sound.places().unwrap();
    let all = places[0];
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let header = 2 * sound.superblock.sector_size;
    let mut root = [0; 4];
    file.read_exact_at(&mut root, header + 20).unwrap();
    let root = u64::from(u32::from_be_bytes(root)) * sound.superblock.block_size;
    // The first chunk without its inodes 4 to 7 and 60 to 63.
    file.write_all_at(&[0x80, 0x02, 56], root + 56 + 4).unwrap();
    let mut count = [0; 4];
    file.read_exact_at(&mut count, header + 16).unwrap();
    let count = u32::from_be_bytes(count) - 8;
    file.write_all_at(&count.to_be_bytes(), header + 16).unwrap();
    let part = |from: u64, count: u64| Place {
        at: all.at + from * sound.inode_size(),
        first: all.first + from,
        count,
    };
    let found = Xfs::open(path).unwrap().places().unwrap();
    assert_eq!(all.count, 64, "the first chunk is alone");
    assert_eq!(found[..2], [part(0, 4), part(8, 52)]);
    assert_eq!(found[2..], places[1..]);
}
