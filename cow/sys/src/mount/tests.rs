use std::fs;
use std::path::PathBuf;

use super::options::Bind;
use super::*;

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Says why a test that must mount cannot, and fails where CI promised that it can.
fn can_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    let overlay =
        fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("overlay"));
    if !(root && overlay) {
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "needs root, overlay");
        println!("skipped: needs root and overlay");
    }
    root && overlay
}

/// Unmounts what nobody uses but a child of another test, which has copies of all that is open until it runs its
/// program.
fn unmount_unused(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = unmount(path, false) {
        assert!(error.is(Errno::BUSY) && Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn through(mount: &OwnedFd, path: &str) -> PathBuf {
    Path::new(&magic(mount.as_fd())).join(path)
}

#[test]
fn lowerdir_is_split_at_unescaped_colons() {
    let cases: [(&str, &[&str]); 6] = [
        ("/a", &["/a"]),
        ("/a:/b:/c", &["/a", "/b", "/c"]),
        (r"/a\:b:/c", &["/a:b", "/c"]),
        (r"/a\\:/b", &[r"/a\", "/b"]),
        (r"/a\,b:/c", &["/a,b", "/c"]),
        (r"/a\", &["/a"]),
    ];
    for (value, expected) in cases {
        assert_eq!(split_lowers(value), expected, "{value}");
    }
}

#[test]
fn options_are_sorted_by_whom_they_concern() {
    let given = words("ro nosuid rbind noatime index=off relatime rw dirsync");
    let options = Options::sort(&given);
    assert_eq!(options.attributes, MountAttrFlags::MOUNT_ATTR_NOSUID, "later words override");
    assert_eq!(options.superblock, ["dirsync"]);
    assert_eq!(options.fs, ["index=off"]);
    assert_eq!(options.bind, Some(Bind::Recursive));
    assert_eq!(options.legacy_flags(), MountFlags::NOSUID | MountFlags::DIRSYNC);
}

#[test]
fn legacy_options_are_shortened_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("n".repeat(200));
    fs::create_dir(&long).unwrap();
    let long = long.to_str().unwrap();
    let lowers = |count| format!("lowerdir={}", vec![long; count].join(":"));
    let short = legacy_of(&lowers(2)).unwrap();
    assert!(short.held.is_empty() && short.data.ends_with(",index=off"), "{}", short.data);
    let shortened = legacy_of(&lowers(60)).unwrap();
    assert_eq!(shortened.held.len(), 60);
    assert!(shortened.data.starts_with("lowerdir=/proc/self/fd/"), "{}", shortened.data);
    assert!(legacy_of(&lowers(300)).is_err_and(|error| error.is(Errno::NAMETOOLONG)));
}

fn legacy_of(lowers: &str) -> Result<overlay::Legacy> {
    overlay::legacy(&[lowers, "index=off"])
}

#[test]
fn overlay_of_many_and_long_lowers() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("n".repeat(250)).join(r"odd:\name, with everything");
    let mut lowers = Vec::new();
    for number in 0..450 {
        let lower = deep.join(format!("l{number}"));
        fs::create_dir_all(&lower).unwrap();
        fs::write(lower.join(format!("file{number}")), "x").unwrap();
        fs::write(lower.join("top"), format!("{number}")).unwrap();
        lowers.push(lower.to_str().unwrap().replace('\\', r"\\").replace(':', r"\:"));
    }
    let (upper, work) = (deep.join("upper"), deep.join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let options = [
        format!("lowerdir={}", lowers.join(":")),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
        "nosuid".to_owned(),
    ];
    let mount = mount_fs("overlay", Path::new("overlay"), &options).unwrap();
    assert_eq!(fs::read_to_string(through(&mount, "top")).unwrap(), "0", "the first is uppermost");
    assert_eq!(fs::read_dir(through(&mount, "")).unwrap().count(), 451);
    fs::write(through(&mount, "new"), "y").unwrap();
    assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "y");
}

#[test]
fn a_refused_overlay_says_why() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let option = |text: &str| text.replace('D', dir.path().to_str().unwrap());
    let missing = [option("lowerdir=D/missing")];
    let error = mount_fs("overlay", Path::new("overlay"), &missing).unwrap_err();
    assert!(error.is(Errno::NOENT), "{error}");
    assert!(error.to_string().contains("/missing"), "{error}");

    let unknown = [option("lowerdir=D"), "no_such=1".to_owned()];
    let error = mount_fs("overlay", Path::new("overlay"), &unknown).unwrap_err();
    assert!(error.messages().iter().any(|text| text.contains("no_such")), "{error}");
}

#[test]
fn bind_mounts_are_attached_and_read_only_where_asked() {
    if !can_mount() {
        return;
    }
    // A mount namespace of this thread alone, which ends with the thread.
    let flags = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS;
    // SAFETY: neither flag affects fds or memory.
    unsafe { rustix::thread::unshare_unsafe(flags) }.unwrap();
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    for (fstype, options, writable) in
        [("bind", "rw noatime", true), ("none", "rbind ro", false), ("bind", "ro nosuid", false)]
    {
        let fd = fs::File::open(&target).unwrap();
        mount_at(fstype, &source, &words(options), &fd).unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "x", "{options}");
        assert_eq!(fs::write(target.join("file"), "x").is_ok(), writable, "{options}");
        unmount_unused(&target);
        assert!(!target.join("file").exists(), "{options}");
    }
    assert!(unmount(&target, false).is_err_and(|error| error.is(Errno::INVAL)));

    let fd = fs::File::open(&target).unwrap();
    mount_at("tmpfs", Path::new("tmpfs"), &words("size=1m mode=0700 noexec"), &fd).unwrap();
    fs::write(target.join("file"), "y").unwrap();
    unmount(&target, true).unwrap();
}

#[test]
fn an_id_mapped_clone_shifts_owners() {
    use std::os::unix::fs::MetadataExt as _;
    if !can_mount() {
        return;
    }
    let mut child = std::process::Command::new("unshare")
        .args(["--user", "sh", "-c", "echo ready; read end"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    fs::write(process.join("uid_map"), "0 100000 65536").unwrap();
    fs::write(process.join("gid_map"), "0 100000 65536").unwrap();
    let namespace = fs::File::open(process.join("ns/user")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    let mount = bind(CWD, dir.path(), false).unwrap();
    let change =
        mount_attr::Change { id_map: Some(namespace.as_fd()), ..mount_attr::Change::READ_ONLY };
    let answer = mount_attr::set(&mount, &change, true);
    drop(child.stdin.take());
    child.wait().unwrap();
    answer.unwrap();
    assert_eq!(fs::metadata(through(&mount, "file")).unwrap().uid(), 100_000);
    assert!(fs::write(through(&mount, "file"), "y").is_err(), "read-only");
}
