//! Real file systems, made and changed by e2fsprogs.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use cow::error::ErrorKind;

use super::*;
use crate::devicemapper::changes::inodes;
use crate::devicemapper::changes::places::Places;

/// What mkfs.ext4 makes of 64 MiB.
fn plain() -> Superblock {
    Superblock {
        inodes: 16_384,
        blocks: 16_384,
        block_size: 4096,
        first_data_block: 0,
        blocks_per_group: 8192,
        inodes_per_group: 8192,
        inode_size: 256,
        descriptor_size: 64,
        incompatible: 0x2 | 0x40 | WIDE | 0x200,
        has_sums: false,
        uuid: [0; 16],
        made: 0,
        checked: 0,
        first_free: 11,
        orphan_file: 0,
    }
}

fn run(program: &str, words: &[&str], image: &Path) -> String {
    let output = Command::new(program).args(words).arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    text
}

/// A file system of 64 MiB with a few hundred files.
fn image(dir: &Path, words: &[&str]) -> PathBuf {
    let tree = dir.join("tree");
    for number in 0..300 {
        let holder = tree.join(format!("dir{}", number % 7));
        std::fs::create_dir_all(&holder).unwrap();
        std::fs::write(holder.join(format!("file{number}")), number.to_string()).unwrap();
    }
    let path = dir.join("image");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let tree = tree.to_str().unwrap();
    run("mkfs.ext4", &[&["-q", "-F", "-d", tree][..], words].concat(), &path);
    path
}

#[test]
fn tables_are_where_the_file_system_has_them() {
    for words in [
        &[][..],
        &["-b", "1024"],
        &["-b", "2048", "-I", "512"],
        &["-I", "128", "-O", "^metadata_csum,^64bit"],
        &["-O", "^flex_bg,^metadata_csum,uninit_bg"],
        &["-O", "metadata_csum_seed,^has_journal", "-g", "1024"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), words);
        let lower = Ext4::open(path.clone()).unwrap();
        // `imap` says of an inode in which block, and where in it, it is.
        for ino in [2, 11, 12, lower.superblock.inodes] {
            let places = run("debugfs", &["-R", &format!("imap <{ino}>")], &path);
            let number = |before: &str| {
                let (_, rest) = places.split_once(before).unwrap_or_else(|| panic!("{places}"));
                let digits = rest.split([',', '\n']).next().unwrap().trim();
                let hex = digits.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16));
                hex.unwrap_or_else(|| digits.parse()).unwrap()
            };
            let expected =
                number("located at block ") * lower.superblock.block_size + number("offset ");
            let index = u64::from(ino - 1);
            let per_group = u64::from(lower.superblock.inodes_per_group);
            let table = lower.tables[usize::try_from(index / per_group).unwrap()];
            let at = table + index % per_group * lower.superblock.inode_size;
            assert_eq!(at, expected, "{words:?}: inode {ino}: {places}");
        }

        // A changed copy, which is compared over the whole device or over one block of a pool.
        let changed = dir.path().join("changed");
        std::fs::copy(&path, &changed).unwrap();
        let set = |field: &str| {
            run("debugfs", &["-w", "-R", &format!("set_inode_field {field}")], &changed);
        };
        set("/dir3/file3 ctime 20200101");
        set("/dir5 mtime 20200101");
        set("/dir6/file6 atime 20200101");
        let upper = Ext4::open(changed.clone()).unwrap();
        upper.compare(&lower).unwrap();
        let ino = |path: &str| {
            let text = run("debugfs", &["-R", &format!("stat {path}")], &changed);
            let (_, rest) = text.split_once("Inode: ").unwrap();
            rest.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let expected = BTreeSet::from([ino("/dir3/file3"), ino("/dir5")]);
        let mut places = Places::new(upper.places().unwrap(), upper.inode_size());
        places.touch(0..64 << 20);
        let found = inodes::compare(&lower, &upper, places).unwrap();
        assert_eq!(found.inodes.keys().copied().collect::<BTreeSet<_>>(), expected, "{words:?}");
        assert_eq!(found.looked_at, u64::from(lower.superblock.inodes), "{words:?}: each once");
        let mut places = Places::new(upper.places().unwrap(), upper.inode_size());
        (0..1024).for_each(|part| places.touch(part << 16..(part + 1) << 16));
        let found = inodes::compare(&lower, &upper, places).unwrap();
        assert_eq!(found.inodes.keys().copied().collect::<BTreeSet<_>>(), expected, "{words:?}");
        assert_eq!(found.looked_at, u64::from(lower.superblock.inodes), "{words:?}: in parts");
    }
}

#[test]
fn what_is_not_wholly_understood_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), &[]);
    let mut sound = vec![0; SUPERBLOCK_LEN];
    File::open(&path).unwrap().read_exact_at(&mut sound, SUPERBLOCK).unwrap();
    Superblock::parse(&sound).unwrap();
    let with = |at: usize, value: u32| {
        let mut bytes = sound.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let incompat = u32_at(&sound, 0x60).unwrap();
    let geometry = "makes no sense";
    for (what, bytes, reason) in [
        ("no magic", with(0x38, 0), "no ext4"),
        ("not clean", with(0x3a, 0), "state"),
        ("errors", with(0x194, 1), "1 errors"),
        ("the journal is not empty", with(0x60, incompat | 0x4), "features 0x4"),
        ("meta_bg", with(0x60, incompat | 0x10), "features 0x10"),
        ("inline_data", with(0x60, incompat | 0x8000), "features 0x8000"),
        ("bigalloc", with(0x64, 0x200), "0x200"),
        ("no groups", with(0x20, 0), geometry),
        ("no inodes in a group", with(0x28, 0), geometry),
        ("another number of inodes", with(0x0, 12), geometry),
        ("huge blocks", with(0x18, 60), geometry),
        ("more blocks than can be", with(0x150, u32::MAX), geometry),
        ("inodes of 3 bytes", with(0x58, 3), geometry),
        ("descriptors of no length", with(0xfe, 0), geometry),
    ] {
        let error = Superblock::parse(&bytes).unwrap_err();
        assert!(error.contains(reason), "{what}: {error}");
    }
    for length in 0..sound.len() {
        let _ = Superblock::parse(&sound[..length]);
    }
    // Any bytes are refused, or of a file system that ends somewhere.
    let mut state = 1_u64;
    for _ in 0..2000 {
        let mut bytes = sound.clone();
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (at, value) = ((state >> 40) as usize % SUPERBLOCK_LEN, state.to_le_bytes()[4]);
            bytes[at] = value;
        }
        if let Ok(superblock) = Superblock::parse(&bytes) {
            let _ = tables(&superblock, &vec![0xff; 4096]);
        }
    }

    let superblock = plain();
    let descriptor = |low: u32, high: u32| {
        let mut bytes = vec![0; 64];
        bytes[0x8..0xc].copy_from_slice(&low.to_le_bytes());
        bytes[0x28..0x2c].copy_from_slice(&high.to_le_bytes());
        bytes
    };
    assert_eq!(tables(&superblock, &descriptor(9, 0)).unwrap(), [9 * 4096]);
    for (low, high) in [(0, 0), (16_384, 0), (15_873, 0), (9, 1), (u32::MAX, u32::MAX)] {
        tables(&superblock, &descriptor(low, high)).unwrap_err();
    }
    let other = dir.path().join("other");
    std::fs::copy(&path, &other).unwrap();
    run("tune2fs", &["-U", "random"], &other);
    let (one, two) = (Ext4::open(path).unwrap(), Ext4::open(other).unwrap());
    let error = one.compare(&two).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
