use std::os::unix::fs::symlink;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::*;

const PASSWD: &str = "\
# comment
root:x:0:0:root:/root:/bin/sh

broken line
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
app:x:1000:1001::/home/app:/bin/sh
nohome:x:1002:1002
huge:x:4294967295:0::/:
1234:x:77:78::/srv:
";
const GROUP: &str = "\
root:x:0:
wheel:x:10:root,app
app:x:1001:
audio:x:29:daemon,app
#audio:x:30:app
";

fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
    Identity { uid, gid, groups: groups.to_vec(), home: home.into() }
}

#[test]
fn users_and_groups_are_found_as_docker_finds_them() {
    for (user, expected) in [
        ("", identity(0, 0, &[0, 10], "/root")),
        ("root", identity(0, 0, &[0, 10], "/root")),
        ("0", identity(0, 0, &[0, 10], "/root")),
        ("app", identity(1000, 1001, &[10, 29, 1001], "/home/app")),
        ("1000", identity(1000, 1001, &[10, 29, 1001], "/home/app")),
        ("app:", identity(1000, 1001, &[10, 29, 1001], "/home/app")),
        ("app:wheel", identity(1000, 10, &[10], "/home/app")),
        ("app:555", identity(1000, 555, &[555], "/home/app")),
        ("4242", identity(4242, 0, &[0], "/")),
        ("4242:audio", identity(4242, 29, &[29], "/")),
        (":wheel", identity(0, 10, &[10], "/root")),
        ("nohome", identity(1002, 1002, &[1002], "/")),
        ("1234", identity(77, 78, &[78], "/srv")),
    ] {
        assert_eq!(resolve(user, PASSWD, GROUP).unwrap(), expected, "user {user:?}");
    }
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    for (user, message) in [
        ("ghost", "unable to find user ghost: no matching entries in passwd file"),
        ("huge", "unable to find user huge: no matching entries in passwd file"),
        ("#", "unable to find user #: no matching entries in passwd file"),
        ("app:ghosts", "unable to find group ghosts: no matching entries in group file"),
        ("4294967295", "container user \"4294967295\": ids must be in range 0-2147483647"),
        ("0:99999999999", "container user \"0:99999999999\": ids must be in range 0-2147483647"),
    ] {
        let error = resolve(user, PASSWD, GROUP).expect_err(user);
        assert_eq!(error.to_string(), message, "user {user:?}");
    }
}

#[test]
fn numbers_need_no_files() {
    assert_eq!(resolve("7:8", "", "").unwrap(), identity(7, 8, &[8], "/"), "both numbers");
    assert_eq!(resolve("", "", "").unwrap(), identity(0, 0, &[0], "/"), "root by default");
}

fn root_with(make: impl FnOnce(&Path)) -> (tempfile::TempDir, std::os::fd::OwnedFd) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("etc")).expect("root/etc");
    make(&root);
    let fd = openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("root");
    (dir, fd)
}

#[test]
fn files_are_read_inside_the_root_only() {
    let (_dir, root) = root_with(|root| {
        std::fs::write(root.parent().unwrap().join("passwd"), "evil:x:666:666::/:\n").unwrap();
        symlink("../../passwd", root.join("etc/passwd")).unwrap();
    });
    let error = lookup(&root, "evil").expect_err("the link leaves the root");
    assert!(matches!(error, Error::NoSuchUser { .. }), "stays inside: {error}");

    let (_dir, root) = root_with(|root| {
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::fs::write(root.join("usr/lib/passwd"), "lib:x:5:6::/lib:\n").unwrap();
        symlink("/usr/lib/passwd", root.join("etc/passwd")).unwrap();
    });
    assert_eq!(lookup(&root, "lib").unwrap().uid, 5, "an absolute link counts from the root");
}

#[test]
fn special_files_neither_block_nor_pass() {
    let (_dir, root) = root_with(|root| {
        rustix::fs::mknodat(CWD, root.join("etc/passwd"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    });
    let error = lookup(&root, "0").expect_err("a FIFO is no passwd file").to_string();
    assert!(error.contains("/etc/passwd") && error.contains("not a regular file"), "{error}");
}

#[test]
fn missing_files_are_empty() {
    let (_dir, root) = root_with(|_| {});
    assert_eq!(lookup(&root, "12:34").unwrap(), identity(12, 34, &[34], "/"), "numbers suffice");
}
