//! A snapshot of the pool's metadata that a power cut left half-made.
//!
//! The kernel notes a snapshot (`reserve_metadata_snap`) in the superblock before it commits the transaction that
//! makes it, and a commit first writes out whatever was changed: the superblock of the last transaction with that
//! note, too. A power cut before the commit's own superblock leaves the note of a block that is free, which may hold
//! a whole copy of the superblock all the same. Releasing that would give up references that nobody has taken: the
//! kernel would free blocks of the pool that are in use, and find its counts below zero.
//!
//! So such a block is wiped first. The kernel forgets the note before it reads the block, finds no copy of the
//! superblock there, and leaves it at that.
//!
//! The format: `drivers/md/dm-thin-metadata.c` and `drivers/md/persistent-data/dm-space-map-common.c`; all numbers
//! are little-endian, all blocks of 4 KiB.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cow::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::pool::{METADATA_BLOCK, Pool};

/// The length of a block, [`METADATA_BLOCK`].
const BLOCK: usize = 4096;
/// `THIN_SUPERBLOCK_MAGIC`, and where in the superblock it is.
const MAGIC: (usize, u64) = (32, 27_022_010);
/// Where the superblock notes the snapshot.
const HELD_ROOT: usize = 56;
/// Where the superblock has the number of metadata blocks and the block that lists the bitmaps
/// (`metadata_space_map_root`: `nr_blocks` and `bitmap_root`).
const BLOCKS: usize = 192;
const BITMAP_ROOT: usize = 208;
/// What comes first in each block: checksum, something, and the block's number.
const HEAD: usize = 16;
const NUMBER: usize = 8;
/// How long the entry of a bitmap is in their list; it begins with the bitmap's block.
const INDEX_ENTRY: usize = 16;
/// How many blocks a bitmap counts the references of, with two bits for each.
const PER_BITMAP: u64 = (BLOCK - HEAD) as u64 * 4;
/// With what the checksums of superblock, list and bitmap are mixed.
const SUPERBLOCK: u32 = 160_774;
const INDEX: u32 = 160_478;
const BITMAP: u32 = 240_779;

impl Pool {
    /// Gives the snapshot of the metadata back that a crash left, if there is one; `device` has the metadata.
    ///
    /// # Errors
    /// `Corrupt` when it is half-made and LVM has the pool, which wants it repaired.
    pub(super) fn release_leftover(&self, device: &Path) -> Result<()> {
        let Some(held) = self.dm.held_metadata(&self.name)? else { return Ok(()) };
        let failed = |error| Error::sys("read metadata of pool", &self.name, error);
        if Metadata::open(device, OFlags::RDONLY).and_then(|m| m.is_free(held)).map_err(failed)? {
            self.wipe(device, held)?;
            self.forget(held)?;
        } else {
            self.dm.release_metadata(&self.name);
        }
        Ok(())
    }

    /// Has the kernel take its note away of a snapshot that is none.
    ///
    /// # Errors
    /// When it is still noted, what the kernel said to it.
    fn forget(&self, block: u64) -> Result<()> {
        // It fails once the note is gone, for there is no snapshot.
        let answer = self.dm.message(&self.name, "release_metadata_snap");
        // What follows it commits that.
        let transaction = self.fill()?.transaction;
        self.dm.set_transaction(&self.name, transaction, transaction)?;
        if self.dm.held_metadata(&self.name)?.is_none() {
            return Ok(());
        }
        let reason = format!("a half-made metadata snapshot in block {block} stays");
        Err(answer.err().map_or_else(
            || Error::corrupt("read metadata of pool", &self.name, reason),
            |failure| failure.error,
        ))
    }

    /// Wipes a block of the metadata, if it is free. The pool stands still meanwhile: what it has changed is
    /// committed, and it takes no block into use.
    fn wipe(&self, device: &Path, block: u64) -> Result<()> {
        if self.dm.is_lvm(&self.name)? {
            let reason = "a power cut left a half-made snapshot of its metadata: deactivate the pool and \
                          run lvconvert --repair";
            return Err(Error::corrupt("read metadata of pool", &self.name, reason));
        }
        tracing::warn!(pool = self.name, block, "a power cut left a half-made metadata snapshot");
        self.dm.suspend(&self.name, false)?;
        let wiped = Metadata::open(device, OFlags::RDWR).and_then(|metadata| metadata.wipe(block));
        self.dm.resume(&self.name)?;
        wiped.map_err(|error| Error::sys("write metadata of pool", &self.name, error))
    }
}

/// A pool's metadata as they were committed last.
#[derive(Debug)]
struct Metadata(File);

impl Metadata {
    /// Opens the device, past the page cache: the kernel does not write through it.
    fn open(device: &Path, how: OFlags) -> std::io::Result<Self> {
        let flags = how | OFlags::DIRECT | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(device, flags, Mode::empty())?.into()))
    }

    /// Whether nothing refers to a block but the superblock's note of a snapshot.
    fn is_free(&self, block: u64) -> std::io::Result<bool> {
        let superblock = self.read(0, SUPERBLOCK)?;
        if word(&superblock, MAGIC.0) != MAGIC.1 {
            return Err(Errno::ILSEQ.into());
        }
        if word(&superblock, HELD_ROOT) != block {
            return Ok(false);
        }
        if block >= word(&superblock, BLOCKS) {
            return Err(Errno::RANGE.into());
        }
        let index = self.read(word(&superblock, BITMAP_ROOT), INDEX)?;
        let entry = usize::try_from(block / PER_BITMAP).map_err(|_| Errno::RANGE)?;
        let at = HEAD + entry * INDEX_ENTRY;
        let bitmap = index.get(at..at + 8).ok_or(Errno::RANGE)?;
        let bitmap = self.read(word(bitmap, 0), BITMAP)?;
        let bit = (block % PER_BITMAP) * 2;
        let byte = bitmap[HEAD + usize::try_from(bit / 8).map_err(|_| Errno::RANGE)?];
        Ok(byte >> (bit % 8) & 3 == 0)
    }

    /// Fills a free block with zeros.
    fn wipe(&self, block: u64) -> std::io::Result<()> {
        if !self.is_free(block)? {
            return Ok(());
        }
        let zeros = vec![0; 2 * BLOCK];
        self.0.write_all_at(&zeros[aligned(&zeros)], block * METADATA_BLOCK)?;
        self.0.sync_data()
    }

    /// Reads a block and checks that it is what it should be.
    fn read(&self, block: u64, kind: u32) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; 2 * BLOCK];
        let range = aligned(&bytes);
        let at = block.checked_mul(METADATA_BLOCK).ok_or(Errno::RANGE)?;
        self.0.read_exact_at(&mut bytes[range.clone()], at)?;
        let bytes = bytes[range].to_vec();
        let is_whole = word(&bytes, 0) & 0xffff_ffff == u64::from(checksum(&bytes, kind));
        if !is_whole || word(&bytes, NUMBER) != block {
            return Err(Errno::ILSEQ.into());
        }
        Ok(bytes)
    }
}

/// A block's place in twice as many bytes where it begins as direct input and output want it.
fn aligned(bytes: &[u8]) -> Range<usize> {
    let start = bytes.as_ptr().align_offset(BLOCK);
    start..start + BLOCK
}

/// A number of eight bytes.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A block's checksum: the kernel does not invert a CRC at its end.
fn checksum(block: &[u8], kind: u32) -> u32 {
    !crc32c::crc32c(&block[4..]) ^ kind
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata of so many blocks, of which the first four and `used` are in use.
    fn metadata(used: u64, held: u64) -> Metadata {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(64 * METADATA_BLOCK).expect("room");
        let put = |number: u64, kind, words: &[(usize, u64)]| {
            let mut block = vec![0; BLOCK];
            for (at, value) in words.iter().chain(&[(NUMBER, number)]) {
                block[*at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            let sum = checksum(&block, kind);
            block[..4].copy_from_slice(&sum.to_le_bytes());
            file.write_all_at(&block, number * METADATA_BLOCK).expect("a block");
        };
        put(0, SUPERBLOCK, &[MAGIC, (HELD_ROOT, held), (BLOCKS, 64), (BITMAP_ROOT, 2)]);
        put(2, INDEX, &[(HEAD, 3)]);
        put(3, BITMAP, &[(HEAD, 0b0101_0101 | 1 << (used * 2))]);
        file.write_all_at(&[7; BLOCK], held * METADATA_BLOCK).expect("a copy");
        Metadata(file)
    }

    #[test]
    fn a_half_made_snapshot_is_wiped_and_nothing_else() {
        for (used, held, is_wiped) in [(20, 9, true), (9, 9, false), (31, 30, true)] {
            let metadata = metadata(used, held);
            assert_eq!(metadata.is_free(held).expect("readable"), is_wiped, "{held} of {used}");
            metadata.wipe(held).expect("written");
            let mut block = vec![1; BLOCK];
            metadata.0.read_exact_at(&mut block, held * METADATA_BLOCK).expect("a block");
            let expected = if is_wiped { 0 } else { 7 };
            assert!(block.iter().all(|&byte| byte == expected), "{held} of {used}");
        }
        let metadata = metadata(9, 10);
        assert!(!metadata.is_free(11).expect("readable"), "no snapshot is noted there");
    }

    #[test]
    fn damaged_metadata_are_an_error() {
        for place in [0, 40, 2 * BLOCK + HEAD, 3 * BLOCK + 4000] {
            let metadata = metadata(9, 10);
            metadata.0.write_all_at(&[0xaa], place as u64).expect("damage");
            let error = metadata.wipe(10).expect_err("damaged");
            assert_eq!(Errno::from_io_error(&error), Some(Errno::ILSEQ), "at {place}: {error}");
        }
        let metadata = metadata(9, 64);
        assert!(metadata.is_free(64).is_err(), "beyond the end");
    }
}
