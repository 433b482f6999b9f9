//! Which inodes of two ext4 file systems of one origin are not the same.
//!
//! Whatever is done to a file through the file system dates its inode: the time of change (ctime) is
//! always the kernel's, though the time of modification can be set back. A directory is dated by each
//! change of its entries, a file by each write, however it is done. So an inode that is the same in
//! both tables, bit for bit, is of a file that is the same; but for the time of the last access and
//! the inode's own sum, which are left out here. [`volume::pass`] sees to it that a file cannot
//! be written twice at one time, before a snapshot and after it.
//!
//! [`volume::pass`]: super::super::volume::pass

use std::collections::HashMap;
use std::ops::Range;

use cow::error::Result;

use super::ext4::{Ext4, Tables, u16_at};

/// How much of a table is read at once, in bytes.
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

/// Compares the inodes that were noted in `tables`.
pub(super) fn compare(lower: &Ext4, upper: &Ext4, tables: Tables) -> Result<Found> {
    let superblock = &upper.superblock;
    let size = usize::try_from(superblock.inode_size).unwrap_or(usize::MAX);
    let at_once = (CHUNK / superblock.inode_size).max(1);
    let mut found = Found::default();
    let (mut below, mut above) = (Vec::new(), Vec::new());
    for piece in tables.into_pieces() {
        for part in parts(piece, at_once) {
            let count = part.end - part.start;
            found.looked_at += count;
            let length = usize::try_from(count).unwrap_or_default() * size;
            below.resize(length, 0);
            above.resize(length, 0);
            lower.read_inodes(part.clone(), &mut below)?;
            upper.read_inodes(part.clone(), &mut above)?;
            let pairs = below.chunks_exact(size).zip(above.chunks_exact(size));
            for (index, (below, above)) in part.zip(pairs) {
                let ino = u32::try_from(index + 1).unwrap_or(u32::MAX);
                let Some(names) = names(above).filter(|_| superblock.has_place(ino)) else {
                    continue;
                };
                if !is_same(below, above, superblock.has_sums) {
                    found.inodes.insert(ino.into(), names);
                }
            }
        }
    }
    Ok(found)
}

fn parts(piece: Range<u64>, at_once: u64) -> impl Iterator<Item = Range<u64>> {
    let end = piece.end;
    let starts = std::iter::successors(Some(piece.start), move |at| at.checked_add(at_once));
    starts.take_while(move |&at| at < end).map(move |at| at..end.min(at.saturating_add(at_once)))
}

/// How many names an inode has; none if it is free, or of a deleted file that is still open.
fn names(inode: &[u8]) -> Option<u32> {
    const DIRECTORY: u16 = 0o040_000;
    let (mode, links) = (u16_at(inode, 0x0)?, u16_at(inode, 0x1a)?);
    match links {
        0 => None,
        _ if mode & 0o170_000 == DIRECTORY => Some(1),
        links => Some(links.into()),
    }
}

/// Whether an inode is the same in all that says something of its file; some have a sum of themselves.
fn is_same(below: &[u8], above: &[u8], has_sums: bool) -> bool {
    if below == above {
        return true;
    }
    // The fields beyond the first 128 bytes are there as far as the inode itself says.
    let extra = |inode: &[u8]| if inode.len() > 128 { u16_at(inode, 0x80).unwrap_or(0) } else { 0 };
    if extra(below) != extra(above) {
        return false;
    }
    let extra = 0x80 + usize::from(extra(above));
    // Time of access: its seconds, and the rest; the inode's sum in two halves.
    let unimportant =
        [(0x08..0x0c, true), (0x8c..0x90, true), (0x7c..0x7e, has_sums), (0x82..0x84, has_sums)];
    let mut from = 0;
    let mut skipped: Vec<Range<usize>> = unimportant
        .into_iter()
        .filter(|(field, is_one)| *is_one && (field.end <= 0x80 || field.end <= extra))
        .map(|(field, _)| field)
        .collect();
    skipped.sort_unstable_by_key(|field| field.start);
    for field in skipped {
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
    fn only_access_and_sum_may_differ() {
        let inode = |extra: u16| {
            let mut inode = vec![7; 256];
            inode[0x80..0x82].copy_from_slice(&extra.to_le_bytes());
            inode
        };
        let unimportant: Vec<usize> =
            [0x08..0x0c, 0x7c..0x7e, 0x82..0x84, 0x8c..0x90].into_iter().flatten().collect();
        for at in 0..256 {
            let (below, mut above) = (inode(32), inode(32));
            above[at] ^= 0x40;
            let expected = unimportant.contains(&at);
            assert_eq!(is_same(&below, &above, true), expected, "byte {at:#x}");
            let expected = (0x08..0x0c).contains(&at) || (0x8c..0x90).contains(&at);
            assert_eq!(is_same(&below, &above, false), expected, "no sums, byte {at:#x}");
            // There, attributes begin where the others have the rest of the time of access.
            let (below, mut above) = (inode(4), inode(4));
            above[at] ^= 0x40;
            let expected = unimportant.contains(&at) && at < 0x84;
            assert_eq!(is_same(&below, &above, true), expected, "short, byte {at:#x}");
        }
        let small = [(vec![0; 128], vec![0; 128]), (vec![1; 128], vec![0; 128])];
        assert_eq!(small.map(|(a, b)| is_same(&a, &b, true)), [true, false], "128 bytes");
    }

    #[test]
    fn names_are_counted() {
        for (mode, links, expected) in [
            (0o100_644, 3, Some(3)),
            (0o040_755, 5, Some(1)),
            (0o100_644, 0, None),
            (0o120_777, 1, Some(1)),
        ] {
            let mut inode = vec![0; 128];
            inode[0..2].copy_from_slice(&u16::to_le_bytes(mode));
            inode[0x1a..0x1c].copy_from_slice(&u16::to_le_bytes(links));
            assert_eq!(names(&inode), expected, "{mode:o} {links}");
        }
        assert_eq!(names(&[0; 4]), None, "cut off");
    }

    #[test]
    fn pieces_are_read_in_parts() {
        let got: Vec<_> = parts(3..10, 4).collect();
        assert_eq!(got, [3..7, 7..10]);
        assert_eq!(parts(5..5, 4).count(), 0);
    }
}
