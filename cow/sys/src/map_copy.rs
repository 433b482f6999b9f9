//! Copying from one file to another by way of a map of the first.

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::{Errno, Result};

/// Writes `length` bytes of `source` at `offset` to the same place in `target`, `step` bytes with each
/// `pwrite(2)`; returns how many were written.
///
/// The kernel takes the bytes from the source's pages where they are, so that they are moved once, and in
/// writes that are long enough for the target's file system to take memory in large pieces.
/// Nothing of the source is looked at here: where it has no page, since it was cut short or its disk fails,
/// a write ends early, and no signal is raised.
///
/// # Errors
/// If nothing was written: `FAULT` where the source has no page, which a read tells the reason of; `NODEV`,
/// `ACCESS` or `NOMEM` of a source that cannot be mapped; what else pwrite(2) says of the target.
pub fn write_at(
    source: impl AsFd,
    target: impl AsFd,
    offset: u64,
    length: usize,
    step: usize,
) -> Result<usize> {
    let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL);
    let source = source.as_fd();
    let map = memmap2::MmapOptions::new().offset(offset).len(length).map_raw_read_only(&source);
    let map = map.map_err(failed)?;
    let target = target.as_fd();
    let mut done = 0;
    while done < length {
        let at = i64::try_from(offset.saturating_add(done as u64)).map_err(|_| Errno::FBIG)?;
        let size = step.clamp(1, length - done);
        // SAFETY: `done + size` is at most the length of the map, which lives to the end of the function, and
        // the fd is open for as long as it is borrowed. Only the kernel reads these bytes, which reports
        // a page that cannot be had as an error.
        let written =
            unsafe { libc::pwrite(target.as_raw_fd(), map.as_ptr().add(done).cast(), size, at) };
        match usize::try_from(written) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(_) => match failed(std::io::Error::last_os_error()) {
                Errno::INTR => {}
                error if done == 0 => return Err(error),
                _ => break,
            },
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn bytes_arrive_at_their_place_and_what_is_missing_is_no_crash() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let content: Vec<u8> = (0..100_003_u32).map(|at| (at % 251) as u8).collect();
        fs::write(path("source"), &content).unwrap();
        let source = File::open(path("source")).unwrap();
        let target = File::create(path("target")).unwrap();
        // Neither the offset nor the step is a multiple of a page.
        assert_eq!(write_at(&source, &target, 4099, 90_000, 1000), Ok(90_000));
        let copy = fs::read(path("target")).unwrap();
        assert_eq!(copy[4099..], content[4099..94_099]);
        assert!(copy[..4099].iter().all(|byte| *byte == 0), "before it");
        // The page at the end is filled up with zeros; of what is beyond it there is no page.
        let most = write_at(&source, &target, 0, 1 << 20, 1 << 16).unwrap();
        assert_eq!(most, content.len().next_multiple_of(4096), "up to the last page");
        assert_eq!(write_at(&source, &target, 1 << 20, 4096, 4096), Err(Errno::FAULT));
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(write_at(&reader, &target, 0, 4096, 4096), Err(Errno::NODEV));
        let closed = File::open(path("source")).unwrap();
        assert_eq!(write_at(&source, &closed, 0, 4096, 4096), Err(Errno::BADF), "only for reading");
    }
}
