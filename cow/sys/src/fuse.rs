//! The ioctls of `/dev/fuse` (`linux/fuse.h`): cloned devices and passthrough's backing files; and the
//! module's switch for io_uring.

use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::opcode;

/// `FUSE_DEV_IOC_MAGIC`.
const MAGIC: u8 = 229;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

fn ioctl<T>(device: BorrowedFd<'_>, code: rustix::ioctl::Opcode, argument: &mut T) -> Result<i32> {
    // SAFETY: the device is open for as long as it is borrowed; every caller below pairs the code
    // with the argument type that the code's size field names, and `argument` is exclusively
    // borrowed for the call.
    let answer =
        unsafe { libc::ioctl(device.as_raw_fd(), libc::Ioctl::from(code), &raw mut *argument) };
    if answer < 0 {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(code));
    }
    Ok(answer)
}

/// `FUSE_DEV_IOC_CLONE` - Makes `fresh`, a newly opened `/dev/fuse`, a second channel of `session`.
///
/// # Errors
/// `INVAL` when `session` is not mounted, or `fresh` is a channel already.
pub fn clone_device(session: impl AsFd, fresh: impl AsFd) -> Result<()> {
    let mut source = u32::try_from(session.as_fd().as_raw_fd()).map_err(|_| Errno::BADF)?;
    ioctl(fresh.as_fd(), opcode::read::<u32>(MAGIC, 0), &mut source).map(drop)
}

/// `FUSE_DEV_IOC_BACKING_OPEN` - Registers a file that open files of the mount may read and write
/// without the server, and returns its id.
///
/// # Errors
/// `PERM` without CAP_SYS_ADMIN, `LOOP` when the file lies on too deep a stack of file systems,
/// `OPNOTSUPP` and `NOTTY` where the kernel lacks passthrough.
pub fn open_backing(device: impl AsFd, file: impl AsFd) -> Result<u32> {
    let mut map = BackingMap { fd: file.as_fd().as_raw_fd(), flags: 0, padding: 0 };
    let id = ioctl(device.as_fd(), opcode::write::<BackingMap>(MAGIC, 1), &mut map)?;
    u32::try_from(id).map_err(|_| Errno::INVAL)
}

/// `FUSE_DEV_IOC_BACKING_CLOSE` - Gives an id back; files that are open with it keep working.
///
/// # Errors
/// `NOENT` when the id is unknown.
pub fn close_backing(device: impl AsFd, id: u32) -> Result<()> {
    let mut id = id;
    ioctl(device.as_fd(), opcode::write::<u32>(MAGIC, 2), &mut id).map(drop)
}

/// Whether mounts made from now on are offered requests over io_uring (Linux 6.14).
const ENABLE_URING: &str = "/sys/module/fuse/parameters/enable_uring";

/// Lets the kernel offer requests over io_uring to every FUSE mount made from now on.
///
/// This is a setting of the whole machine, off by default: a program may call this only where its
/// configuration asks for it. Mounts that are there are not disturbed, neither by this nor when somebody
/// switches it off again.
///
/// # Errors
/// `NotFound` where the kernel does not have it, or the module `fuse` is not loaded yet;
/// `PermissionDenied` without privilege.
pub fn enable_uring() -> std::io::Result<()> {
    if std::fs::read(ENABLE_URING)?.starts_with(b"Y") {
        return Ok(());
    }
    // Never made where it is missing.
    std::fs::File::options().write(true).open(ENABLE_URING)?.write_all(b"Y")
}
