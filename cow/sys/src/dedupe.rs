//! Sharing of equal content between files (`ioctl_fideduperange(2)`).

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::{Errno, Result};
use rustix::ioctl::opcode;

/// The most that file systems compare in one call (btrfs: 16 MiB).
pub const MOST: u64 = 16 << 20;

/// `FILE_DEDUPE_RANGE_DIFFERS` of `linux/fs.h`.
const DIFFERS: i32 = 1;

/// `struct file_dedupe_range` of `linux/fs.h`, without its list of targets.
#[repr(C)]
struct Head {
    from: u64,
    length: u64,
    targets: u16,
    reserved: u16,
    reserved_too: u32,
}

/// `struct file_dedupe_range_info`.
#[repr(C)]
struct Target {
    file: i64,
    at: u64,
    shared: u64,
    status: i32,
    reserved: u32,
}

/// Both, as the kernel reads them: the list follows its head.
#[repr(C)]
struct Range {
    head: Head,
    target: Target,
}

/// What the kernel found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// So many bytes are equal and are kept once now.
    Shared(u64),
    /// The content differs: nothing was done.
    Differs,
}

/// `FIDEDUPERANGE` - Lets `target` share the blocks of `source` in a range at the same place of both, if
/// the content is equal there.
///
/// The kernel compares both with writers held off, so that no reader ever sees other content. More than
/// [`MOST`] may be cut down. A range ends at a block's end, or at the end of both files.
///
/// # Errors
/// `OPNOTSUPP` where the file system cannot, `XDEV` for files of two file systems, `PERM` without the right
/// to write to `target`, `INVAL` for ranges that are none.
pub fn share(source: impl AsFd, target: impl AsFd, at: u64, length: u64) -> Result<Compared> {
    let target = target.as_fd();
    let mut range = Range {
        head: Head { from: at, length, targets: 1, reserved: 0, reserved_too: 0 },
        target: Target { file: target.as_raw_fd().into(), at, shared: 0, status: 0, reserved: 0 },
    };
    let code = opcode::read_write::<Head>(0x94, 54);
    // SAFETY: both files are open for as long as they are borrowed; the code names the size of the head,
    // which says that one target follows, and `range` is exclusively borrowed for the call.
    let answer =
        unsafe { libc::ioctl(source.as_fd().as_raw_fd(), libc::Ioctl::from(code), &raw mut range) };
    if answer < 0 {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(code));
    }
    match range.target.status {
        0 => Ok(Compared::Shared(range.target.shared)),
        DIFFERS => Ok(Compared::Differs),
        status => Err(Errno::from_raw_os_error(status.saturating_abs())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_cannot_share_is_refused() {
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(share(&one, &other, 0, 4096), Err(Errno::INVAL), "sockets");
        // tmpfs and the like cannot; btrfs and xfs can, where the tests of the btrfs driver look.
        let file = |name: &str| {
            let path = format!("/dev/shm/cow-dedupe-{name}-{}", std::process::id());
            std::fs::write(&path, [7; 4096]).unwrap();
            let file = std::fs::File::options().read(true).write(true).open(&path);
            std::fs::remove_file(&path).unwrap();
            file.unwrap()
        };
        let (one, other) = (file("one"), file("other"));
        let refused = share(&one, &other, 0, 4096).unwrap_err();
        assert!([Errno::OPNOTSUPP, Errno::INVAL].contains(&refused), "tmpfs: {refused}");
    }
}
