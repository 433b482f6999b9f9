//! Extended attributes of a name below a directory fd, without following it.
//!
//! Linux 6.13 has `getxattrat(2)` and its kin; older kernels reach the same file through
//! `/proc/self/fd/N/NAME` and the `l*xattr(2)` calls. Which of the two this kernel has is found out
//! once. An empty name means the fd itself, which may be an `O_PATH` fd, even of a symbolic link.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// The longest list of names and the longest value that Linux stores (`XATTR_LIST_MAX`,
/// `XATTR_SIZE_MAX`).
const MAX: usize = 64 * 1024;

/// A first buffer that holds nearly every list and value, on the stack.
const USUAL: usize = 1024;

#[cfg(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64"))]
const NUMBERS: Option<Numbers> = None;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64")))]
const NUMBERS: Option<Numbers> = Some(Numbers { set: 463, get: 464, list: 465, remove: 466 });

/// The call numbers, which are the same on every architecture with the common table.
#[derive(Clone, Copy)]
struct Numbers {
    set: libc::c_long,
    get: libc::c_long,
    list: libc::c_long,
    remove: libc::c_long,
}

/// `struct xattr_args` of `linux/xattr.h`.
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

/// The calls of Linux 6.13, where the running kernel has them.
///
/// Seccomp filters older than the calls may answer EPERM in place of ENOSYS.
fn kernel() -> Option<Numbers> {
    static PROBE: OnceLock<bool> = OnceLock::new();
    let numbers = NUMBERS?;
    let present = *PROBE.get_or_init(|| {
        let answer = raw_list(numbers, rustix::fs::CWD, c".", &mut []);
        !matches!(answer, Err(Errno::NOSYS | Errno::PERM))
    });
    present.then_some(numbers)
}

fn check(answer: libc::c_long) -> Result<usize> {
    usize::try_from(answer).map_err(|_| {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        Errno::from_raw_os_error(code)
    })
}

fn raw_list(
    numbers: Numbers,
    dir: BorrowedFd<'_>,
    name: &CStr,
    buffer: &mut [MaybeUninit<u8>],
) -> Result<usize> {
    // SAFETY: `dir` is open for as long as it is borrowed, `name` is NUL-terminated, and the kernel
    // writes at most `buffer.len()` bytes to `buffer`, which is exclusively borrowed.
    check(unsafe {
        libc::syscall(
            numbers.list,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    })
}

fn raw_get(
    numbers: Numbers,
    dir: BorrowedFd<'_>,
    name: &CStr,
    attr: &CStr,
    buffer: &mut [MaybeUninit<u8>],
) -> Result<usize> {
    let args = XattrArgs {
        value: buffer.as_mut_ptr().expose_provenance() as u64,
        size: u32::try_from(buffer.len()).map_err(|_| Errno::TOOBIG)?,
        flags: 0,
    };
    // SAFETY: the strings are NUL-terminated; `args` is read for exactly its size and names
    // `buffer`, which is exclusively borrowed and to which the kernel writes at most `size` bytes.
    check(unsafe {
        libc::syscall(
            numbers.get,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            attr.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    })
}

fn raw_set(
    numbers: Numbers,
    dir: BorrowedFd<'_>,
    name: &CStr,
    attr: &CStr,
    value: &[u8],
) -> Result<()> {
    let args = XattrArgs {
        value: value.as_ptr().expose_provenance() as u64,
        size: u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?,
        flags: 0,
    };
    // SAFETY: the strings are NUL-terminated; `args` is read for exactly its size and names
    // `value`, from which the kernel reads `size` bytes.
    check(unsafe {
        libc::syscall(
            numbers.set,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            attr.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    })
    .map(drop)
}

fn raw_remove(numbers: Numbers, dir: BorrowedFd<'_>, name: &CStr, attr: &CStr) -> Result<()> {
    // SAFETY: both strings are NUL-terminated, and nothing is written to this process's memory.
    check(unsafe {
        libc::syscall(
            numbers.remove,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            attr.as_ptr(),
        )
    })
    .map(drop)
}

/// The path of an fd's own file, or of a name below it, for calls that know no fd.
fn magic(dir: BorrowedFd<'_>, name: &OsStr) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut path = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
    }
    path
}

/// Calls `read` with a small buffer and, when that is too small, with the largest.
fn grow(mut read: impl FnMut(&mut [MaybeUninit<u8>]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut small = [MaybeUninit::uninit(); USUAL];
    match read(&mut small) {
        Ok(length) => Ok(filled(&small, length)),
        Err(Errno::RANGE) => {
            let mut large = vec![MaybeUninit::uninit(); MAX];
            let length = read(&mut large)?;
            Ok(filled(&large, length))
        }
        Err(error) => Err(error),
    }
}

/// The first `length` bytes of a buffer that a system call has filled that far.
fn filled(buffer: &[MaybeUninit<u8>], length: usize) -> Vec<u8> {
    // SAFETY: only [`grow`] calls this, with the count that the kernel says it wrote; `take` keeps
    // it within the buffer.
    buffer.iter().take(length).map(|byte| unsafe { byte.assume_init() }).collect()
}

fn length<A, B>((initialized, _): (&mut [A], &mut [B])) -> usize {
    initialized.len()
}

/// `listxattrat(2)` - Lists the attribute names of a file, each ended by a NUL.
pub fn list(dir: impl AsFd, name: &OsStr) -> Result<Vec<u8>> {
    list_by(kernel(), dir.as_fd(), name)
}

fn list_by(kernel: Option<Numbers>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<u8>> {
    if name.is_empty() {
        return match grow(|buffer| rustix::fs::flistxattr(dir, buffer).map(length)) {
            Err(Errno::BADF) => {
                let path = magic(dir, name);
                grow(|buffer| rustix::fs::listxattr(&path[..], buffer).map(length))
            }
            answer => answer,
        };
    }
    match kernel {
        Some(numbers) => {
            name.into_with_c_str(|name| grow(|buffer| raw_list(numbers, dir, name, buffer)))
        }
        None => {
            let path = magic(dir, name);
            grow(|buffer| rustix::fs::llistxattr(&path[..], buffer).map(length))
        }
    }
}

/// `getxattrat(2)` - Reads one attribute of a file.
///
/// # Errors
/// `NODATA` when the file has no such attribute.
pub fn get(dir: impl AsFd, name: &OsStr, attr: &OsStr) -> Result<Vec<u8>> {
    get_by(kernel(), dir.as_fd(), name, attr)
}

fn get_by(
    kernel: Option<Numbers>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    attr: &OsStr,
) -> Result<Vec<u8>> {
    if name.is_empty() {
        return match grow(|buffer| rustix::fs::fgetxattr(dir, attr, buffer).map(length)) {
            Err(Errno::BADF) => {
                let path = magic(dir, name);
                grow(|buffer| rustix::fs::getxattr(&path[..], attr, buffer).map(length))
            }
            answer => answer,
        };
    }
    match kernel {
        Some(numbers) => name.into_with_c_str(|name| {
            attr.into_with_c_str(|attr| grow(|buffer| raw_get(numbers, dir, name, attr, buffer)))
        }),
        None => {
            let path = magic(dir, name);
            grow(|buffer| rustix::fs::lgetxattr(&path[..], attr, buffer).map(length))
        }
    }
}

/// `setxattrat(2)` - Writes one attribute of a file, whether or not it has it already.
pub fn set(dir: impl AsFd, name: &OsStr, attr: &OsStr, value: &[u8]) -> Result<()> {
    set_by(kernel(), dir.as_fd(), name, attr, value)
}

fn set_by(
    kernel: Option<Numbers>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    attr: &OsStr,
    value: &[u8],
) -> Result<()> {
    let any = XattrFlags::empty();
    if name.is_empty() {
        return match rustix::fs::fsetxattr(dir, attr, value, any) {
            Err(Errno::BADF) => rustix::fs::setxattr(magic(dir, name), attr, value, any),
            answer => answer,
        };
    }
    match kernel {
        Some(numbers) => name.into_with_c_str(|name| {
            attr.into_with_c_str(|attr| raw_set(numbers, dir, name, attr, value))
        }),
        None => rustix::fs::lsetxattr(magic(dir, name), attr, value, any),
    }
}

/// `removexattrat(2)` - Removes one attribute of a file.
///
/// # Errors
/// `NODATA` when the file has no such attribute.
pub fn remove(dir: impl AsFd, name: &OsStr, attr: &OsStr) -> Result<()> {
    remove_by(kernel(), dir.as_fd(), name, attr)
}

fn remove_by(
    kernel: Option<Numbers>,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    attr: &OsStr,
) -> Result<()> {
    if name.is_empty() {
        return match rustix::fs::fremovexattr(dir, attr) {
            Err(Errno::BADF) => rustix::fs::removexattr(magic(dir, name), attr),
            answer => answer,
        };
    }
    match kernel {
        Some(numbers) => name.into_with_c_str(|name| {
            attr.into_with_c_str(|attr| raw_remove(numbers, dir, name, attr))
        }),
        None => rustix::fs::lremovexattr(magic(dir, name), attr),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;

    use rustix::fs::{CWD, Mode, OFlags};

    use super::*;

    fn handle(path: &std::path::Path) -> OwnedFd {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap()
    }

    /// All calls on one file, by this kernel's way and by that of an older one.
    #[test]
    fn both_ways_reach_names_and_handles() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let (below, file) = (handle(dir.path()), handle(&dir.path().join("file")));
        let open = fs::File::open(dir.path().join("file")).unwrap();
        let attr = OsStr::new("user.attr");
        for kernel in [kernel(), None] {
            for (fd, name) in [(below.as_fd(), "file"), (file.as_fd(), ""), (open.as_fd(), "")] {
                let name = OsStr::new(name);
                let what = format!("{name:?}, new calls: {}", kernel.is_some());
                assert_eq!(list_by(kernel, fd, name).unwrap(), b"", "{what}");
                assert_eq!(get_by(kernel, fd, name, attr), Err(Errno::NODATA), "{what}");
                for value in [&b""[..], b"short", &[b'x'; USUAL], &[b'y'; USUAL + 1]] {
                    set_by(kernel, fd, name, attr, value).unwrap();
                    assert_eq!(get_by(kernel, fd, name, attr).unwrap(), value, "{what}");
                }
                assert_eq!(list_by(kernel, fd, name).unwrap(), b"user.attr\0", "{what}");
                remove_by(kernel, fd, name, attr).unwrap();
                assert_eq!(remove_by(kernel, fd, name, attr), Err(Errno::NODATA), "{what}");
            }
            let missing = list_by(kernel, below.as_fd(), OsStr::new("missing"));
            assert_eq!(missing, Err(Errno::NOENT));
        }
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let (below, link) = (handle(dir.path()), handle(&dir.path().join("link")));
        set(&below, OsStr::new("file"), OsStr::new("user.attr"), b"1").unwrap();
        for kernel in [kernel(), None] {
            for (fd, name) in [(&below, "link"), (&link, "")] {
                let names = list_by(kernel, fd.as_fd(), OsStr::new(name)).unwrap();
                assert_eq!(names, b"", "{name:?} shows what it points to");
            }
        }
    }
}
