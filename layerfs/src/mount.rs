//! Attaching a file system to a directory, and taking it off.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::error::{Error, Result};
use crate::options::{Allow, Options};

/// The set-uid program that mounts for those who may not.
const FUSERMOUNT: &str = "fusermount3";

/// A mounted file system.
#[derive(Debug)]
pub struct Mounted {
    /// The channel to the kernel.
    pub device: Arc<OwnedFd>,
    /// Where it is mounted.
    pub point: PathBuf,
}

fn flags(options: &Options) -> MountFlags {
    let mut flags = MountFlags::empty();
    for name in &options.flags {
        let (flag, set) = match name.as_str() {
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "nosymfollow" => (MountFlags::NOSYMFOLLOW, true),
            "symfollow" => (MountFlags::NOSYMFOLLOW, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "nostrictatime" => (MountFlags::STRICTATIME, false),
            "relatime" => (MountFlags::RELATIME, true),
            "norelatime" => (MountFlags::RELATIME, false),
            "diratime" => (MountFlags::NODIRATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "dirsync" => (MountFlags::DIRSYNC, true),
            _ => continue,
        };
        flags.set(flag, set);
    }
    if options.read_only || options.upper.is_none() && !options.remount {
        flags |= MountFlags::RDONLY;
    }
    flags
}

/// Mounts on `point`; the caller answers the handshake at once, for everybody who looks at the mount
/// waits for it.
///
/// # Errors
/// What mount(2) or `fusermount3` say.
pub fn mount(options: &Options, point: &Path) -> Result<Mounted> {
    let point = point.canonicalize().map_err(|error| Error::sys("open", point, error))?;
    let device = match direct(options, &point) {
        Err(Error::Sys { source, .. })
            if matches!(Errno::from_io_error(&source), Some(Errno::PERM | Errno::ACCESS)) =>
        {
            through_helper(options, &point)?
        }
        answer => answer?,
    };
    Ok(Mounted { device: Arc::new(device), point })
}

/// Gives the mount on `point` the flags that the options name, as `mount -o remount` asks for; it is the
/// kernel that heeds them, and the options of the layers stay as they are.
///
/// What was written is on the disk when a mount is read-only, as anywhere. The kernel asks no FUSE server
/// for that, and only the server knows which file system the upper layer is on: all are synced.
///
/// # Errors
/// What mount(2) says.
pub fn remount(options: &Options, point: &Path) -> Result<()> {
    let point = point.canonicalize().map_err(|error| Error::sys("open", point, error))?;
    let flags = flags(options);
    rustix::mount::mount_remount(&point, flags, c"")
        .map_err(|error| Error::sys("remount", &point, error))?;
    if flags.contains(MountFlags::RDONLY) {
        rustix::fs::sync();
    }
    Ok(())
}

fn direct(options: &Options, point: &Path) -> Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::sys("open", "/dev/fuse", error))?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if options.allow != Allow::Owner {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).map_err(|_| Error::option("a NUL byte"))?;
    let source = options.source.as_deref().unwrap_or("layerfs");
    rustix::mount::mount(source, point, "fuse.layerfs", flags(options), data.as_c_str())
        .map_err(|error| Error::sys("mount", point, error))?;
    Ok(device)
}

fn through_helper(options: &Options, point: &Path) -> Result<OwnedFd> {
    let allow = options.allow == Allow::Other;
    match helper(options, point, options.allow != Allow::Owner) {
        // Everybody may be let in only where /etc/fuse.conf says so.
        Err(_) if !allow => helper(options, point, false),
        answer => answer,
    }
}

fn helper(options: &Options, point: &Path, allow_other: bool) -> Result<OwnedFd> {
    let failed = |error: std::io::Error| Error::sys(FUSERMOUNT, point, error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())
        .map_err(|error| failed(error.into()))?;
    let mut words = vec![
        if flags(options).contains(MountFlags::RDONLY) { "ro" } else { "rw" }.to_owned(),
        format!("fsname={}", options.source.as_deref().unwrap_or("layerfs")),
        "subtype=layerfs".to_owned(),
        "default_permissions".to_owned(),
    ];
    words.extend(options.flags.iter().filter(|word| word.starts_with("no")).cloned());
    if allow_other {
        words.push("allow_other".to_owned());
    }
    let child = Command::new(FUSERMOUNT)
        .args(["-o", &words.join(","), "--"])
        .arg(point)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    drop(theirs);
    let device = receive(&ours);
    let output = child.wait_with_output().map_err(failed)?;
    match device {
        Ok(Some(device)) => Ok(device),
        Ok(None) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Error::refused(point, format!("{FUSERMOUNT}: {said}")))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// Takes the device that the helper sends.
fn receive(socket: &UnixStream) -> std::result::Result<Option<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            return Ok(fds.next());
        }
    }
    Ok(None)
}

/// Takes a mount off its directory; one that is in use stays with its users until they are done.
///
/// # Errors
/// What umount(2) and `fusermount3` say.
pub fn unmount(point: &Path) -> Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => return Ok(()),
        Err(_) => {}
    }
    let lazily = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
    if rustix::mount::unmount(point, lazily).is_ok() {
        return Ok(());
    }
    let status = Command::new(FUSERMOUNT).args(["-u", "-z", "--"]).arg(point).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Error::refused(point, "cannot be unmounted")),
        Err(error) => Err(Error::sys(FUSERMOUNT, point, error)),
    }
}
