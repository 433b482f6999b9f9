//! Mounts: their number, their owners, and what survives a restart.

use std::fs;
use std::path::Path;

use drivers::{Access, ErrorKind};
use tests::ops::Op::*;
use tests::root::mounts_below;

use crate::bench::{Bench, each, id, kind};

fn is_mounted(bench: &Bench, path: &Path) -> bool {
    mounts_below(&bench.home()).iter().any(|point| point == path)
}

#[test]
fn the_last_reference_unmounts() {
    each("references", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.create("2", Some("1"));
        let path = bench.mount("2");
        assert_eq!(bench.mount("2"), path, "{}: every caller gets one path", bench.label);
        fs::write(path.join("g"), "2").unwrap();
        bench.unmount("2");
        assert!(is_mounted(bench, &path), "{}: unmounted under a user", bench.label);
        assert_eq!(
            kind(bench.driver().remove(&id("2"))),
            Some(ErrorKind::InUse),
            "{}",
            bench.label
        );
        bench.unmount("2");
        assert!(!is_mounted(bench, &path), "{}: still mounted", bench.label);
        assert!(!path.exists(), "{}: the mount point stays", bench.label);
        bench.unmount("2");
        assert_eq!(fs::read_to_string(bench.mount("2").join("g")).unwrap(), "2", "{}", bench.label);
        bench.unmount("2");
        assert_eq!(kind(bench.driver().unmount(&id("nobody"))), Some(ErrorKind::NotFound));
        assert_eq!(
            kind(bench.driver().mount(&id("nobody"), Access::Default)),
            Some(ErrorKind::NotFound),
            "{}",
            bench.label
        );
    });
}

#[test]
fn references_survive_a_restart() {
    each("restart", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.create("2", Some("1"));
        let path = bench.mount("2");
        fs::write(path.join("g"), "2").unwrap();
        let view = bench.mount("1");
        bench.reopen();
        assert_eq!(fs::read_to_string(path.join("g")).unwrap(), "2", "{}", bench.label);
        assert!(bench.check().is_empty(), "{}: a live mount is no damage", bench.label);
        bench.ok("repair", bench.driver().repair());
        for name in ["1", "2"] {
            let error = bench.driver().remove(&id(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InUse, "{}: {error}", bench.label);
        }
        assert_eq!(bench.mount("2"), path, "{}", bench.label);
        bench.unmount("2");
        assert!(is_mounted(bench, &path), "{}: the old user's mount is gone", bench.label);
        bench.unmount("2");
        bench.unmount("1");
        assert!(!is_mounted(bench, &path) && !is_mounted(bench, &view), "{}", bench.label);
        bench.remove("2");
        bench.remove("1");
    });
}

#[test]
fn a_layer_is_mounted_one_way_at_a_time() {
    each("access", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.create("2", Some("1"));
        let mount = |access| bench.driver().mount(&id("2"), access);
        for (first, other) in
            [(Access::Default, Access::ReadOnly), (Access::ReadOnly, Access::Default)]
        {
            let path = bench.ok("mount", mount(first));
            let writes = fs::write(path.join("g"), "2").is_ok();
            assert_eq!(writes, first == Access::Default, "{}: {first:?}", bench.label);
            assert_eq!(kind(mount(other)), Some(ErrorKind::InUse), "{}: {first:?}", bench.label);
            bench.ok("mount", mount(first));
            bench.unmount("2");
            bench.unmount("2");
        }
    });
}

#[test]
fn a_busy_mount_is_detached() {
    each("busy", |bench| {
        bench.layer("1", None, &[Dir("proc", 0o755), File("f", "1")]);
        bench.create("2", Some("1"));
        let path = bench.mount("2");
        let held = fs::File::open(path.join("f")).unwrap();
        let proc = path.join("proc");
        rustix::mount::mount("tmpfs", &proc, "tmpfs", rustix::mount::MountFlags::empty(), None)
            .unwrap();
        bench.unmount("2");
        assert_eq!(mounts_below(&bench.home()), [""; 0].map(std::path::PathBuf::from));
        assert_eq!(std::io::read_to_string(&held).unwrap(), "1", "{}: an open file", bench.label);
        drop(held);
        bench.remove("2");
    });
}

#[test]
fn cleanup_unmounts_everything() {
    each("cleanup", |bench| {
        bench.layer("1", None, &[File("f", "1")]);
        bench.create("2", Some("1"));
        bench.mount("1");
        bench.mount("2");
        bench.mount("2");
        for _ in 0..2 {
            bench.ok("cleanup", bench.driver().cleanup());
            assert!(mounts_below(&bench.home()).is_empty(), "{}: mounts are left", bench.label);
        }
        bench.remove("2");
        bench.remove("1");
    });
}

/// Mounts a layer as a client does, with nothing but the description and mount(2).
fn mount_as_client(bench: &Bench, name: &str, access: Access) -> std::path::PathBuf {
    use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
    let mounts = bench.ok("mounts", bench.driver().mounts(&id(name), access));
    let [only] = &mounts[..] else { panic!("{}: {mounts:?}", bench.label) };
    let target = bench.root.join("client");
    fs::create_dir_all(&target).unwrap();
    let mounted = if only.fstype == "bind" {
        mount_bind(&only.source, &target).and_then(|()| match only.options.last() {
            Some(last) if last == "ro" => {
                mount_remount(&target, MountFlags::BIND | MountFlags::RDONLY, "")
            }
            _ => Ok(()),
        })
    } else {
        let options = std::ffi::CString::new(only.options.join(",")).unwrap();
        let fstype = only.fstype.as_str();
        mount(&only.source, &target, fstype, MountFlags::empty(), options.as_c_str())
    };
    mounted.unwrap_or_else(|errno| panic!("{}: mount(2) of {only:?}: {errno}", bench.label));
    target
}

#[test]
fn a_home_may_have_any_name() {
    if !tests::host::provides(&[]) {
        return;
    }
    for backend in crate::bench::backends() {
        let bench = Bench::named(backend, "strange home", "a:b,c d\\e=é");
        bench.layer("1", None, &[File("f", "1")]);
        bench.layer("2", Some("1"), &[File("g", "2")]);
        bench.active("3", Some("2"), &[Remove("f"), File("h", "3")]);
        let expected = bench.portrait("3");
        if bench.driver().capabilities().client_mounts {
            let target = mount_as_client(&bench, "3", Access::Default);
            let got = crate::bench::timeless(tests::tree::portrait(&target).unwrap());
            bench.same("3", &got, &expected);
            tests::root::unmount(&target);
        }
        assert_eq!(bench.changes("3", None), ["Deleted /f", "Added /h"], "{}", bench.label);
    }
}

#[test]
fn clients_can_mount_for_themselves() {
    each("client", |bench| {
        if !bench.driver().capabilities().client_mounts {
            let result = bench.driver().mounts(&id("1"), Access::Default);
            assert_eq!(kind(result), Some(ErrorKind::Unsupported), "{}", bench.label);
            return;
        }
        bench.layer("1", None, &[File("f", "1")]);
        bench.layer("2", Some("1"), &[File("g", "2")]);
        bench.active("3", Some("2"), &[Remove("f"), File("h", "3")]);
        bench.create("alone", None);
        bench.view("view", Some("1"));
        let cases = [
            ("1", Access::Default, false),
            ("2", Access::Default, false),
            ("3", Access::Default, true),
            ("3", Access::ReadOnly, false),
            ("alone", Access::Default, true),
            ("view", Access::Default, false),
        ];
        for (name, access, writable) in cases {
            let expected = bench.portrait(name);
            let target = mount_as_client(bench, name, access);
            let got = crate::bench::timeless(tests::tree::portrait(&target).unwrap());
            bench.same(&format!("{name}, {access:?}"), &got, &expected);
            let writes = fs::write(target.join("new"), "").is_ok();
            tests::root::unmount(&target);
            assert_eq!(writes, writable, "{}: {name}, {access:?}", bench.label);
        }
        assert!(
            bench.portrait("3").contains_key(Path::new("new")),
            "{}: a client wrote",
            bench.label
        );
    });
}
