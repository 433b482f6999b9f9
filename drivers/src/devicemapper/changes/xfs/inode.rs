//! What an inode of xfs says of its file.

use super::super::inodes::is_same_but;
use super::{u16_at, u32_at, u64_at};

/// The parts that are read, in bytes from its beginning: magic, kind and permissions, version, number of
/// names, its own number, the file system's identity.
const MAGIC: usize = 0;
const MODE: usize = 2;
const VERSION: usize = 4;
const NAMES: usize = 16;
const NUMBER: usize = 152;
const IDENTITY: usize = 160;

/// The parts that change without a change of the file: the time of access, and what each write of the inode
/// to the disk changes, its sum and its place in the log.
const UNIMPORTANT: [std::ops::Range<usize>; 3] = [32..40, 100..104, 112..120];

/// Whether an inode was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Yes, and it has so many names; 1 for a directory.
    Yes(u32),
    /// No, or it is in no directory: it is free, or of a deleted file that is still open.
    No,
    /// It is not the inode that it should be.
    NoInode,
}

/// Compares an inode with what is in its place on the lower device, which may be anything.
pub(super) fn written(ino: u64, identity: &[u8; 16], below: &[u8], above: &[u8]) -> Written {
    const DIRECTORY: u16 = 0o040_000;
    let is_inode = u16_at(above, MAGIC) == Some(0x494e)
        && above.get(VERSION) == Some(&3)
        && u64_at(above, NUMBER) == Some(ino)
        && above.get(IDENTITY..IDENTITY + identity.len()) == Some(identity);
    let (Some(mode), Some(names), true) = (u16_at(above, MODE), u32_at(above, NAMES), is_inode)
    else {
        return Written::NoInode;
    };
    if mode == 0 || names == 0 || is_same_but(below, above, UNIMPORTANT) {
        return Written::No;
    }
    Written::Yes(if mode & 0o170_000 == DIRECTORY { 1 } else { names })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: [u8; 16] = [9; 16];

    fn inode(mode: u16, names: u32) -> Vec<u8> {
        let mut inode = vec![7; 512];
        inode[0..2].copy_from_slice(b"IN");
        inode[2..4].copy_from_slice(&mode.to_be_bytes());
        inode[4] = 3;
        inode[16..20].copy_from_slice(&names.to_be_bytes());
        inode[152..160].copy_from_slice(&131_u64.to_be_bytes());
        inode[160..176].copy_from_slice(&IDENTITY);
        inode
    }

    #[test]
    fn only_access_and_what_a_write_changes_may_differ() {
        let above = inode(0o100_644, 3);
        assert_eq!(written(131, &IDENTITY, &above, &above), Written::No, "the same");
        for at in 0..512 {
            let mut below = above.clone();
            below[at] ^= 0x40;
            let expected = match at {
                32..40 | 100..104 | 112..120 => Written::No,
                _ => Written::Yes(3),
            };
            assert_eq!(written(131, &IDENTITY, &below, &above), expected, "byte {at}");
        }
        assert_eq!(written(131, &IDENTITY, &[0; 512], &above), Written::Yes(3), "a new one");
    }

    #[test]
    fn names_are_counted_of_inodes_alone() {
        for (mode, names, expected) in [
            (0o100_644, 3, Written::Yes(3)),
            (0o040_755, 5, Written::Yes(1)),
            (0o100_644, 0, Written::No),
            (0, 1, Written::No),
            (0o120_777, 1, Written::Yes(1)),
        ] {
            let above = inode(mode, names);
            assert_eq!(written(131, &IDENTITY, &[], &above), expected, "{mode:o} {names}");
        }
        let sound = inode(0o100_644, 1);
        for at in [0, 1, 4, 152, 159, 160, 175] {
            let mut above = sound.clone();
            above[at] ^= 1;
            assert_eq!(written(131, &IDENTITY, &[], &above), Written::NoInode, "byte {at}");
        }
        assert_eq!(written(132, &IDENTITY, &[], &sound), Written::NoInode, "another's place");
        for length in 0..176 {
            let cut = &sound[..length];
            assert_eq!(written(131, &IDENTITY, &[], cut), Written::NoInode, "{length} bytes");
        }
    }
}
