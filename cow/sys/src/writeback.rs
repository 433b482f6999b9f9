//! Starting to write a file back early.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::io::{Errno, Result};

/// `sync_file_range(2)` - Starts to write all dirty pages of a file to its disk, and returns at
/// once where the queue has room.
///
/// Says nothing about durability: neither metadata nor the disk's own cache is written.
pub fn start(file: impl AsFd) -> Result<()> {
    range(file.as_fd(), libc::SYNC_FILE_RANGE_WRITE)
}

/// `sync_file_range(2)` - Writes all dirty pages of a file to its disk, and returns when the disk has
/// them.
///
/// Says nothing about durability, but something about order: on a journalling file system that
/// records a file's extents when its data is written (ext4, xfs), whatever is done to the file's
/// name afterwards is recorded after them.
pub fn finish(file: impl AsFd) -> Result<()> {
    range(
        file.as_fd(),
        libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER,
    )
}

fn range(file: BorrowedFd<'_>, flags: libc::c_uint) -> Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: the fd is open for as long as it is borrowed, and the call takes no pointers.
    let answer = unsafe { libc::sync_file_range(fd, 0, 0, flags) };
    match answer {
        0 => Ok(()),
        _ => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_and_sockets_refused() {
        let path = std::env::temp_dir().join(format!("cow-writeback-{}", std::process::id()));
        let file = std::fs::File::create(&path).unwrap();
        let removed = std::fs::remove_file(&path);
        std::io::Write::write_all(&mut &file, b"content").unwrap();
        assert_eq!(start(&file), Ok(()), "a file");
        assert_eq!(finish(&file), Ok(()), "a file, to the end");
        removed.unwrap();
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(start(&socket), Err(Errno::SPIPE), "a socket");
    }
}
