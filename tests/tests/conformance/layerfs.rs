//! What is peculiar to a driver whose mounts are served by processes of their own.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use drivers::{Access, CreateOptions, ErrorKind};
use rustix::io::Errno;
use rustix::process::Pid;
use tests::host::provides;
use tests::layerfs::{all_end_below, kill, servers_below};
use tests::ops::Op::*;
use tests::root::{TempRoot, mounts_below};

use crate::bench::{Bench, backends, id, kind};

/// A bench on driver fuse with the layers 1 (two files) and 2, active on it.
fn bench(case: &str) -> Option<Bench> {
    if !provides(&[]) {
        return None;
    }
    // In a guest, other drivers are tested.
    let backend = backends().into_iter().find(|backend| backend.label == "fuse")?;
    let bench = Bench::new(backend, case);
    bench.layer("1", None, &[File("f", "1"), File("g", "1")]);
    bench.create("2", Some("1"));
    Some(bench)
}

/// The one process that serves the bench's mounts.
fn server(bench: &Bench) -> Pid {
    // Private mounts of calls before end by themselves.
    let servers = servers_below(&bench.home().join("layers"));
    assert_eq!(servers.len(), 1, "{}: {servers:?}", bench.label);
    servers[0]
}

#[test]
fn a_mount_has_a_process_of_its_own_that_outlives_the_driver() {
    let Some(mut bench) = bench("process") else { return };
    // What this process has open without closing it on exec is not the server's.
    let leak = File::create(bench.root.join("leak")).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let path = bench.mount("2");
    let server = server(&bench);
    assert_eq!(rustix::process::getsid(Some(server)).unwrap(), server, "it leads a session");
    let open = fs::read_dir(format!("/proc/{}/fd", server.as_raw_nonzero())).unwrap();
    for fd in open {
        let target = fs::read_link(fd.unwrap().path()).unwrap_or_default();
        let text = target.to_string_lossy();
        let foreign = ["socket:", "pipe:"].iter().any(|kind| text.starts_with(kind))
            || [bench.root.join("leak"), bench.home().join("lock")].contains(&target);
        assert!(!foreign, "it holds {text}");
    }
    drop(leak);
    let working = fs::read_link(format!("/proc/{}/cwd", server.as_raw_nonzero())).unwrap();
    assert_eq!(working, Path::new("/"), "it keeps no directory busy");
    bench.reopen();
    fs::write(path.join("h"), "2").unwrap();
    bench.unmount("2");
    all_end_below(&bench.home());
    bench.commit("2");
    assert_eq!(bench.changes("2", None), ["Added /h"]);
    let left: Vec<_> = fs::read_dir(bench.home().join("layers/2")).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "a committed layer is its file and its data: {left:?}");
}

#[test]
fn a_mount_whose_process_died_is_made_anew_or_taken_off() {
    let Some(mut bench) = bench("dead") else { return };
    let fails = |path: &Path| match fs::write(path.join("x"), "") {
        Ok(()) => panic!("{} is served", path.display()),
        Err(error) => {
            let gone = [Errno::NOTCONN, Errno::CONNABORTED, Errno::CANCELED].map(Some);
            assert!(gone.contains(&Errno::from_io_error(&error)), "{error}");
        }
    };
    let path = bench.mount("2");
    fs::write(path.join("h"), "2").unwrap();
    kill(server(&bench));
    fails(&path);
    assert!(bench.check().is_empty(), "{:?}", bench.check());
    // Whoever mounts next finds it whole; both users hold the new mount.
    assert_eq!(bench.mount("2"), path);
    assert_eq!(fs::read_to_string(path.join("h")).unwrap(), "2", "what was written");
    bench.unmount("2");
    assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "1", "the first user's mount");
    // Unmounting needs no process.
    kill(server(&bench));
    fails(&path);
    bench.unmount("2");
    assert!(mounts_below(&bench.home()).is_empty(), "a dead mount is left");
    // Nor does a new daemon keep what nobody serves.
    bench.mount("2");
    kill(server(&bench));
    bench.reopen();
    assert!(mounts_below(&bench.home()).is_empty(), "a dead mount is adopted");
    bench.commit("2");
    assert_eq!(bench.changes("2", None), ["Added /h"]);
    all_end_below(&bench.home());
}

/// Leaves a copied-up file of layer 2 as a crash does before the disk has its data.
fn lose_data(bench: &Bench, name: &str) -> PathBuf {
    let layer = bench.home().join("layers/2");
    let (file, origin) = (layer.join("diff").join(name), "trusted.overlay.origin");
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(&file, origin, &mut value).expect("the origin of a copy");
    let work = File::open(layer.join("work/work")).unwrap();
    let record = cow::unsettled::Record::make(&work).expect("a record");
    let value = record.mark(value[..length].to_vec());
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, origin, &value, flags).expect("marked");
    File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
    file
}

#[test]
fn what_a_crash_kept_from_the_disk_is_made_good_before_a_layer_is_read() {
    let Some(bench) = bench("lost") else { return };
    let path = bench.mount("2");
    fs::set_permissions(path.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.unmount("2");
    all_end_below(&bench.home());
    let record = bench.home().join("layers/2/work/work/unsettled");

    let file = lose_data(&bench, "f");
    assert_eq!(bench.changes("2", None), ["Modified /f"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "1", "after a look at the changes");
    assert!(!record.exists(), "the record is left");

    lose_data(&bench, "f");
    let path = bench.mount("2");
    assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "1", "in a mount");
    assert!(!record.exists(), "the record is left");
    bench.unmount("2");
    all_end_below(&bench.home());

    lose_data(&bench, "f");
    bench.commit("2");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1", "in the committed layer");
    assert_eq!(bench.changes("2", None), ["Modified /f"]);
}

#[test]
fn all_references_can_be_dropped_at_once() {
    let Some(bench) = bench("release") else { return };
    for _ in 0..3 {
        bench.mount("2");
    }
    bench.ok("release", bench.driver().release(&id("2")));
    assert!(mounts_below(&bench.home()).is_empty(), "it is mounted still");
    bench.ok("release", bench.driver().release(&id("2")));
    assert_eq!(kind(bench.driver().release(&id("nobody"))), Some(ErrorKind::NotFound));
    bench.remove("2");
    all_end_below(&bench.home());
}

#[test]
fn what_is_left_of_a_mount_can_change_nothing() {
    let Some(bench) = bench("held") else { return };
    let target = bench.root.join("target");
    fs::create_dir(&target).unwrap();
    let bind = |path: &Path| rustix::mount::mount_bind(path, &target).unwrap();
    let unbind = || tests::root::unmount(&target);
    let commit = || bench.driver().commit(&id("2"), &drivers::LayerRecord::default());

    // With a file open for writing the tree cannot be frozen.
    bind(&bench.mount("2"));
    let file = File::create(target.join("h")).unwrap();
    bench.unmount("2");
    let error = commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    // Two processes on one upper directory would not know of each other's changes.
    let again = bench.driver().mount(&id("2"), Access::Default);
    assert_eq!(kind(again), Some(ErrorKind::FailedPrecondition));
    drop(file);
    unbind();

    // Without one, whoever is left has it read-only, and nobody waits for him.
    bind(&bench.mount("2"));
    bench.unmount("2");
    let error = fs::write(target.join("h"), "late").unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::ROFS), "{error}");
    let path = bench.mount("2");
    fs::write(path.join("h"), "2").unwrap();
    bench.unmount("2");
    bench.ok("commit", commit());
    assert_eq!(bench.changes("2", None), ["Added /h"]);
    assert_eq!(fs::read_to_string(target.join("f")).unwrap(), "1", "it can still be read");
    unbind();
    all_end_below(&bench.home());
}

#[test]
fn what_layerfs_refuses_is_told_with_the_layer() {
    let Some(bench) = bench("errors") else { return };
    let open = |options: &[&str]| {
        let program = tests::programs::options("fuse");
        let options: Vec<_> =
            program.into_iter().chain(options.iter().map(ToString::to_string)).collect();
        drivers::open("fuse", &bench.root.join("other"), &options).map(drop).unwrap_err()
    };
    let cases: [(&[&str], ErrorKind, &str); 3] = [
        (&["fuse.program=/nowhere/layerfs"], ErrorKind::Unsupported, "/nowhere/layerfs"),
        (&["fuse.mountopt=colour=red"], ErrorKind::Unsupported, "unknown option colour"),
        (&["fuse.program=/bin/false"], ErrorKind::Unsupported, "exit status: 1"),
    ];
    for (options, expected, words) in cases {
        let error = open(options);
        assert_eq!(error.kind(), expected, "{options:?}: {error}");
        assert!(error.to_string().contains(words), "{options:?}: {error}");
    }
    // A layer below that is damaged: the mount names what it was made for.
    bench.ok("create", bench.driver().create(&id("3"), Some(&id("1")), &CreateOptions::active()));
    fs::remove_dir_all(bench.home().join("layers/1/diff")).unwrap();
    let error = bench.driver().mount(&id("3"), Access::Default).unwrap_err().to_string();
    for word in ["fuse", "mount", "3", "1/diff"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(!bench.home().join("layers/3/merged").exists(), "a mount point is left");
    all_end_below(&bench.home());
}

#[test]
fn layers_are_the_kernels_as_well() {
    let Some(bench) = bench("kernel") else { return };
    bench.work("2", &[Remove("f"), Dir("d", 0o755), File("d/x", "2")]);
    bench.commit("2");
    bench.active("3", Some("2"), &[Rename("d", "e"), File("e/y", "3"), Chmod("g", 0o600)]);
    let expected = bench.portrait("3");
    let dir = |layer: &str| bench.home().join("layers").join(layer).join("diff");
    let target: PathBuf = bench.root.join("target");
    fs::create_dir(&target).unwrap();
    let [one, two, three] = ["1", "2", "3"].map(|layer| dir(layer).display().to_string());
    let options = format!("lowerdir={three}:{two}:{one},redirect_dir=on");
    let data = std::ffi::CString::new(options).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("overlay", &target, "overlay", flags, data.as_c_str()).unwrap();
    let shown = crate::bench::timeless(tests::tree::portrait(&target).unwrap());
    tests::root::unmount(&target);
    bench.same("3", &shown, &expected);
}

#[test]
fn a_home_is_probed_without_a_trace() {
    let Some(bench) = bench("probe") else { return };
    let root = TempRoot::new("probe");
    let options = tests::programs::options(bench.backend.driver);
    drop(drivers::open(bench.backend.driver, &root.join("home"), &options).unwrap());
    assert!(mounts_below(root.path()).is_empty(), "something is mounted");
    let left = fs::read_dir(root.join("home/tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary directories are left");
    all_end_below(root.path());
}
