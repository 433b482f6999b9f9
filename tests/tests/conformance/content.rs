//! What a layer shows after each kind of change: the same on every driver, and after a restart.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tests::ops::Op::{self, *};

use crate::bench::{Backend, Bench, VFS, backends};
use tests::host::provides;

/// Steps in a base layer, and in one or more layers on it.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) layers: &'static [&'static [Op<'static>]],
    /// What a driver must be able to do.
    pub(crate) needs: fn(&Backend) -> bool,
    /// Whether a file of a lower layer gets one more name, which a layer's tar can only tell as a
    /// file of its own.
    pub(crate) links_below: bool,
}

const fn case(name: &'static str, layers: &'static [&'static [Op<'static>]]) -> Case {
    Case { name, layers, needs: |_| true, links_below: false }
}

/// Something of every kind, with times that are long past.
const BASE: &[Op<'static>] = &[
    Dir("etc", 0o755),
    File("etc/passwd", "root:x:0:0\n"),
    File("etc/hosts", "127.0.0.1 localhost\n"),
    Dir("etc/init.d", 0o755),
    File("etc/init.d/a", "a"),
    File("etc/init.d/b", "b"),
    Dir("usr", 0o755),
    Dir("usr/bin", 0o755),
    File("usr/bin/su", "#!su"),
    Chown("usr/bin/su", 0, 4),
    Chmod("usr/bin/su", 0o4754),
    Symlink("bin", "usr/bin"),
    Dir("tmp", 0o1777),
    Fifo("tmp/pipe"),
    Char("tmp/null", 1, 3),
    Block("tmp/disk", 7, 9),
    Sparse("tmp/hole", 1 << 20),
    Mtime("etc/init.d", 1_000_000_000, 123_456_789),
    Mtime("etc/passwd", 1_000_000_001, 1),
    Mtime("etc", 1_000_000_002, 0),
    Mtime("usr/bin/su", -1_000, 500),
    Mtime("usr/bin", 1_000_000_003, 999_999_999),
    Mtime("usr", 1_000_000_003, 7),
];

/// A version 2 capability: CAP_NET_RAW, effective (linux/capability.h, `vfs_cap_data`).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access ACL: user::rw-, user:1:rwx, group::r--, mask::rwx, other::r-- (acl(5),
/// linux/posix_acl_xattr.h).
const ACL: &[u8] = &[
    2, 0, 0, 0, // version
    1, 0, 6, 0, 255, 255, 255, 255, // owner
    2, 0, 7, 0, 1, 0, 0, 0, // user 1
    4, 0, 4, 0, 255, 255, 255, 255, // group
    16, 0, 7, 0, 255, 255, 255, 255, // mask
    32, 0, 4, 0, 255, 255, 255, 255, // other
];

/// Every kind of change.
pub(crate) const CASES: &[Case] = &[
    case("nothing", &[BASE, &[], &[]]),
    case("new files", &[BASE, &[File("etc/new", "1"), Dir("opt", 0o750), File("opt/x", "y")]]),
    case("rewritten", &[BASE, &[File("etc/passwd", "other")], &[File("etc/passwd", "third")]]),
    case("appended", &[BASE, &[Append("etc/passwd", "more\n")]]),
    case("same length", &[BASE, &[Write("etc/passwd", 2, "XX")]]),
    case(
        "same length and time",
        &[BASE, &[Write("etc/passwd", 2, "XX"), Mtime("etc/passwd", 1_000_000_001, 1)]],
    ),
    case("truncated", &[BASE, &[Truncate("etc/passwd", 3)], &[Truncate("etc/passwd", 0)]]),
    case("opened but not changed", &[BASE, &[Touch("etc/passwd"), Touch("usr/bin/su")]]),
    case("chmod", &[BASE, &[Chmod("etc/passwd", 0o600), Chmod("etc/init.d", 0o700)]]),
    case("chmod and back", &[BASE, &[Chmod("etc/hosts", 0o600), Chmod("etc/hosts", 0o644)]]),
    case("chown", &[BASE, &[Chown("etc/passwd", 1, 2), Chown("etc/init.d", 3, 4)]]),
    case("chown of a link", &[BASE, &[Chown("bin", 5, 6)]]),
    case("setuid goes with a write", &[BASE, &[Append("usr/bin/su", "!")]]),
    case("times", &[BASE, &[Mtime("etc/hosts", 5, 999_999_999), Mtime("usr", 6, 1)]]),
    case(
        "xattrs",
        &[
            &[File("f", ""), Xattr("f", "user.a", b"1"), Xattr("f", "user.b", b"\0\xff")],
            &[NoXattr("f", "user.a"), Xattr("f", "user.b", b"2"), Xattr("f", "user.c", b"3")],
        ],
    ),
    case(
        "capability",
        &[
            &[
                File("ping", "x"),
                Chmod("ping", 0o755),
                Xattr("ping", "security.capability", CAPABILITY),
            ],
            &[Chmod("ping", 0o700)],
            &[Append("ping", "y")],
        ],
    ),
    case(
        "acl",
        &[
            &[File("f", "x"), Dir("d", 0o755), Xattr("d", "system.posix_acl_default", ACL)],
            &[Xattr("f", "system.posix_acl_access", ACL), File("d/inherits", "")],
        ],
    ),
    case("file removed", &[BASE, &[Remove("etc/passwd")], &[File("etc/passwd", "new")]]),
    case("directory removed", &[BASE, &[Remove("etc/init.d")], &[Remove("etc")]]),
    case(
        "directory replaced",
        &[
            BASE,
            &[Remove("etc/init.d"), Dir("etc/init.d", 0o755), File("etc/init.d/c", "c")],
            &[File("etc/init.d/a", "again")],
        ],
    ),
    case(
        "removed and made again the same",
        &[
            &[Dir("d", 0o755), File("d/f", "x"), Mtime("d/f", 9, 9), Mtime("d", 8, 8)],
            &[Remove("d"), Dir("d", 0o755), File("d/f", "x"), Mtime("d/f", 9, 9), Mtime("d", 8, 8)],
        ],
    ),
    case(
        "file to directory",
        &[BASE, &[Remove("etc/passwd"), Dir("etc/passwd", 0o711), File("etc/passwd/x", "y")]],
    ),
    case("directory to file", &[BASE, &[Remove("etc/init.d"), File("etc/init.d", "file")]]),
    case("directory to link", &[BASE, &[Remove("etc/init.d"), Symlink("etc/init.d", "../usr")]]),
    case("link to directory", &[BASE, &[Remove("bin"), Dir("bin", 0o755), File("bin/ls", "ls")]]),
    case("link changed", &[BASE, &[Remove("bin"), Symlink("bin", "/usr/sbin")]]),
    case("file renamed", &[BASE, &[Rename("etc/passwd", "etc/shadow")]]),
    case("file moved over another", &[BASE, &[Rename("etc/passwd", "etc/hosts")]]),
    case(
        "new directory renamed",
        &[BASE, &[Dir("new", 0o755), File("new/x", "x"), Rename("new", "newer")]],
    ),
    case(
        "hard links",
        &[
            &[File("a", "one"), Link("b", "a"), Dir("d", 0o755), Link("d/c", "a")],
            &[Remove("b")],
            &[File("e", "two"), Link("d/e", "e")],
        ],
    ),
    Case {
        links_below: true,
        ..case("hard link to a lower file", &[BASE, &[Link("etc/copy", "etc/passwd")]])
    },
    case(
        "link and unlink",
        &[BASE, &[Dir("dir", 0o755), Link("dir/passwd", "etc/passwd"), Remove("etc/passwd")]],
    ),
    Case {
        name: "a name of a linked lower file changed",
        layers: &[&[File("a", "one"), Link("b", "a")], &[Chmod("a", 0o600)]],
        needs: |backend| backend.keeps_lower_links,
        links_below: true,
    },
    case(
        "devices and pipes",
        &[
            BASE,
            &[
                Remove("tmp/null"),
                Char("tmp/null", 1, 5),
                Fifo("tmp/other"),
                Chmod("tmp/pipe", 0o666),
            ],
        ],
    ),
    case("sparse", &[BASE, &[Write("tmp/hole", 4096, "data")], &[Sparse("tmp/big", 1 << 22)]]),
    case(
        "strange names",
        &[
            &[
                Dir("a b", 0o755),
                File("a b/\\040", "x"),
                File("back\\slash", ""),
                File("c:d,e=f", ""),
            ],
            &[Remove("a b/\\040"), File("c:d,e=f", "changed"), File("é\n", "")],
        ],
    ),
    case(
        "names with common beginnings",
        &[
            &[
                Dir("a", 0o755),
                File("a/x", "1"),
                File("a.b", "2"),
                File("a-b", "3"),
                File("ab", "4"),
            ],
            &[Remove("a"), File("a.b", "5")],
        ],
    ),
    case("root directory", &[&[Chmod("", 0o700)], &[Chown("", 1, 2)], &[Chmod("", 0o1777)]]),
    Case {
        name: "lower directory renamed",
        layers: &[BASE, &[Rename("etc", "conf"), File("conf/new", "x")], &[Remove("conf/hosts")]],
        needs: |backend| backend.renames_lower_dirs,
        links_below: false,
    },
    Case {
        name: "lower directory renamed deep",
        layers: &[
            BASE,
            &[Rename("etc/init.d", "usr/init"), File("usr/init/c", "c")],
            &[Rename("usr", "usr2"), Remove("usr2/init/a"), Dir("usr", 0o755)],
            &[Rename("usr2/init", "etc/init.d"), Chmod("etc/init.d/b", 0o600)],
        ],
        needs: |backend| backend.renames_lower_dirs,
        links_below: false,
    },
    Case {
        name: "lower directories swapped",
        layers: &[
            &[Dir("a", 0o755), File("a/1", "1"), Dir("b", 0o755), File("b/2", "2")],
            &[Rename("a", "c"), Rename("b", "a"), Rename("c", "b")],
            &[File("a/3", "3"), Remove("b/1")],
        ],
        needs: |backend| backend.renames_lower_dirs,
        links_below: false,
    },
];

/// Layer names `l0`, `l1`, ... bottom to top.
pub(crate) fn name(at: usize) -> String {
    format!("l{at}")
}

/// Builds all layers of a case; the last stays active.
///
/// The times that the lower layers took from the clock are set to something that is long past, a
/// different one for each layer: the clock's tick is coarse, and a change must not be missed because
/// it came in the same one.
pub(crate) fn build(bench: &Bench, case: &Case) {
    let last = case.layers.len() - 1;
    for (at, steps) in case.layers.iter().enumerate() {
        let below = at.checked_sub(1).map(name);
        bench.create(&name(at), below.as_deref());
        let path = bench.mount(&name(at));
        tests::ops::apply(&path, steps);
        if at != last {
            settle(&path, 1_100_000_000 + i64::try_from(at).unwrap());
        }
        bench.unmount(&name(at));
        if at != last {
            bench.commit(&name(at));
        }
    }
}

/// Sets every time of the last day to `secs`, and that of a root that has none.
fn settle(root: &Path, secs: i64) {
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    for path in tests::tree::portrait(root).unwrap().into_keys() {
        let meta = fs::symlink_metadata(root.join(&path)).unwrap();
        let time = meta.modified().unwrap();
        if time > yesterday || time == SystemTime::UNIX_EPOCH {
            tests::ops::apply(root, &[Mtime(path.to_str().unwrap(), secs, 5)]);
        }
    }
}

#[test]
fn every_kind_of_change_shows_as_on_full_copies() {
    if !provides(&[]) {
        return;
    }
    for case in CASES {
        let oracle = Bench::new(VFS, case.name);
        build(&oracle, case);
        for backend in backends().iter().filter(|backend| (case.needs)(backend)) {
            let mut bench = Bench::new(*backend, case.name);
            build(&bench, case);
            let last = name(case.layers.len() - 1);
            bench.same("active", &bench.portrait(&last), &oracle.portrait(&last));
            bench.commit(&last);
            bench.reopen();
            for at in (0..case.layers.len()).map(name) {
                bench.same(&at, &bench.portrait(&at), &oracle.portrait(&at));
                let view = format!("{at}-view");
                bench.view(&view, Some(&at));
                bench.same(&view, &bench.portrait(&view), &oracle.portrait(&at));
            }
            assert!(bench.check().is_empty(), "{}: {:?}", bench.label, bench.check());
        }
    }
}

#[test]
fn lower_directories_that_cannot_be_renamed_say_so() {
    if !provides(&[]) {
        return;
    }
    for backend in backends().iter().filter(|backend| !backend.renames_lower_dirs) {
        let bench = Bench::new(*backend, "rename");
        bench.layer("base", None, BASE);
        bench.create("top", Some("base"));
        let error = tests::ops::step(&bench.mount("top"), &Rename("etc", "conf")).unwrap_err();
        let exdev = rustix::io::Errno::XDEV.raw_os_error();
        assert_eq!(error.raw_os_error(), Some(exdev), "{}: {error}", bench.label);
    }
}
