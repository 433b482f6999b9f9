//! What an inode of ext4 says of its file.

use super::super::inodes::is_same_but;
use super::u16_at;

/// How many names an inode has; none if it is free, or of a deleted file that is still open.
pub(super) fn names(inode: &[u8]) -> Option<u32> {
    const DIRECTORY: u16 = 0o040_000;
    let (mode, links) = (u16_at(inode, 0x0)?, u16_at(inode, 0x1a)?);
    match links {
        0 => None,
        _ if mode & 0o170_000 == DIRECTORY => Some(1),
        links => Some(links.into()),
    }
}

/// Whether an inode is the same in all that says something of its file; some have a sum of themselves.
pub(super) fn is_same(below: &[u8], above: &[u8], has_sums: bool) -> bool {
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
        [(0x08..0x0c, true), (0x7c..0x7e, has_sums), (0x82..0x84, has_sums), (0x8c..0x90, true)];
    let there = unimportant
        .into_iter()
        .filter(|(field, is_one)| *is_one && (field.end <= 0x80 || field.end <= extra));
    is_same_but(below, above, there.map(|(field, _)| field))
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
}
