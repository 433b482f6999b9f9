//! Archives that try to get out, as containerd's suite names them; each in both formats.

use super::Place::{Dir, File, Link, Symlink};
use super::*;

/// What must hold of the merged tree.
enum Check {
    Content(&'static str, &'static str),
    Same(&'static str, &'static str),
    Different(&'static str, &'static str),
    Text(&'static str, &'static str),
    Absent(&'static str),
    Refused,
}

use Check::{Absent, Content, Different, Refused, Same, Text};

struct Case {
    name: &'static str,
    lower: &'static [Place],
    tar: fn(Tar) -> Tar,
    checks: &'static [Check],
}

const fn case(name: &'static str, tar: fn(Tar) -> Tar, checks: &'static [Check]) -> Case {
    Case { name, lower: &[], tar, checks }
}

const fn over(
    name: &'static str,
    lower: &'static [Place],
    tar: fn(Tar) -> Tar,
    checks: &'static [Check],
) -> Case {
    Case { name, lower, tar, checks }
}

fn etc(tar: Tar) -> Tar {
    tar.dir("etc", 0o770).file("/etc/passwd", "inside")
}

const PASSWD: Place = File("etc/passwd", "inside");
const UNBROKEN: &[Check] = &[Content("etc/unbroken", "unbroken")];
const LINKED: &[Check] = &[Same("localpasswd", "etc/passwd"), Content("localpasswd", "inside")];
const LINKED_BELOW: &[Check] = &[Same("localetc/localpasswd", "etc/passwd")];

const SYMLINKS: &[Case] = &[
    case(
        "SymlinkAbsolute",
        |t| t.dir("etc", 0o755).symlink("/etc", "localetc").file("/localetc/unbroken", "unbroken"),
        UNBROKEN,
    ),
    case(
        "SymlinkUpAndOut",
        |t| {
            t.dir("etc", 0o755)
                .dir("dummy", 0o755)
                .symlink("/dummy/../etc", "localetc")
                .file("/localetc/unbroken", "unbroken")
        },
        UNBROKEN,
    ),
    case(
        "SymlinkMultipleAbsolute",
        |t| {
            t.dir("etc", 0o755)
                .dir("dummy", 0o755)
                .symlink("/etc", "/dummy/etc")
                .symlink("/dummy/etc", "localetc")
                .file("/localetc/unbroken", "unbroken")
        },
        UNBROKEN,
    ),
    case(
        "SymlinkMultipleRelative",
        |t| {
            t.dir("etc", 0o755)
                .dir("dummy", 0o755)
                .symlink("/etc", "/dummy/etc")
                .symlink("./dummy/etc", "localetc")
                .file("/localetc/unbroken", "unbroken")
        },
        UNBROKEN,
    ),
    case(
        "SymlinkUpManyTimes",
        |t| t.symlink("../../../../../../etc", "up").file("up/unbroken", "unbroken"),
        UNBROKEN,
    ),
    case(
        "SymlinkEmptyFile",
        |t| {
            t.dir("etc", 0o755)
                .file("etc/emptied", "notempty")
                .symlink("/etc", "localetc")
                .file("/localetc/emptied", "")
        },
        &[Content("etc/emptied", "")],
    ),
    case(
        "SymlinkParentDirectory",
        |t| etc(t).symlink("/etc/", "..").link("/etc/passwd", "localpasswd"),
        LINKED,
    ),
    case(
        "SymlinkEmptyFilename",
        |t| etc(t).symlink("/etc/", "").link("/etc/passwd", "localpasswd"),
        LINKED,
    ),
    case(
        "SymlinkParentRelative",
        |t| etc(t).symlink("/etc/", "localetc/sub/..").link("/etc/passwd", "/localetc/localpasswd"),
        LINKED_BELOW,
    ),
    case(
        "SymlinkSlashEnded",
        |t| etc(t).dir("localetc/", 0o770).link("/etc/passwd", "/localetc/localpasswd"),
        LINKED_BELOW,
    ),
    over(
        "SymlinkOverrideDirectory",
        &[PASSWD, Dir("localetc")],
        |t| t.symlink("/etc", "localetc").link("/etc/passwd", "/localetc/localpasswd"),
        LINKED_BELOW,
    ),
    over(
        "SymlinkOverrideDirectoryRelative",
        &[PASSWD, Dir("localetc")],
        |t| t.symlink("../../etc", "localetc").link("/etc/passwd", "/localetc/localpasswd"),
        LINKED_BELOW,
    ),
    case(
        "SymlinkOverridePath",
        |t| {
            t.dir("foo", 0o755)
                .dir("foo/tmp", 0o755)
                .file("foo/tmp/breakout", "one")
                .symlink("/", "foo")
                .file("foo/tmp/breakout", "two")
                .dir("foo", 0o755)
                .dir("foo/tmp", 0o755)
                .file("foo/tmp/breakout", "three")
        },
        &[Content("foo/tmp/breakout", "three"), Content("tmp/breakout", "two")],
    ),
    case("SymlinkLoop", |t| t.symlink("b", "a").symlink("a", "b").file("a/x", "x"), &[Refused]),
];

const DIRECTORIES: &[Case] = &[
    over(
        "DirectoryOverrideSymlink",
        &[PASSWD, Symlink("/etc", "localetc")],
        |t| t.dir("/localetc/", 0o755).link("/etc/passwd", "/localetc/localpasswd"),
        LINKED_BELOW,
    ),
    over(
        "DirectoryOverrideSymlinkAndHardlink",
        &[PASSWD, Symlink("etc", "localetc"), Link("etc/passwd", "etc/localpasswd")],
        |t| t.dir("/localetc/", 0o755).file("/localetc/localpasswd", "different"),
        &[Different("localetc/localpasswd", "etc/passwd"), Content("etc/localpasswd", "inside")],
    ),
];

const HARDLINKS: &[Case] = &[
    case(
        "HardlinkRelative",
        |t| {
            etc(t)
                .dir("breakouts", 0o755)
                .symlink("../../etc", "breakouts/d1")
                .link("/breakouts/d1/passwd", "localpasswd")
        },
        LINKED,
    ),
    case(
        "HardlinkDownAndOut",
        |t| {
            etc(t)
                .dir("breakouts", 0o755)
                .dir("downandout", 0o755)
                .symlink("../downandout/../../etc", "breakouts/d1")
                .link("/breakouts/d1/passwd", "localpasswd")
        },
        LINKED,
    ),
    case(
        "HardlinkAbsolute",
        |t| etc(t).symlink("/etc", "localetc").link("/localetc/passwd", "localpasswd"),
        LINKED,
    ),
    case(
        "HardlinkRelativeLong",
        |t| {
            etc(t)
                .symlink("../../../../../../../etc", "localetc")
                .link("/localetc/passwd", "localpasswd")
        },
        LINKED,
    ),
    // The link leads through a directory that does not exist; as in a real root, that is an error.
    case(
        "HardlinkUpAndOut",
        |t| {
            etc(t)
                .dir("upandout", 0o755)
                .symlink("upandout/../../../etc", "localetc")
                .link("/localetc/passwd", "localpasswd")
        },
        LINKED,
    ),
    case(
        "HardlinkDirectRelative",
        |t| etc(t).link("../../../../../etc/passwd", "localpasswd"),
        LINKED,
    ),
    case("HardlinkDirectAbsolute", |t| etc(t).link("/etc/passwd", "localpasswd"), LINKED),
    case(
        "HardlinkSymlinkBeforeCreateTarget",
        |t| {
            t.dir("etc", 0o770)
                .symlink("/etc/passwd", "localpasswd")
                .link("localpasswd", "localpasswd-dup")
                .file("/etc/passwd", "after")
        },
        &[Same("localpasswd-dup", "etc/passwd"), Text("localpasswd-dup", "/etc/passwd")],
    ),
    case(
        "HardlinkSymlinkRelative",
        |t| {
            etc(t)
                .symlink("../../../../../etc/passwd", "passwdlink")
                .link("/passwdlink", "localpasswd")
        },
        &[Text("localpasswd", "../../../../../etc/passwd"), Same("localpasswd", "etc/passwd")],
    ),
    case(
        "HardlinkSymlinkAbsolute",
        |t| etc(t).symlink("/etc/passwd", "passwdlink").link("/passwdlink", "localpasswd"),
        &[Text("localpasswd", "/etc/passwd"), Same("localpasswd", "etc/passwd")],
    ),
    case(
        "HardlinkSymlinkChmod",
        |t| {
            let chmod = Entry {
                link: b"escape".to_vec(),
                ..Tar::blank("sketchylink", EntryKind::HardLink, 0o777)
            };
            t.symlink("../../../etc/passwd", "escape").entry(chmod, b"")
        },
        &[Text("sketchylink", "../../../etc/passwd")],
    ),
    case("HardlinkNowhere", |t| t.link("/etc/passwd", "localpasswd"), &[Refused]),
    case("HardlinkRoot", |t| t.link("/", "localpasswd"), &[Refused]),
    case("HardlinkDirectory", |t| t.dir("etc", 0o755).link("etc", "localetc"), &[Refused]),
    case(
        "HardlinkItself",
        |t| etc(t).link("etc/passwd", "etc/passwd"),
        &[Content("etc/passwd", "inside")],
    ),
];

const ALL_USERS: Place = File("etc/passwd", "all users");

const WHITEOUTS: &[Case] = &[
    over("WhiteoutRootParent", &[PASSWD], |t| t.file(".wh...", ""), &[Refused]),
    over("WhiteoutParent", &[PASSWD], |t| t.file("etc/.wh...", ""), &[Refused]),
    over("WhiteoutRoot", &[PASSWD], |t| t.file(".wh..", ""), &[Refused]),
    over("WhiteoutCurrentDirectory", &[PASSWD], |t| t.file("etc/.wh..", ""), &[Refused]),
    over("WhiteoutNothing", &[PASSWD], |t| t.file("etc/.wh.", ""), &[Refused]),
    over(
        "WhiteoutSymlink",
        &[ALL_USERS, Symlink("/etc", "localetc")],
        |t| t.file(".wh.localetc", ""),
        &[Content("etc/passwd", "all users"), Absent("localetc")],
    ),
    over(
        "WhiteoutSymlinkPath",
        &[ALL_USERS, File("etc/whitedout", "ahhhh whiteout"), Symlink("/etc", "localetc")],
        |t| t.file("localetc/.wh.whitedout", ""),
        &[Content("etc/passwd", "all users"), Absent("etc/whitedout"), Text("localetc", "/etc")],
    ),
    over(
        "WhiteoutDirectoryName",
        &[ALL_USERS, File("etc/whitedout", "ahhhh whiteout"), Symlink("/etc", "localetc")],
        |t| t.file(".wh.etc/somefile", "non-empty"),
        &[Content("etc/passwd", "all users"), Content(".wh.etc/somefile", "non-empty")],
    ),
    over(
        "WhiteoutDeadSymlinkParent",
        &[ALL_USERS, Symlink("/dne", "localetc")],
        |t| t.file("localetc/.wh.etc", ""),
        &[Content("etc/passwd", "all users"), Text("localetc", "/dne")],
    ),
    over(
        "WhiteoutRelativePath",
        &[ALL_USERS, Symlink("/dne", "localetc")],
        |t| t.file("dne/../.wh.etc", ""),
        &[Absent("etc/passwd"), Absent("etc")],
    ),
];

fn check(case: &Case, root: &Root, check: &Check, shown: &str) {
    let inode = |path| meta_in(root, path).map(|meta| meta.inode());
    match check {
        Content(path, text) => {
            assert_eq!(content_in(root, path).as_deref(), Some(*text), "{shown}: {path}");
        }
        Same(one, other) => {
            assert!(inode(one).is_some(), "{shown}: {one} exists");
            assert_eq!(inode(one), inode(other), "{shown}: {one} and {other}");
        }
        Different(one, other) => assert_ne!(inode(one), inode(other), "{shown}: {one}, {other}"),
        Text(path, text) => {
            assert_eq!(root.readlink(path).unwrap(), *text, "{shown}: text of {path}");
        }
        Absent(path) => assert!(!root.exists(path).unwrap(), "{shown}: {path} is gone"),
        Refused => panic!("{}: was not refused", case.name),
    }
}

fn run(cases: &[Case]) {
    for case in cases {
        for format in BOTH {
            let shown = format!("{} as {format:?}", case.name);
            let ground = Ground::on(format, case.lower);
            let applied = ground.apply(&(case.tar)(Tar::new()).bytes());
            if matches!(case.checks, [Refused]) {
                let kind = applied.as_ref().map_err(Error::kind);
                assert_eq!(kind.err(), Some(ErrorKind::InvalidArgument), "{shown}");
                continue;
            }
            applied.unwrap_or_else(|error| panic!("{shown}: {error}"));
            let merged = ground.merged();
            for expected in case.checks {
                check(case, &merged, expected, &shown);
            }
        }
    }
}

#[test]
fn symlinks_stay_inside() {
    run(SYMLINKS);
}

#[test]
fn directories_stay_inside() {
    run(DIRECTORIES);
}

#[test]
fn hard_links_stay_inside() {
    run(HARDLINKS);
}

#[test]
fn whiteouts_stay_inside() {
    run(WHITEOUTS);
}
