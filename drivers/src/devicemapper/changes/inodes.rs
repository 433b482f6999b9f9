//! Which inodes of two file systems of one origin are not the same.
//!
//! Whatever is done to a file through the file system dates its inode: the time of change (ctime) is
//! always the kernel's, though the time of modification can be set back. A directory is dated by each
//! change of its entries, a file by each write, however it is done. So an inode that is the same on
//! both devices, bit for bit, is of a file that is the same; but for what each [`Format`] leaves out.
//! [`volume::pass`] sees to it that a file cannot be written twice at one time, before a snapshot
//! and after it.
//!
//! [`volume::pass`]: super::super::volume::pass

use std::collections::HashMap;

use cow::error::Result;

use super::format::Format;
use super::places::{Place, Places};

/// How much is read at once, in bytes.
const CHUNK: u64 = 64 << 10;

/// The changed inodes, and what was read to find them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The inodes of the upper file system that have a name and are another one than in the lower, each
    /// with the number of its names; 1 for a directory.
    pub(super) inodes: HashMap<u64, u32>,
    /// How many were looked at.
    pub(super) looked_at: u64,
}

/// Compares the inodes that were noted in `places`, the upper file system's.
pub(super) fn compare<F: Format>(lower: &F, upper: &F, places: Places) -> Result<Found> {
    let inode_size = upper.inode_size();
    let size = usize::try_from(inode_size).unwrap_or(usize::MAX);
    let at_once = (CHUNK / inode_size).max(1);
    let mut found = Found::default();
    let (mut below, mut above) = (Vec::new(), Vec::new());
    for piece in places.into_touched() {
        for part in parts(piece, at_once, inode_size) {
            found.looked_at += part.count;
            let length = usize::try_from(part.count).unwrap_or_default() * size;
            below.resize(length, 0);
            above.resize(length, 0);
            lower.disk().read(&mut below, part.at)?;
            upper.disk().read(&mut above, part.at)?;
            let pairs = below.chunks_exact(size).zip(above.chunks_exact(size));
            for (ino, (below, above)) in (part.first..).zip(pairs) {
                if below != above
                    && let Some(names) = upper.written(ino, below, above)?
                {
                    found.inodes.insert(ino, names);
                }
            }
        }
    }
    Ok(found)
}

/// The same in parts of so many inodes.
fn parts(all: Place, at_once: u64, inode_size: u64) -> impl Iterator<Item = Place> {
    let step = usize::try_from(at_once).unwrap_or(usize::MAX);
    (0..all.count).step_by(step).map(move |from| Place {
        at: all.at + from * inode_size,
        first: all.first + from,
        count: at_once.min(all.count - from),
    })
}

/// Whether two rows of bytes are the same but for some of them; `unimportant` in rising order.
pub(super) fn is_same_but(
    below: &[u8],
    above: &[u8],
    unimportant: impl IntoIterator<Item = std::ops::Range<usize>>,
) -> bool {
    let mut from = 0;
    for field in unimportant {
        if below.get(from..field.start) != above.get(from..field.start) {
            return false;
        }
        from = field.end;
    }
    below.get(from..) == above.get(from..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_in_parts() {
        let of = |count| {
            let parts = parts(Place { at: 512, first: 3, count }, 4, 256);
            parts.map(|part| (part.at, part.first, part.count)).collect::<Vec<_>>()
        };
        assert_eq!(of(7), [(512, 3, 4), (512 + 1024, 7, 3)]);
        assert_eq!(of(8), [(512, 3, 4), (512 + 1024, 7, 4)]);
        assert_eq!(of(0), []);
    }
}
