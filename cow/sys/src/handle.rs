//! File handles: names of inodes that outlive renames (`name_to_handle_at(2)`), and the identity of
//! the file system that gave them.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};
use rustix::path::Arg as _;

/// The longest handle that Linux gives (`MAX_HANDLE_SZ`).
const MAX: usize = 128;

/// A file handle: what the file system itself calls one of its inodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// The format of the bytes, private to the file system.
    pub kind: i32,
    /// The bytes, private to the file system.
    pub bytes: Vec<u8>,
}

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct Raw {
    length: u32,
    kind: i32,
    bytes: [u8; MAX],
}

/// `name_to_handle_at(2)` - Reads the handle of a name below `dir`, without following it; an empty
/// name is `dir` itself.
///
/// # Errors
/// `OPNOTSUPP` when the file system has no handles.
pub fn of(dir: impl AsFd, name: &OsStr) -> Result<FileHandle> {
    let dir = dir.as_fd().as_raw_fd();
    let flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    name.into_with_c_str(|name| {
        let mut raw = Raw { length: MAX as u32, kind: 0, bytes: [0; MAX] };
        let mut mount = 0;
        // SAFETY: `name` is NUL-terminated; `raw` says how many bytes follow its header and the
        // kernel writes no more than that; `mount` is one int.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                dir,
                name.as_ptr(),
                &raw mut raw,
                &raw mut mount,
                flags,
            )
        };
        if answer < 0 {
            let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            return Err(Errno::from_raw_os_error(code));
        }
        let length = (raw.length as usize).min(MAX);
        Ok(FileHandle { kind: raw.kind, bytes: raw.bytes[..length].to_vec() })
    })
}

/// `open_by_handle_at(2)` - Opens the inode that a handle names, on the mount that `mount` is open on;
/// the file is closed on exec.
///
/// # Errors
/// `STALE` when there is no such inode any more; `PERM` without CAP_DAC_READ_SEARCH.
pub fn open(mount: impl AsFd, handle: &FileHandle, flags: OFlags) -> Result<OwnedFd> {
    let mut raw = Raw { length: 0, kind: handle.kind, bytes: [0; MAX] };
    raw.bytes.get_mut(..handle.bytes.len()).ok_or(Errno::INVAL)?.copy_from_slice(&handle.bytes);
    raw.length = u32::try_from(handle.bytes.len()).map_err(|_| Errno::INVAL)?;
    let flags = (flags | OFlags::CLOEXEC).bits();
    // SAFETY: `raw` says how many bytes follow its header, all of which are there; the kernel reads them
    // alone.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_fd().as_raw_fd(),
            &raw const raw,
            libc::c_ulong::from(flags),
        )
    };
    if fd < 0 {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(code));
    }
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the call gave this file to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct fsuuid2` of `linux/fs.h`.
#[repr(C)]
struct Uuid {
    length: u8,
    bytes: [u8; 16],
}

/// `FS_IOC_GETFSUUID` - Reads the identity of the file system that holds `file`.
///
/// # Errors
/// `NOTTY` when the file system has none or the kernel is older than 6.9.
pub fn file_system_uuid(file: impl AsFd) -> Result<[u8; 16]> {
    let mut uuid = Uuid { length: 0, bytes: [0; 16] };
    let code = rustix::ioctl::opcode::read::<Uuid>(0x15, 0);
    // SAFETY: the code names the size of `Uuid`, which is exclusively borrowed for the call.
    let answer =
        unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::Ioctl::from(code), &raw mut uuid) };
    match answer {
        0 if uuid.length == 16 => Ok(uuid.bytes),
        _ => Err(Errno::NOTTY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_opens_the_file_that_it_was_read_from() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("f"), "x").expect("a file");
        let root = std::fs::File::open(dir.path()).expect("open");
        let Ok(handle) = of(&root, OsStr::new("f")) else { return };
        std::fs::rename(dir.path().join("f"), dir.path().join("g")).expect("rename");
        if let Err(error) = open(&root, &handle, OFlags::RDONLY) {
            assert_eq!(error, Errno::PERM, "what only CAP_DAC_READ_SEARCH allows");
            return;
        }
        let file = open(&root, &handle, OFlags::RDONLY).expect("opened by its handle");
        let ino = |stat: rustix::fs::Stat| stat.st_ino;
        let found = rustix::fs::statat(&root, "g", rustix::fs::AtFlags::empty()).map(ino);
        assert_eq!(rustix::fs::fstat(&file).map(ino), found, "the same file under its new name");
        let long = FileHandle { kind: handle.kind, bytes: vec![0; MAX + 1] };
        assert_eq!(open(&root, &long, OFlags::RDONLY).err(), Some(Errno::INVAL), "no such handle");
    }
}
