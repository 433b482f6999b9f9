//! File systems mounted through fds, from the words that mount(8) uses.
//!
//! A mount is made detached ([`mount_fs`], [`bind`]) and then attached to a directory fd
//! ([`attach`]); until then it belongs to its fd and goes away with it. [`mount_at`] does both for
//! one description (type, source, options) and falls back to mount(2) on kernels without the calls.
//!
//! | feature | Linux | without it |
//! | --- | --- | --- |
//! | `open_tree`, `move_mount` | 5.2 | an error: `openat2` (5.6) is needed anyway |
//! | `fsopen`, `fsmount` | 5.2 | mount(2), where a filter forbids them |
//! | `mount_setattr` | 5.12 | a read-only bind mount is remounted |
//! | overlay: one `lowerdir+` per layer | 6.5 | mount(2), and at most a page of options |
//! | overlay: layers as fds | 6.13 | long paths go through `/proc/self/fd` |

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use crate::mount_attr;

mod options;
mod overlay;

use options::Options;
pub use overlay::split_lowers;

/// A failed mount: which step, on what, and what the kernel said about it.
#[derive(Debug)]
pub struct MountError {
    op: &'static str,
    subject: String,
    messages: Vec<String>,
    source: io::Error,
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, MountError>;

impl MountError {
    fn new(op: &'static str, subject: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { op, subject: subject.into(), messages: Vec::new(), source: source.into() }
    }

    /// The system call that failed.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// What the kernel told through the file system context, without its level letter.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    /// The operating system's error, to be sorted by kind.
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    fn is(&self, errno: Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.op, self.subject, self.source)?;
        if !self.messages.is_empty() {
            write!(f, " ({})", self.messages.join("; "))?;
        }
        Ok(())
    }
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds operation and subject to a bare errno.
trait Explain<T> {
    fn explain(self, op: &'static str, subject: impl Into<String>) -> Result<T>;
}

impl<T> Explain<T> for rustix::io::Result<T> {
    fn explain(self, op: &'static str, subject: impl Into<String>) -> Result<T> {
        self.map_err(|error| MountError::new(op, subject, error))
    }
}

/// A file system context under construction (`fsopen(2)`).
struct Context {
    fd: OwnedFd,
    fstype: String,
}

impl Context {
    fn open(fstype: &str) -> Result<Self> {
        let fd =
            rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).explain("fsopen", fstype)?;
        Ok(Self { fd, fstype: fstype.to_owned() })
    }

    /// Adds what the kernel has logged about this context to a failure.
    fn explain<T>(&self, answer: rustix::io::Result<T>, op: &'static str, what: &str) -> Result<T> {
        answer.map_err(|errno| {
            let mut error = MountError::new(op, format!("{} {what}", self.fstype), errno);
            let mut buffer = [0; 1024];
            // One message a read; ENODATA ends them.
            while let Ok(length) = rustix::io::read(&self.fd, &mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                // "e overlay: text": the first letter is the level.
                error.messages.push(text.trim_end().get(2..).unwrap_or_default().to_owned());
            }
            error
        })
    }

    fn set_string(&self, key: &str, value: &str) -> Result<()> {
        let answer = rustix::mount::fsconfig_set_string(&self.fd, key, value);
        self.explain(answer, "fsconfig", &format!("{key}={value}"))
    }

    fn set(&self, option: &str) -> Result<()> {
        match option.split_once('=') {
            Some((key, value)) => self.set_string(key, value),
            None => {
                self.explain(rustix::mount::fsconfig_set_flag(&self.fd, option), "fsconfig", option)
            }
        }
    }

    fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        self.explain(rustix::mount::fsconfig_create(&self.fd), "fsconfig", "create")?;
        let mount = rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        self.explain(mount, "fsmount", "")
    }
}

/// Mounts a file system without attaching it anywhere.
///
/// Options are words as in fstab, one a string. Those of the mount (`ro`, `nosuid`, `noatime`, ...)
/// are sorted from those of the file system. An overlay's `lowerdir=` is split at its colons (`\:`
/// is a colon of a name, `\\` a backslash) and its `upperdir=` and `workdir=` are taken as they are;
/// there may be as many and as long ones as the kernel stacks (500 since Linux 5.1).
///
/// # Errors
/// `NOSYS` on a kernel without the calls or whose overlay cannot be configured by them: only
/// [`mount_at`] has a way around that. Everything the kernel says about the attempt is in the error.
pub fn mount_fs(fstype: &str, source: &Path, options: &[String]) -> Result<OwnedFd> {
    let options = Options::sort(options);
    let context = Context::open(fstype)?;
    if !source.as_os_str().is_empty() {
        let answer = rustix::mount::fsconfig_set_string(&context.fd, "source", source);
        context.explain(answer, "fsconfig", &format!("source={}", source.display()))?;
    }
    if fstype == "overlay" {
        overlay::configure(&context, &options.fs)?;
    } else {
        options.fs.iter().try_for_each(|option| context.set(option))?;
    }
    options.superblock.iter().try_for_each(|flag| context.set(flag))?;
    context.mount(options.attributes)
}

/// Clones the mount of a path below a directory fd (a bind mount), without attaching it.
///
/// `source` may be a file. An empty path is `dir` itself. With `recursive`, the mounts below come
/// along.
pub fn bind(dir: impl AsFd, source: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(dir, source, flags).explain("open_tree", source.display().to_string())
}

/// Attaches a detached mount on top of a directory (or a file, for a bind mounted file).
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).explain("move_mount", "")
}

/// Makes one mount, as a driver or mount(8) describes it, and attaches it to `target`.
///
/// The type `bind`, or an option `bind` or `rbind`, makes a bind mount of `source`; its other
/// options become properties of the mount, of all the mounts of an `rbind`.
pub fn mount_at(fstype: &str, source: &Path, options: &[String], target: impl AsFd) -> Result<()> {
    mount_mapped_at(fstype, source, options, None, target)
}

/// The same, tried again for `patience` while something is busy.
///
/// Overlayfs with `index=on` refuses the directories of another mount, and a mount that was closed ends a moment
/// later when a program is being started meanwhile: until it is executed, it has copies of all descriptors. A
/// block device is busy while it is frozen for a snapshot.
///
/// # Errors
/// `BUSY` when it stays so, or when a later try fails for something that the first has left: a volatile overlay with a
/// busy lower directory leaves its mark.
pub fn mount_patiently_at(
    fstype: &str,
    source: &Path,
    options: &[String],
    target: impl AsFd,
    patience: Duration,
) -> Result<()> {
    let (target, deadline) = (target.as_fd(), Instant::now() + patience);
    let (mut pause, mut busy) = (Duration::from_millis(1), None);
    loop {
        match mount_at(fstype, source, options, target) {
            Err(error) if error.is(Errno::BUSY) && Instant::now() < deadline => {
                busy = Some(error);
                std::thread::sleep(pause);
            }
            Err(error) => return Err(busy.unwrap_or(error)),
            Ok(()) => return Ok(()),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The same at once, and a bind mount shows ids as the user namespace `id_map` maps them
/// ([`mount_attr::Change::id_map`]).
///
/// # Errors
/// `INVAL` for a file system that cannot be mapped, and for a map of any but a bind mount.
pub fn mount_mapped_at(
    fstype: &str,
    source: &Path,
    options: &[String],
    id_map: Option<BorrowedFd<'_>>,
    target: impl AsFd,
) -> Result<()> {
    let sorted = Options::sort(options);
    let target = target.as_fd();
    if fstype == "bind" || sorted.bind.is_some() {
        return bind_at(source, &sorted, id_map, target);
    }
    if id_map.is_some() {
        return Err(MountError::new("map ids", fstype, Errno::INVAL));
    }
    match mount_fs(fstype, source, options) {
        Ok(mount) => attach(&mount, target),
        Err(error) if error.is(Errno::NOSYS) => {
            let data = if fstype == "overlay" {
                overlay::legacy(&sorted.fs)?
            } else {
                overlay::Legacy { data: sorted.fs.join(","), held: Vec::new() }
            };
            let text = CString::new(data.data.as_str())
                .map_err(|_| MountError::new("mount", fstype, Errno::INVAL))?;
            let flags = sorted.legacy_flags();
            let mounted =
                rustix::mount::mount(source, magic(target), fstype, flags, text.as_c_str());
            drop(data.held);
            mounted.explain("mount", format!("{fstype} {}", data.data))
        }
        Err(error) => Err(error),
    }
}

fn bind_at(
    source: &Path,
    options: &Options<'_>,
    id_map: Option<BorrowedFd<'_>>,
    target: BorrowedFd<'_>,
) -> Result<()> {
    let recursive = options.bind == Some(options::Bind::Recursive);
    let name = || source.display().to_string();
    let mount = bind(CWD, source, recursive)?;
    if options.attributes.is_empty() && id_map.is_none() {
        return attach(&mount, target);
    }
    // The kernel refuses an access time setting that does not clear the old one.
    let atime = MountAttrFlags::MOUNT_ATTR__ATIME;
    let off = if options.attributes.intersects(atime) { atime } else { MountAttrFlags::empty() };
    let nothing = mount_attr::Change::NOTHING;
    let change = mount_attr::Change { on: options.attributes, off, id_map, ..nothing };
    match mount_attr::set(&mount, &change, recursive) {
        Ok(()) => attach(&mount, target),
        Err(Errno::NOSYS) if id_map.is_none() => {
            attach(&mount, target)?;
            let flags = options.legacy_flags() | MountFlags::BIND;
            // The mount's own fd is where it is, now that it is attached.
            rustix::mount::mount_remount(magic(mount.as_fd()), flags, "").explain("remount", name())
        }
        Err(error) => Err(MountError::new("mount_setattr", name(), error)),
    }
}

/// Takes away the mount at a path; `lazily` detaches one that is in use and frees it when it is not.
///
/// # Errors
/// `INVAL` when nothing is mounted there, `BUSY` when it is in use.
pub fn unmount(target: &Path, lazily: bool) -> Result<()> {
    let lazily = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | lazily)
        .explain("umount", target.display().to_string())
}

/// The `/proc` name of an fd's file.
fn magic(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests;
