//! Kinds of changes, each with what it must be told as.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::FallocateFlags;
use tests::ops::{self, Op, Op::*};

/// A name, what is done, and the lines that tell it.
pub(crate) type Case = (&'static str, fn(&Path), &'static [&'static str]);

/// The tree that all cases begin with.
pub(crate) fn base(root: &Path) {
    let large = "0123456789abcdef".repeat(4096);
    ops::apply(
        root,
        &[
            Dir("d", 0o755),
            Dir("d/sub", 0o755),
            Dir("empty", 0o755),
            File("d/a", "a"),
            File("d/sub/b", "b"),
            File("large", &large),
            File("one", "linked"),
            Link("d/two", "one"),
            Symlink("link", "d/a"),
            Fifo("pipe"),
            Char("device", 1, 3),
            File("attribute", "x"),
            Xattr("attribute", "user.old", b"1"),
            File("dated", "x"),
            Mtime("dated", 1_000_000_000, 5),
        ],
    );
    fs::create_dir(root.join("many")).unwrap();
    // More names than fit in one block.
    (0..100).for_each(|number| fs::write(root.join(format!("many/{number:x>200}")), "").unwrap());
    does(root, &[File("many/b", "b"), File("many/c", "c"), File("many/d", "d")]);
}

fn does(root: &Path, steps: &[Op<'_>]) {
    ops::apply(root, steps);
}

/// Writes into a file without a trace in its time and size.
fn write_unseen(path: &Path, at: u64, text: &str) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap();
    file.write_all_at(text.as_bytes(), at).unwrap();
    let times = fs::FileTimes::new();
    let times = times.set_modified(before.modified().unwrap());
    file.set_times(times.set_accessed(before.accessed().unwrap())).unwrap();
}

fn allocate(path: &Path, flags: FallocateFlags, at: u64, length: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    rustix::fs::fallocate(&file, flags, at, length).unwrap();
    file.set_modified(before).unwrap();
}

pub(crate) const CASES: &[Case] = &[
    ("nothing", |_| (), &[]),
    ("read only", |root| drop(fs::read(root.join("large")).unwrap()), &[]),
    ("written and removed again", |root| does(root, &[File("new", "x"), Remove("new")]), &[]),
    (
        "new content, same size and time",
        |root| does(root, &[Write("dated", 0, "y"), Mtime("dated", 1_000_000_000, 5)]),
        &["Modified /dated"],
    ),
    (
        "one byte in the middle, times restored",
        |root| write_unseen(&root.join("large"), 30_000, "!"),
        &["Modified /large"],
    ),
    ("written over with the same", |root| write_unseen(&root.join("large"), 0, "0123"), &[]),
    (
        "changed and changed back",
        |root| {
            write_unseen(&root.join("d/sub/b"), 0, "c");
            write_unseen(&root.join("d/sub/b"), 0, "b");
        },
        &[],
    ),
    ("only the time", |root| does(root, &[Mtime("d/a", 7, 7)]), &["Modified /d/a"]),
    ("only the mode", |root| does(root, &[Chmod("d/a", 0o600)]), &["Modified /d/a"]),
    ("only the owner, of a link", |root| does(root, &[Chown("link", 5, 6)]), &["Modified /link"]),
    (
        "only attributes",
        |root| {
            does(root, &[Xattr("attribute", "user.old", b"2"), Xattr("d/sub/b", "user.new", b"1")]);
        },
        &["Modified /attribute", "Modified /d/sub/b"],
    ),
    (
        "an attribute too large for the inode",
        |root| does(root, &[Xattr("attribute", "user.old", &[b'x'; 2000])]),
        &["Modified /attribute"],
    ),
    (
        "an attribute less",
        |root| does(root, &[NoXattr("attribute", "user.old")]),
        &["Modified /attribute"],
    ),
    (
        "an access list",
        |root| {
            // Version 2: owner rw, user 5 r, group r, mask r, others r.
            let mut list = 2_u32.to_le_bytes().to_vec();
            let none = u32::MAX;
            for (tag, permission, who) in
                [(1_u16, 6_u16, none), (2, 4, 5), (4, 4, none), (16, 4, none), (32, 4, none)]
            {
                list.extend(tag.to_le_bytes());
                list.extend(permission.to_le_bytes());
                list.extend(who.to_le_bytes());
            }
            does(root, &[Xattr("d/a", "system.posix_acl_access", &list)]);
        },
        &["Modified /d/a"],
    ),
    (
        "a file goes",
        |root| does(root, &[Remove("d/sub/b")]),
        &["Modified /d/sub", "Deleted /d/sub/b"],
    ),
    ("a directory goes", |root| does(root, &[Remove("d")]), &["Deleted /d"]),
    (
        "a directory becomes a file",
        |root| does(root, &[Remove("d/sub"), File("d/sub", "x")]),
        &["Modified /d", "Modified /d/sub"],
    ),
    (
        "a file becomes a directory",
        |root| does(root, &[Remove("large"), Dir("large", 0o755), File("large/in", "x")]),
        &["Modified /large", "Added /large/in"],
    ),
    (
        "a file is renamed",
        |root| does(root, &[Rename("large", "d/sub/larger")]),
        &["Modified /d/sub", "Added /d/sub/larger", "Deleted /large"],
    ),
    (
        "a directory is renamed, and something in it changed",
        |root| does(root, &[Rename("d", "e"), Append("e/sub/b", "b")]),
        &["Deleted /d", "Added /e", "Added /e/a", "Added /e/sub", "Added /e/sub/b", "Added /e/two"],
    ),
    (
        "two files change places",
        |root| {
            does(root, &[Rename("d/a", "x"), Rename("d/sub/b", "d/a"), Rename("x", "d/sub/b")]);
        },
        &["Modified /d", "Modified /d/a", "Modified /d/sub", "Modified /d/sub/b"],
    ),
    (
        "one more name",
        |root| does(root, &[Link("empty/three", "one")]),
        &["Modified /empty", "Added /empty/three"],
    ),
    ("one name less", |root| does(root, &[Remove("one")]), &["Deleted /one"]),
    (
        "what has two names is changed",
        |root| write_unseen(&root.join("d/two"), 0, "L"),
        &["Modified /d/two", "Modified /one"],
    ),
    (
        "a number is used again",
        |root| {
            let path = root.join("d/a");
            let before = fs::metadata(&path).unwrap();
            fs::remove_file(&path).unwrap();
            // ext4 gives the first free number; xfs has this one a moment after the removal.
            let others: Vec<_> =
                (0..10_000).map(|number| root.join(format!("d/x{number}"))).collect();
            let made = others.iter().take_while(|other| {
                fs::write(other, "a").unwrap();
                let is_it = fs::metadata(other).unwrap().ino() == before.ino();
                is_it.then(|| fs::rename(other, &path).unwrap()).is_none()
            });
            made.collect::<Vec<_>>().into_iter().for_each(|other| fs::remove_file(other).unwrap());
            let file = fs::File::options().write(true).open(&path).expect("its number again");
            file.set_modified(before.modified().unwrap()).unwrap();
            fs::write(&path, "A").unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
        },
        &["Modified /d", "Modified /d/a"],
    ),
    (
        "a link leads elsewhere",
        |root| does(root, &[Remove("link"), Symlink("link", "d/b")]),
        &["Modified /link"],
    ),
    (
        "another device",
        |root| does(root, &[Remove("device"), Char("device", 1, 5), Block("pipe2", 7, 1)]),
        &["Modified /device", "Added /pipe2"],
    ),
    (
        "a hole, times restored",
        |root| {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            allocate(&root.join("large"), punch, 4096, 8192);
        },
        &["Modified /large"],
    ),
    (
        "a part is taken out, times restored",
        |root| allocate(&root.join("large"), FallocateFlags::COLLAPSE_RANGE, 4096, 4096),
        &["Modified /large"],
    ),
    (
        "space without content",
        |root| allocate(&root.join("large"), FallocateFlags::KEEP_SIZE, 1 << 20, 65_536),
        &[],
    ),
    (
        "longer",
        |root| allocate(&root.join("dated"), FallocateFlags::empty(), 0, 4096),
        &["Modified /dated"],
    ),
    (
        "in a large directory",
        |root| {
            does(root, &[Append("many/b", "x"), Remove("many/c"), Rename("many/d", "many/a")]);
        },
        &[
            "Modified /many",
            "Added /many/a",
            "Modified /many/b",
            "Deleted /many/c",
            "Deleted /many/d",
        ],
    ),
    ("the root's mode", |root| does(root, &[Chmod("", 0o700)]), &["Modified /"]),
];
