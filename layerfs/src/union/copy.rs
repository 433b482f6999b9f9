//! Copying the data of one file: shared blocks where the file system can, else the kernel's own copy
//! of what is not a hole, else through a buffer.

use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The longest piece that one call copies, so that a signal is answered in time.
const PIECE: u64 = 64 << 20;

/// Copies the first `length` bytes of `from` to the empty file `to`.
///
/// # Errors
/// What the file systems say.
pub(super) fn data(from: &OwnedFd, to: &OwnedFd, length: u64) -> Result<(), Errno> {
    let size = rustix::fs::fstat(from)?.st_size.try_into().unwrap_or(0_u64);
    let length = length.min(size);
    if length == size && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    rustix::fs::ftruncate(to, length)?;
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error),
        };
        let end = match rustix::fs::seek(from, SeekFrom::Hole(start)) {
            Ok(end) => end.min(length),
            Err(_) => length,
        };
        if start >= length {
            break;
        }
        extent(from, to, start, end)?;
        at = end;
    }
    Ok(())
}

fn extent(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let mut at = start;
    while at < end {
        let (mut source, mut target) = (at, at);
        let piece = usize::try_from((end - at).min(PIECE)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), piece) {
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::IO) => {
                return by_hand(from, to, at, end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn by_hand(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let got = rustix::io::pread(from, &mut buffer[..want], at)?;
        if got == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < got {
            written += rustix::io::pwrite(to, &buffer[written..got], at + written as u64)?;
        }
        at += got as u64;
    }
    Ok(())
}
