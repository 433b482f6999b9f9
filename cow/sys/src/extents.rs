//! Where a file's data is on its disk (`FS_IOC_FIEMAP`).

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::{Errno, Result};
use rustix::ioctl::opcode;

/// How many extents one call asks for.
const COUNT: usize = 128;

/// `FIEMAP_FLAG_SYNC`: what is in memory alone is written first.
const SYNC: u32 = 1;
/// `FIEMAP_EXTENT_LAST`.
const LAST: u32 = 1;
/// `FIEMAP_EXTENT_UNWRITTEN`: allocated, but reads as zeros.
const UNWRITTEN: u32 = 0x800;

/// `struct fiemap_extent` of `linux/fiemap.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

/// `struct fiemap` without its list of extents, as the ioctl's number has it.
#[repr(C)]
struct Head {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
}

/// Both, as the kernel fills them.
#[repr(C)]
struct Map {
    head: Head,
    extents: [Extent; COUNT],
}

/// The parts of a file that were ever written, in order; what is in memory is written to the disk first.
///
/// Unlike what `SEEK_DATA` tells, this does not depend on what somebody has read: a page of zeros that was
/// read from where nothing was written is not data here.
///
/// # Errors
/// `OPNOTSUPP` where the file system does not tell; what writing the data meets.
pub fn written(file: impl AsFd) -> Result<Vec<Range<u64>>> {
    let file = file.as_fd();
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut start = 0;
    loop {
        let head = Head {
            start,
            length: u64::MAX - start,
            flags: SYNC,
            mapped: 0,
            count: COUNT as u32,
            reserved: 0,
        };
        let mut map = Map { head, extents: [Extent::default(); COUNT] };
        let code = opcode::read_write::<Head>(b'f', 11);
        // SAFETY: `map` says how many extents there is room for after its head, and is exclusively borrowed for
        // the call.
        let answer =
            unsafe { libc::ioctl(file.as_raw_fd(), libc::Ioctl::from(code), &raw mut map) };
        if answer != 0 {
            let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            return Err(Errno::from_raw_os_error(code));
        }
        let found = &map.extents[..(map.head.mapped as usize).min(COUNT)];
        for extent in found.iter().filter(|extent| extent.flags & UNWRITTEN == 0) {
            let end = extent.logical.saturating_add(extent.length);
            match parts.last_mut().filter(|last| last.end >= extent.logical) {
                Some(last) => last.end = last.end.max(end),
                None => parts.push(extent.logical..end),
            }
        }
        let Some(last) = found.last() else { return Ok(parts) };
        start = last.logical.saturating_add(last.length);
        if last.flags & LAST != 0 || last.length == 0 {
            return Ok(parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use rustix::fs::FallocateFlags;

    use super::*;

    const BLOCK: u64 = 64 << 10;

    #[test]
    fn what_was_allocated_and_read_alone_is_not_written() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * BLOCK).unwrap();
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), BLOCK, 4 * BLOCK) {
            Err(Errno::OPNOTSUPP) => return,
            answer => answer.unwrap(),
        }
        file.write_all_at(&[1; 100], 2 * BLOCK).unwrap();
        file.write_all_at(&[1; BLOCK as usize], 7 * BLOCK).unwrap();
        let mut all = vec![0; 8 * BLOCK as usize];
        file.read_exact_at(&mut all, 0).unwrap();
        let parts = match written(&file) {
            // A file system in memory.
            Err(Errno::OPNOTSUPP | Errno::NOTTY) => return,
            answer => answer.unwrap(),
        };
        assert_eq!(parts.len(), 2, "{parts:?}");
        assert_eq!(parts[0].start, 2 * BLOCK, "{parts:?}");
        assert!(parts[0].end <= 3 * BLOCK, "a block: {parts:?}");
        assert_eq!(parts[1], 7 * BLOCK..8 * BLOCK, "{parts:?}");
    }

    #[test]
    fn more_extents_than_one_call_tells_are_all_found() {
        let file = tempfile::tempfile().unwrap();
        let many = 3 * COUNT as u64;
        for number in 0..many {
            file.write_all_at(b"x", number * 2 * BLOCK).unwrap();
        }
        let parts = match written(&file) {
            Err(Errno::OPNOTSUPP | Errno::NOTTY) => return,
            answer => answer.unwrap(),
        };
        assert_eq!(parts.len() as u64, many, "extents");
        for (number, part) in parts.iter().enumerate() {
            assert_eq!(part.start, number as u64 * 2 * BLOCK, "extent {number}");
        }
    }
}
