//! What programs rely on, one behaviour at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::stage::{Stage, may_mount};

/// Both ways in which data travels.
const WAYS: [&str; 2] = ["", ",passthrough=0"];

#[test]
fn root_a_copy_is_made_with_the_mode_that_is_asked_for() {
    /// One user more, and a mask: `struct posix_acl_xattr_entry`, four words of 16 bits each.
    const ACL: [u16; 22] = [
        2, 0, 1, 6, 0xffff, 0xffff, 2, 7, 1000, 0, 4, 4, 0xffff, 0xffff, 16, 7, 0xffff, 0xffff, 32,
        4, 0xffff, 0xffff,
    ];
    if !may_mount() {
        return;
    }
    let acl = |path: &std::path::Path| {
        let mut value = [0; 128];
        let length = rustix::fs::getxattr(path, "system.posix_acl_access", &mut value);
        length.map(|length| value[..length].to_vec())
    };
    // The second of a pair is made of what was kept ready by the first.
    let cases = [("plain", 0o644), ("again", 0o644), ("tool", 0o4755), ("owned", 0o6755), ("acl", 0o664)];
    for more in ["", ",metacopy=on", ",volatile"] {
        let mut stage = Stage::new();
        let (low, alone) = (stage.path("low"), stage.path("alone"));
        for dir in [&low, &alone] {
            for (name, mode) in cases {
                let path = dir.join(name);
                fs::write(&path, name).expect("a file");
                if name == "owned" {
                    std::os::unix::fs::chown(&path, Some(12), Some(34)).expect("chown");
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            }
            let value: Vec<u8> = ACL.iter().flat_map(|word| word.to_le_bytes()).collect();
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(dir.join("acl"), "system.posix_acl_access", &value, flags)
                .expect("an ACL");
        }
        let options = stage.layers(&["low"], "top") + more;
        let mount = stage.layerfs("m", &options);
        for ((name, _), mode) in cases.into_iter().zip([0o4750, 0o600, 0o2711, 0o6755, 0o640]) {
            for dir in [&mount, &alone] {
                fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
            }
            let of = |dir: &std::path::Path| {
                let meta = fs::metadata(dir.join(name)).expect("stat");
                (format!("{:o}", meta.mode()), meta.uid(), meta.gid(), acl(&dir.join(name)))
            };
            assert_eq!(of(&mount), of(&alone), "{name}{more}");
            assert_eq!(fs::read(mount.join(name)).expect("read"), name.as_bytes(), "{name}{more}");
        }
        stage.unmount(&mount);
        let work = fs::read_dir(stage.path("top/work/work")).expect("the work directory");
        let names = work.map(|entry| entry.expect("an entry").file_name());
        // What whiteouts are links of stays, and what says that the next mount is to look at the copies.
        let left: Vec<_> =
            names.filter(|name| name != "#whiteout" && name != "unsettled").collect();
        assert!(left.is_empty(), "{more}: {left:?} is left");
    }
}

#[test]
fn root_open_files_outlive_copy_up_and_unlink() {
    if !may_mount() {
        return;
    }
    for way in WAYS {
        let mut stage = Stage::new();
        fs::write(stage.path("low").join("f"), "lower").expect("a lower file");
        let options = stage.layers(&["low"], "top") + way;
        let mount = stage.layerfs("m", &options);
        let file = mount.join("f");
        let number = fs::metadata(&file).expect("stat").ino();
        let mut reader = File::open(&file).expect("open before the copy-up");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "lower", "{way}");
        let writer = OpenOptions::new().write(true).open(&file).expect("open for writing");
        writer.write_all_at(b"UPPER", 0).expect("write");
        assert_eq!(fs::read(&file).expect("read"), b"UPPER", "{way}: a new open sees the write");
        assert_eq!(fs::metadata(&file).expect("stat").ino(), number, "{way}: st_ino is kept");
        assert_eq!(reader.metadata().expect("fstat").ino(), number, "{way}: of the fd as well");
        reader.seek(SeekFrom::Start(0)).expect("seek");
        reader.read_to_string(&mut text).expect("the old fd still reads");
        fs::remove_file(&file).expect("unlink");
        writer.write_all_at(b"after", 0).expect("write after unlink");
        assert_eq!(writer.metadata().expect("fstat").nlink(), 0, "{way}: no name is left");
        writer.set_permissions(fs::Permissions::from_mode(0o600)).expect("fchmod after unlink");
        assert_eq!(writer.metadata().expect("fstat").mode() & 0o777, 0o600, "{way}");
        assert!(!file.exists(), "{way}: the name is gone");
        drop((reader, writer));
        stage.unmount(&mount);
    }
}

#[test]
fn root_hard_links_of_a_lower_layer_stay_together() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    fs::write(low.join("a"), "one").expect("a lower file");
    fs::create_dir(low.join("d")).expect("a directory");
    fs::hard_link(low.join("a"), low.join("d/b")).expect("a link");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    fs::write(mount.join("a"), "two!").expect("write through one name");
    let check = |mount: &std::path::Path, when: &str| {
        assert_eq!(fs::read(mount.join("d/b")).expect("read"), b"two!", "{when}");
        let (one, other) = (fs::metadata(mount.join("a")), fs::metadata(mount.join("d/b")));
        let (one, other) = (one.expect("stat"), other.expect("stat"));
        assert_eq!((one.ino(), one.nlink()), (other.ino(), 2), "{when}: {one:?}");
    };
    check(&mount, "at once");
    stage.unmount(&mount);
    let mount = stage.layerfs("m", &options);
    check(&mount, "mounted again");
    fs::remove_file(mount.join("a")).expect("unlink one name");
    assert_eq!(fs::metadata(mount.join("d/b")).expect("stat").nlink(), 1, "one name is left");
    fs::remove_file(mount.join("d/b")).expect("unlink the other");
    assert!(fs::read_dir(mount.join("d")).expect("readdir").next().is_none(), "no name is left");
    stage.unmount(&mount);
    let index = fs::read_dir(stage.path("top/work/index")).expect("the index");
    assert_eq!(index.count(), 0, "the index keeps nothing");
}

#[test]
fn root_space_calls_reach_the_file() {
    if !may_mount() {
        return;
    }
    for way in ["", ",passthrough=0,writeback=0"] {
        let mut stage = Stage::new();
        let low = File::create(stage.path("low").join("sparse")).expect("a lower file");
        low.set_len(4 << 20).expect("a hole");
        low.write_all_at(b"data", 1 << 20).expect("data");
        let options = stage.layers(&["low"], "top") + way;
        let mount = stage.layerfs("m", &options);
        let file = OpenOptions::new().read(true).write(true).open(mount.join("sparse"));
        let file = file.expect("open");
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(1 << 20), "{way}");
        assert!(file.metadata().expect("stat").blocks() < 1024, "{way}: holes stay holes");
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 64 << 10).expect("fallocate");
        let mut target = File::create(mount.join("copy")).expect("create");
        rustix::fs::ftruncate(&target, 8).expect("truncate");
        let (mut from, mut to) = (1 << 20, 2);
        let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &target, Some(&mut to), 4);
        assert_eq!(copied, Ok(4), "{way}: copy_file_range");
        target.flush().expect("flush");
        assert_eq!(fs::read(mount.join("copy")).expect("read"), b"\0\0data\0\0", "{way}");
        file.sync_all().expect("fsync");
        drop((file, target));
        stage.unmount(&mount);
    }
}

#[test]
fn root_what_was_written_is_data_before_it_is_closed() {
    if !may_mount() {
        return;
    }
    for way in ["", ",passthrough=0", ",passthrough=0,writeback=0"] {
        let mut stage = Stage::new();
        let options = stage.layers(&["low"], "top") + way;
        let mount = stage.layerfs("m", &options);
        let writer = File::create(mount.join("f")).expect("create");
        writer.write_all_at(&[7; 8192], 1 << 16).expect("write");
        let reader = File::open(mount.join("f")).expect("open");
        let found = rustix::fs::seek(&reader, rustix::fs::SeekFrom::Data(1 << 16));
        assert_eq!(found, Ok(1 << 16), "{way}: data where it was written");
        let end = rustix::fs::seek(&reader, rustix::fs::SeekFrom::Hole(1 << 16));
        assert_eq!(end, Ok((1 << 16) + 8192), "{way}: up to the end");
        drop((writer, reader));
        stage.unmount(&mount);
    }
}

#[test]
fn root_a_file_without_a_name_can_be_given_one() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    fs::create_dir(stage.path("low").join("d")).expect("a lower directory");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(mount.join("d"), flags, Mode::from_raw_mode(0o640));
    let file = File::from(file.expect("O_TMPFILE"));
    file.write_all_at(b"unnamed", 0).expect("write");
    assert_eq!(file.metadata().expect("fstat").nlink(), 0, "no name yet");
    use std::os::fd::AsRawFd as _;
    let magic = format!("/proc/self/fd/{}", file.as_raw_fd());
    let name = mount.join("d/named");
    rustix::fs::linkat(rustix::fs::CWD, magic, rustix::fs::CWD, &name, AtFlags::SYMLINK_FOLLOW)
        .expect("linkat");
    assert_eq!(fs::read(&name).expect("read"), b"unnamed", "the named file");
    drop(file);
    stage.unmount(&mount);
}

#[test]
fn root_set_id_bits_go_with_a_write_of_another_user() {
    if !may_mount() {
        return;
    }
    for way in WAYS {
        let mut stage = Stage::new();
        let lower = stage.path("low").join("tool");
        fs::write(&lower, "x").expect("a lower file");
        fs::set_permissions(&lower, fs::Permissions::from_mode(0o4777)).expect("chmod");
        let options = stage.layers(&["low"], "top") + way;
        let mount = stage.layerfs("m", &options);
        let tool = mount.join("tool");
        let script = format!("echo more >> {}", tool.display());
        let status = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script])
            .status();
        let Ok(status) = status else { return };
        // Somebody else may not reach the stage below a private temporary directory.
        if status.success() {
            let mode = fs::metadata(&tool).expect("stat").mode();
            assert_eq!(mode & 0o6777, 0o777, "{way}: the set-user-id bit is gone");
        }
        stage.unmount(&mount);
    }
}

#[test]
fn root_the_capabilities_of_a_new_file_are_those_that_it_was_given() {
    if !may_mount() {
        return;
    }
    // CAP_NET_RAW, effective and permitted (struct vfs_ns_cap_data of linux/capability.h, revision 2).
    let given = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let attr = std::ffi::OsStr::new("security.capability");
    for way in WAYS {
        let mut stage = Stage::new();
        let options = stage.layers(&["low"], "top") + way;
        let mount = stage.layerfs("m", &options);
        let root = File::open(&mount).expect("the root");
        let tool = std::ffi::OsStr::new("tool");
        let get = || cow_sys::xattr::get(&root, tool, attr);
        let file = File::create(mount.join("tool")).expect("a new file");
        assert_eq!(get(), Err(Errno::NODATA), "{way}: a new file has none");
        cow_sys::xattr::set(&root, tool, attr, &given).expect("setcap");
        assert_eq!(get().as_deref(), Ok(&given[..]), "{way}: given");
        fs::rename(mount.join("tool"), mount.join("other")).expect("another name");
        fs::hard_link(mount.join("other"), mount.join("tool")).expect("and the old one");
        assert_eq!(get().as_deref(), Ok(&given[..]), "{way}: under another name");
        (&file).write_all(b"changed").expect("a write");
        assert_eq!(get(), Err(Errno::NODATA), "{way}: a write takes them away");
        cow_sys::xattr::set(&root, tool, attr, &given).expect("setcap");
        rustix::fs::fchown(&file, None, Some(rustix::fs::Gid::from_raw(7))).expect("chown");
        assert_eq!(get(), Err(Errno::NODATA), "{way}: as does another owner");
        drop((file, root));
        stage.unmount(&mount);
    }
}

#[test]
fn root_our_marks_are_hidden_and_an_inner_unions_are_kept() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    fs::create_dir_all(low.join("d/e")).expect("lower directories");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    fs::rename(mount.join("d"), mount.join("moved")).expect("a redirect is written");
    let root = File::open(&mount).expect("the root");
    let moved = std::ffi::OsStr::new("moved");
    let list = cow_sys::xattr::list(&root, moved).expect("list");
    assert!(list.is_empty(), "shown: {}", String::from_utf8_lossy(&list));
    let opaque = std::ffi::OsStr::new("trusted.overlay.opaque");
    assert_eq!(cow_sys::xattr::get(&root, moved, opaque), Err(Errno::NODATA), "not ours to see");
    cow_sys::xattr::set(&root, moved, opaque, b"y").expect("an inner union's mark");
    assert_eq!(cow_sys::xattr::get(&root, moved, opaque).as_deref(), Ok(&b"y"[..]), "kept");
    assert!(mount.join("moved/e").exists(), "it does not act on this union");
    drop(root);
    stage.unmount(&mount);
}

#[test]
fn root_without_an_upper_nothing_changes() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    fs::write(stage.path("one").join("f"), "top").expect("a file");
    fs::write(stage.path("two").join("g"), "below").expect("a file");
    for way in WAYS {
        let layers = [stage.path("one"), stage.path("two")];
        let options = format!("lowerdir={}:{}{way}", layers[0].display(), layers[1].display());
        let mount = stage.layerfs("m", &options);
        for (name, content) in [("g", "below"), ("f", "top"), ("g", "below")] {
            let read = fs::read_to_string(mount.join(name)).expect("read");
            assert_eq!(read, content, "{way}: both layers show");
        }
        let mut open = File::open(mount.join("f")).expect("open");
        assert_eq!(open.seek(SeekFrom::End(-1)).expect("seek"), 2, "{way}: a place in the file");
        let mut rest = String::new();
        open.read_to_string(&mut rest).expect("read on");
        assert_eq!(rest, "p", "{way}: from there to the end");
        let error = fs::write(mount.join("f"), "x").expect_err("a write");
        assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{way}: {error}");
        drop(open);
        stage.unmount(&mount);
    }
}

#[test]
fn root_copy_up_keeps_times_and_owner() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let lower = stage.path("low").join("f");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&lower);
    file.expect("a lower file").write_all(b"12345").expect("write");
    std::os::unix::fs::chown(&lower, Some(12), Some(34)).expect("chown");
    let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123);
    File::open(&lower).expect("open").set_modified(then).expect("utimens");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    fs::set_permissions(mount.join("f"), fs::Permissions::from_mode(0o600)).expect("chmod");
    let meta = fs::metadata(mount.join("f")).expect("stat");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (12, 34, 0o600), "{meta:?}");
    assert_eq!(meta.modified().expect("mtime"), then, "the time of the content is kept");
    assert_eq!(fs::read(mount.join("f")).expect("read"), b"12345", "and the content");
    stage.unmount(&mount);
}

#[test]
fn root_a_file_with_several_lower_names_is_there_while_it_is_open() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    for name in ["first", "second"] {
        let low = stage.path("low");
        fs::write(low.join(name), "text").expect("a file");
        for more in ["too", "also"] {
            fs::hard_link(low.join(name), low.join(format!("{name}-{more}"))).expect("its link");
        }
    }
    let options = stage.layers(&["low"], "top");
    for (name, more) in [("first", "passthrough=1"), ("second", "passthrough=0")] {
        let mount = stage.layerfs("m", &format!("{options},{more}"));
        let file = OpenOptions::new().read(true).write(true).open(mount.join(name));
        let file = file.expect("a copy-up");
        let names = [name.to_owned(), format!("{name}-too"), format!("{name}-also")];
        // The one that the upper layer has, and two that only the lower one has.
        for (left, gone) in [(2, &names[0]), (1, &names[1]), (0, &names[2])] {
            fs::remove_file(mount.join(gone)).expect("one name less");
            let mode = 0o600 + left;
            let mode = fs::Permissions::from_mode(mode);
            file.set_permissions(mode).unwrap_or_else(|error| panic!("{more}, {left}: {error}"));
            file.set_len(4 + u64::from(left)).unwrap_or_else(|e| panic!("{more}, {left}: {e}"));
            let meta = file.metadata().unwrap_or_else(|error| panic!("{more}, {left}: {error}"));
            let seen = (meta.nlink(), meta.len(), meta.mode() & 0o777);
            assert_eq!(seen, (left.into(), 4 + u64::from(left), 0o600 + left), "{more}, {left}");
            for name in names.iter().skip(3 - usize::try_from(left).expect("small")) {
                let meta = fs::metadata(mount.join(name)).expect("a name that is left");
                let seen = (meta.nlink(), meta.len(), meta.mode() & 0o777);
                let told = format!("{more}, {left}, {name}");
                assert_eq!(seen, (left.into(), 4 + u64::from(left), 0o600 + left), "{told}");
            }
        }
        drop(file);
        stage.unmount(&mount);
        let index = fs::read_dir(stage.path("top/work").join("work/../index"));
        assert_eq!(index.map(Iterator::count).unwrap_or(0), 0, "{more}: the index is empty again");
    }
}

#[test]
fn root_a_lower_file_without_a_name_is_changed_by_its_fd() {
    if !may_mount() {
        return;
    }
    for way in WAYS {
        let mut stage = Stage::new();
        fs::write(stage.path("low").join("f"), "text").expect("a file");
        let options = stage.layers(&["low"], "top") + way;
        let mount = stage.layerfs("m", &options);
        let root = fs::metadata(&mount).expect("the root").mode();
        let file = File::open(mount.join("f")).expect("a file");
        fs::remove_file(mount.join("f")).expect("its name");
        file.set_permissions(fs::Permissions::from_mode(0o600)).expect("fchmod");
        let meta = file.metadata().expect("fstat");
        assert_eq!((meta.mode() & 0o7777, meta.len()), (0o600, 4), "{way}: the file");
        let mut text = String::new();
        (&file).read_to_string(&mut text).expect("read");
        assert_eq!(text, "text", "{way}: what is in it");
        assert_eq!(fs::metadata(&mount).expect("the root").mode(), root, "{way}: nothing else");
        drop(file);
        stage.unmount(&mount);
    }
}
