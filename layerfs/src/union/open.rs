//! Opening the layers of a mount, and clearing what an earlier mount left in the work directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cow::unsettled::{Found, RECORD, Record};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::detach::Times;
use super::marks::Prefix;
use super::unsettled::{Unsettled, keeps_handles};
use super::{FdCache, Layer, Overrides, Owned, RealDir, Union, Work};
use crate::error::{Error, Result};
use crate::options::Options;

/// How long the mount before may take to let go of its copies.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fds that are left for requests in flight, channels and open files.
const RESERVE: u64 = 256;

fn open_path(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::ACCESS) => rustix::fs::open(path, flags | OFlags::PATH, Mode::empty()),
        answer => answer,
    }
    .map_err(|error| Error::sys("open", path, error))
}

/// Opens a layer that is only read.
fn open_layer(path: &Path) -> Result<OwnedFd> {
    let fd = open_path(path)?;
    let detached = super::detach::detached(&[(&fd, path)], Times::NEVER);
    Ok(detached.and_then(|mut fds| fds.pop()).unwrap_or(fd))
}

/// Opens the layer that takes changes and its work directory, between which files are renamed.
fn open_pair(upper: &Path, work: &Path, times: Times) -> Result<(OwnedFd, OwnedFd)> {
    let fds = (open_path(upper)?, open_path(work)?);
    let detached = super::detach::detached(&[(&fds.0, upper), (&fds.1, work)], times);
    Ok(match detached.and_then(|fds| <[OwnedFd; 2]>::try_from(fds).ok()) {
        Some([upper, work]) => (upper, work),
        None => fds,
    })
}

fn device(fd: impl AsFd, path: &Path) -> Result<u64> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        .map_err(|error| Error::sys("statx", path, error))?;
    Ok(rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor))
}

pub(super) fn open(options: &Options) -> Result<Union> {
    options.check()?;
    let mut file_systems: Vec<u64> = Vec::new();
    let mut layers = Vec::new();
    let writable = options.upper.is_some() && !options.read_only;
    let (upper, work_base) = match (&options.upper, &options.work) {
        (Some(upper), Some(work)) if writable => {
            let (upper, work) = open_pair(upper, work, options.times)?;
            (Some(upper), Some(work))
        }
        (Some(upper), _) => (Some(open_layer(upper)?), None),
        _ => (None, None),
    };
    let lower = options.lower.iter().chain(&options.data);
    let lower = lower.map(|path| open_layer(path).map(|fd| (path, fd)));
    let all = options.upper.iter().zip(upper).map(Ok).chain(lower);
    for (index, layer) in all.enumerate() {
        let (path, fd) = layer?;
        let dev = device(&fd, path)?;
        let fs = file_systems.iter().position(|known| *known == dev).unwrap_or_else(|| {
            file_systems.push(dev);
            file_systems.len() - 1
        });
        let uuid = cow_sys::handle::file_system_uuid(&fd).unwrap_or_default();
        let handles = writable && uuid != <[u8; 16]>::default() && keeps_handles(&fd);
        let index = u16::try_from(index).map_err(|_| Error::option("too many layers"))?;
        let fs = u16::try_from(fs).map_err(|_| Error::option("too many file systems"))?;
        let overrides = match options.xattr_permissions {
            Some(wanted) if index == 0 && options.upper.is_some() => {
                if writable {
                    mark_root(&fd, path, wanted)?;
                }
                Some(wanted)
            }
            _ => Overrides::of(&fd),
        };
        layers.push(Layer { root: RealDir::root(index, fd), dev, fs, uuid, overrides, handles });
    }
    let (work, prefix) = match (&options.work, work_base, &layers[..]) {
        (Some(path), Some(base), [_, ..]) => {
            let (work, prefix) = open_work(options, path, &base, &layers)?;
            (Some(work), prefix)
        }
        _ => {
            let prefix = readable_prefix(options);
            mend_read_only(options, &layers)?;
            (None, prefix)
        }
    };
    read_root_marks(options, &layers, prefix)?;
    let ordered = Order::of(&layers[0])?;
    let unsettled = match &work {
        Some(work) if ordered == Order::Unwritten && settles(options, prefix) => {
            Unsettled::new(&work.dir, prefix.name("origin"), options.patience)
        }
        _ => None,
    };
    Ok(Union {
        merged: layers.len() - options.data.len(),
        work,
        prefix,
        fds: FdCache::new(fd_budget()),
        redirects: options.redirects,
        sync: !options.volatile,
        ordered: ordered != Order::None,
        index: options.index,
        copier: match options.volatile || unsettled.is_some() {
            true => cow::copy::Copier::new(),
            false => cow::copy::Copier::writing_early(),
        },
        unsettled,
        xino: options.xino,
        file_systems: Mutex::new(file_systems),
        layers,
    })
}

/// Learns which layers have whiteouts by attribute in their roots; of other directories a lookup says so.
fn read_root_marks(options: &Options, layers: &[Layer], prefix: Prefix) -> Result<()> {
    let paths = options.upper.iter().chain(&options.lower).chain(&options.data);
    for (layer, path) in layers.iter().zip(paths) {
        let Some(fd) = layer.root.open_fd() else { continue };
        let marks = super::marks::of_dir(prefix, &fd, OsStr::new(""))
            .map_err(|error| Error::sys("listxattr", path, error))?;
        layer.root.attr_whiteouts.store(marks.attr_whiteouts, Ordering::Relaxed);
    }
    Ok(())
}

/// Marks an upper layer as one that keeps owners and modes in attributes.
fn mark_root(root: &OwnedFd, path: &Path, kind: Overrides) -> Result<()> {
    let here = OsStr::new("");
    if cow_sys::xattr::get(root, here, kind.attr()).is_ok() {
        return Ok(());
    }
    let failed = |error: Errno| Error::sys("setxattr (xattr_permissions)", path, error);
    let stat = super::merge::stat(root, here).map_err(failed)?;
    let value = Owned::of(&stat).text(kind);
    cow_sys::xattr::set(root, here, kind.attr(), value.as_bytes()).map_err(failed)
}

/// Whether copies may have their names before the disk has their data, as far as that is for the options to say.
fn settles(options: &Options, prefix: Prefix) -> bool {
    !options.volatile && !options.settled && prefix == Prefix::Trusted
}

/// What the top layer's file system records of a file's data, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Nothing that is known.
    None,
    /// The extents when the data is written, so that a later rename cannot be recorded before them: a journal
    /// keeps that order.
    Extents,
    /// The same, and no extent is ever recorded as written before its data is on the disk.
    Unwritten,
}

impl Order {
    fn of(upper: &Layer) -> Result<Self> {
        const EXT4_SUPER_MAGIC: u64 = 0xef53;
        const XFS_SUPER_MAGIC: u64 = 0x5846_5342;
        let fd = upper.root.open_fd();
        let stat = rustix::fs::fstatfs(&*fd.ok_or_else(|| Error::refused("", "a closed root"))?)
            .map_err(|error| Error::sys("fstatfs", "", error))?;
        Ok(match u64::try_from(stat.f_type) {
            Ok(EXT4_SUPER_MAGIC) => {
                disk_name(upper.dev).map_or(Self::None, |disk| Self::of_ext4(&disk))
            }
            Ok(XFS_SUPER_MAGIC) => Self::Unwritten,
            _ => Self::None,
        })
    }

    /// That of an ext4, which needs a journal, and in itself: one on another disk does not wait for this one's
    /// cache.
    ///
    /// It may be made without, and ext2 has the same magic number. `/proc/fs/jbd2/DISK-8` is there for a
    /// journal in the inode that is reserved for it (`jbd2_journal_init_inode`).
    fn of_ext4(disk: &str) -> Self {
        if !Path::new("/proc/fs/jbd2").join(format!("{disk}-8")).exists() {
            return Self::None;
        }
        // With data=writeback an extent can be recorded while it holds what was there before.
        let options =
            std::fs::read_to_string(Path::new("/proc/fs/ext4").join(disk).join("options"));
        let options = options.unwrap_or_default();
        let has = |wanted: &[&str]| options.lines().any(|line| wanted.contains(&line));
        // Without dioread_nolock (blocks smaller than a page), a part of an extent that was allocated at once and
        // not written yet may be filled with zeros and recorded as written.
        match has(&["data=ordered", "data=journal"]) && has(&["dioread_nolock"]) {
            true => Self::Unwritten,
            false => Self::Extents,
        }
    }
}

/// What the kernel calls the disk with this number.
fn disk_name(dev: u64) -> Option<String> {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let disk = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(disk.file_name()?.to_string_lossy().into_owned())
}

/// Raises the soft limit of open files to the hard one, and leaves a part of it for what is not a
/// directory of the layers.
fn fd_budget() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let current = current.unwrap_or(1 << 20);
    usize::try_from((current.saturating_sub(RESERVE) / 2).clamp(64, 16_384)).unwrap_or(64)
}

/// The prefix that a read-only mount believes: what root wrote, unless this is not root.
fn readable_prefix(options: &Options) -> Prefix {
    if options.userxattr || !rustix::process::geteuid().is_root() {
        return Prefix::User;
    }
    Prefix::Trusted
}

/// Which marks can be written, found by writing one.
fn writable_prefix(options: &Options, work: &OwnedFd) -> Prefix {
    let probe = Prefix::Trusted.name("probe");
    let here = OsStr::new("");
    if !options.userxattr && cow_sys::xattr::set(work, here, &probe, b"y").is_ok() {
        let _ = cow_sys::xattr::remove(work, here, &probe);
        return Prefix::Trusted;
    }
    Prefix::User
}

fn open_work(
    options: &Options,
    path: &Path,
    base: &OwnedFd,
    layers: &[Layer],
) -> Result<(Work, Prefix)> {
    let dev = device(base, path)?;
    if layers.first().is_none_or(|upper| upper.dev != dev) {
        return Err(Error::refused(path, "the work directory is not on the upper's file system"));
    }
    if base_holds_upper(options) {
        return Err(Error::refused(path, "the work directory lies inside of the upper directory"));
    }
    if rustix::fs::statat(base, "work/incompat/volatile", AtFlags::empty()).is_ok() {
        return Err(Error::refused(
            path,
            "an earlier mount was volatile; remove work/incompat/volatile if the machine did not \
             crash since",
        ));
    }
    let dir = make_dir(base, "work", path)?;
    let prefix = writable_prefix(options, &dir);
    mend(options, &dir, layers)?;
    clear(&dir, path)?;
    let index = match options.index {
        true => Some(RealDir::root(0, make_dir(base, "index", path)?)),
        false => None,
    };
    Ok((Work::new(dir, index), prefix))
}

/// Makes the copies whole that an earlier mount did not see on the disk, if it left any.
fn mend(options: &Options, work: &OwnedFd, layers: &[Layer]) -> Result<()> {
    let (Some(path), Some((upper, lowers))) = (&options.work, layers.split_first()) else {
        return Ok(());
    };
    let deadline = Instant::now() + PATIENCE;
    let record = loop {
        match Record::find(work)
            .map_err(|error| Error::sys("open", path.join("work").join(RECORD), error))?
        {
            Found::None => return Ok(()),
            // Another mount is there that finishes it, and changes nothing here meanwhile.
            Found::Held if options.read_only => return Ok(()),
            Found::Left(record) => break record,
            Found::Held if Instant::now() > deadline => {
                let reason =
                    "an earlier mount is still there, and has copies that are not on the disk";
                return Err(Error::refused(path, reason));
            }
            Found::Held => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if !crate::ids::is_first_user_namespace() {
        let reason = "copies of an earlier mount may not be whole, which only one by root can mend";
        return Err(Error::refused(path, reason));
    }
    let fd = upper.root.open_fd().and_then(|fd| fd.try_clone().ok());
    let fd = fd.ok_or_else(|| Error::refused(path, "a closed root"))?;
    let root = cow::root::Root::from_fd(fd, options.upper.as_deref().unwrap_or(path));
    let lowers: Vec<_> = lowers.iter().filter_map(|layer| layer.root.open_fd()).collect();
    // Whatever marks this mount writes, these were root's.
    let origin = Prefix::Trusted.name("origin");
    let count = cow::unsettled::mend(&root, &record, &lowers, &origin)
        .map_err(|error| Error::refused(path, error.to_string()))?;
    record
        .forget(work)
        .map_err(|error| Error::sys("unlink", path.join("work").join(RECORD), error))?;
    tracing::info!(count, "copies that the last mount had not seen on the disk are whole");
    Ok(())
}

/// The same for a mount that changes nothing itself: as with a journal, what was begun is finished all the same,
/// unless the file system can only be read.
fn mend_read_only(options: &Options, layers: &[Layer]) -> Result<()> {
    let Some(path) = options.work.as_ref().filter(|_| options.upper.is_some()) else {
        return Ok(());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // No mount that could have left anything has been here.
    let Ok(work) = rustix::fs::open(path.join("work"), flags, Mode::empty()) else { return Ok(()) };
    let can_only_be_read = rustix::fs::fstatvfs(&work)
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    if can_only_be_read {
        let path = path.display();
        if matches!(Record::find(&work), Ok(Found::Left(_))) {
            tracing::warn!(%path, "copies of the last mount may not be whole, and cannot be mended here");
        }
        return Ok(());
    }
    mend(options, &work, layers)
}

fn base_holds_upper(options: &Options) -> bool {
    let (Some(upper), Some(work)) = (&options.upper, &options.work) else { return false };
    match (upper.canonicalize(), work.canonicalize()) {
        (Ok(upper), Ok(work)) => work.starts_with(&upper) || upper.starts_with(&work),
        _ => false,
    }
}

fn make_dir(base: &OwnedFd, name: &str, path: &Path) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(base, name, Mode::empty()) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(Error::sys("mkdir", path.join(name), error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(base, name, flags, Mode::empty()) {
        // Without CAP_DAC_OVERRIDE a directory of mode 0 is closed even to its owner.
        Err(Errno::ACCESS) => {
            let _ = rustix::fs::chmodat(base, name, Mode::RWXU, AtFlags::empty());
            rustix::fs::openat(base, name, flags, Mode::empty())
        }
        answer => answer,
    };
    let dir = opened.map_err(|error| Error::sys("open", path.join(name), error))?;
    // What is made here would inherit from the directory above, and keep that where it is moved to.
    for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
        let _ = cow_sys::xattr::remove(&dir, OsStr::new(""), OsStr::new(acl));
    }
    Ok(dir)
}

/// Removes what a mount that ended badly left unfinished.
fn clear(dir: &OwnedFd, path: &Path) -> Result<()> {
    let failed = |error: Errno| Error::sys("clear", path, error);
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    for name in names {
        remove_tree(dir, OsStr::new(&*name.to_string_lossy())).map_err(failed)?;
    }
    Ok(())
}

/// Removes a name and everything below it; what is not there is removed.
pub(super) fn remove_tree(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let inner = rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&inner)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    for name in names {
        use std::os::unix::ffi::OsStrExt as _;
        remove_tree(&inner, OsStr::from_bytes(name.to_bytes()))?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
