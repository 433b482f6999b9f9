//! Where the inode tables of an ext4 file system are, read from its device.
//!
//! The layout is that of the kernel's Documentation/filesystems/ext4: a superblock of 1024 bytes at
//! byte 1024, and a table of group descriptors in the block after the superblock's. Numbers are
//! little-endian. A file system with a feature that is not known here is refused: it might keep its
//! inodes elsewhere, or change them unseen.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cow::error::{Error, ErrorKind, Result};
use rustix::fs::Advice;

/// Where the superblock is, and how long.
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_LEN: usize = 1024;
const MAGIC: u16 = 0xef53;

/// `s_state`: cleanly unmounted or frozen, and nothing else.
const VALID: u16 = 1;

/// Incompatible features: `filetype`, `extents`, `64bit`, `flex_bg`, `metadata_csum_seed`, `largedir`.
/// Not `recover` (the journal has what the device has not), `meta_bg` (descriptors are elsewhere),
/// `ea_inode` (content in inodes without a name).
const INCOMPAT: u32 = 0x2 | 0x40 | WIDE | 0x200 | 0x2000 | 0x4000;
/// `64bit`: block numbers are longer, and descriptors too.
const WIDE: u32 = 0x80;
/// Features that matter to writers: `sparse_super`, `large_file`, `huge_file`, `uninit_bg`, `dir_nlink`,
/// `extra_isize`, `metadata_csum`, `project`, `orphan_present`.
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | SUMS | 0x2000 | 0x10000;
/// `metadata_csum`: an inode has a sum of itself.
const SUMS: u32 = 0x400;

/// The longest table of group descriptors that is read: that of 64 TiB.
const MAX_DESCRIPTORS: u64 = 32 << 20;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What is read of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    blocks: u64,
    block_size: u64,
    first_data_block: u32,
    blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u64,
    descriptor_size: u64,
    incompatible: u32,
    pub(super) has_sums: bool,
    uuid: [u8; 16],
    made: u32,
    /// When `e2fsck` was here last: what it mends it does not date.
    checked: u32,
    /// The first number that is not the file system's own.
    pub(super) first_free: u32,
    /// The file that lists deleted files which are still open; it has no name.
    pub(super) orphan_file: u32,
}

impl Superblock {
    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let u16_of = |at| u16_at(bytes, at).ok_or("the superblock is cut off");
        let u32_of = |at| u32_at(bytes, at).ok_or("the superblock is cut off");
        if u16_of(0x38)? != MAGIC {
            return Err("no ext4".to_owned());
        }
        let (state, errors) = (u16_of(0x3a)?, u32_of(0x194)?);
        if state != VALID || errors > 0 {
            return Err(format!("its state is {state:#x}, with {errors} errors"));
        }
        let (revision, incompatible, ro_compatible) = (u32_of(0x4c)?, u32_of(0x60)?, u32_of(0x64)?);
        let (other, ro_other) = (incompatible & !INCOMPAT, ro_compatible & !RO_COMPAT);
        if revision != 1 || other != 0 || ro_other != 0 {
            return Err(format!("revision {revision}, features {other:#x}, {ro_other:#x}"));
        }
        let is_wide = incompatible & WIDE != 0;
        let high = if is_wide { u32_of(0x150)? } else { 0 };
        let this = Self {
            inodes: u32_of(0)?,
            blocks: u64::from(high) << 32 | u64::from(u32_of(4)?),
            block_size: 1024_u64.checked_shl(u32_of(0x18)?).filter(|&n| n <= 65_536).unwrap_or(0),
            first_data_block: u32_of(0x14)?,
            blocks_per_group: u32_of(0x20)?,
            inodes_per_group: u32_of(0x28)?,
            inode_size: u16_of(0x58)?.into(),
            descriptor_size: if is_wide { u16_of(0xfe)?.into() } else { 32 },
            incompatible,
            has_sums: ro_compatible & SUMS != 0,
            uuid: bytes[0x68..0x78].try_into().unwrap_or_default(),
            made: u32_of(0x108)?,
            checked: u32_of(0x40)?,
            first_free: u32_of(0x54)?,
            orphan_file: u32_of(0x280)?,
        };
        if !this.is_sound() {
            return Err(format!("its geometry makes no sense: {this:?}"));
        }
        Ok(this)
    }

    fn is_sound(&self) -> bool {
        let is_size = |size: u64, least: u64| size.is_power_of_two() && size >= least;
        let bits = self.block_size * 8;
        is_size(self.block_size, 1024)
            && is_size(self.inode_size, 128)
            && self.inode_size <= self.block_size
            && is_size(self.descriptor_size, if self.incompatible & WIDE != 0 { 64 } else { 32 })
            && self.descriptor_size <= self.block_size
            && self.first_data_block == u32::from(self.block_size == 1024)
            && (1..=bits).contains(&self.blocks_per_group.into())
            && (1..=bits).contains(&self.inodes_per_group.into())
            && self.table_len().is_multiple_of(self.block_size)
            && self.blocks > self.first_data_block.into()
            && self.groups().checked_mul(self.inodes_per_group.into()) == Some(self.inodes.into())
            && (11..=self.inodes).contains(&self.first_free)
    }

    fn groups(&self) -> u64 {
        let blocks = self.blocks.saturating_sub(self.first_data_block.into());
        blocks.div_ceil(self.blocks_per_group.into())
    }

    /// The length of a group's inode table in bytes.
    fn table_len(&self) -> u64 {
        u64::from(self.inodes_per_group) * self.inode_size
    }

    /// Whether a number is an inode's that has a place in the tree: the root, or no special file.
    pub(super) fn has_place(&self, ino: u32) -> bool {
        ino == super::ROOT_INO || (ino >= self.first_free && ino != self.orphan_file)
    }
}

/// An ext4 file system on a device to which nobody writes.
#[derive(Debug)]
pub(super) struct Ext4 {
    device: File,
    path: PathBuf,
    pub(super) superblock: Superblock,
    /// Where each group's inode table begins, in bytes.
    tables: Vec<u64>,
}

impl Ext4 {
    /// Reads what says where the inodes are.
    ///
    /// # Errors
    /// `Unsupported`, with the reason, for a file system that is not wholly understood.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let device = File::open(&path).map_err(|error| Error::sys("open", &path, error))?;
        // Only what is asked for: inode tables are looked at here and there.
        rustix::fs::fadvise(device.as_fd(), 0, None, Advice::Random)
            .map_err(|errno| Error::sys("fadvise", &path, errno))?;
        let mut bytes = [0; SUPERBLOCK_LEN];
        read(&device, &path, &mut bytes, SUPERBLOCK)?;
        let superblock = Superblock::parse(&bytes).map_err(|reason| refused(&path, reason))?;
        let length = superblock.groups() * superblock.descriptor_size;
        if length > MAX_DESCRIPTORS {
            return Err(refused(&path, format!("{} groups are too many", superblock.groups())));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let at = u64::from(superblock.first_data_block + 1) * superblock.block_size;
        read(&device, &path, &mut bytes, at)?;
        let tables = tables(&superblock, &bytes).map_err(|reason| refused(&path, reason))?;
        Ok(Self { device, path, superblock, tables })
    }

    /// Sees that two are of one origin, and keep their inodes in the same places.
    ///
    /// # Errors
    /// `Unsupported`, with the reason.
    pub(super) fn compare(&self, other: &Self) -> Result<()> {
        if self.superblock != other.superblock {
            let reason = format!("{:?} is not {:?}", self.superblock, other.superblock);
            return Err(refused(&self.path, reason));
        }
        if self.tables != other.tables {
            return Err(refused(&self.path, "its inode tables are elsewhere".to_owned()));
        }
        Ok(())
    }

    /// The inode tables in the order of their places, each with its group.
    pub(super) fn tables(&self) -> Tables {
        let groups = self.tables.iter().zip(0..);
        let mut places: Vec<_> = groups.map(|(&at, group)| (at, group)).collect();
        places.sort_unstable();
        Tables { places, superblock: self.superblock, inodes: Vec::new() }
    }

    /// Reads inodes of one group as they are on the device; 0 is inode 1.
    pub(super) fn read_inodes(&self, inodes: Range<u64>, into: &mut [u8]) -> Result<()> {
        let per_group = u64::from(self.superblock.inodes_per_group);
        let group = usize::try_from(inodes.start / per_group).unwrap_or(usize::MAX);
        let Some(table) = self.tables.get(group) else {
            return Err(refused(&self.path, format!("it has no inode {}", inodes.start + 1)));
        };
        let at = table + inodes.start % per_group * self.superblock.inode_size;
        read(&self.device, &self.path, into, at)
    }
}

/// The places of the tables that a table of group descriptors names.
fn tables(superblock: &Superblock, bytes: &[u8]) -> std::result::Result<Vec<u64>, String> {
    let size = usize::try_from(superblock.descriptor_size).unwrap_or(usize::MAX);
    let is_wide = superblock.incompatible & WIDE != 0;
    let place = |descriptor: &[u8]| {
        let high = if is_wide { u32_at(descriptor, 0x28)? } else { 0 };
        let block = u64::from(high) << 32 | u64::from(u32_at(descriptor, 0x8)?);
        let at = block.checked_mul(superblock.block_size)?;
        let end = at.checked_add(superblock.table_len())?;
        let is_inside = block > superblock.first_data_block.into()
            && end <= superblock.blocks.checked_mul(superblock.block_size)?;
        is_inside.then_some(at)
    };
    let places = bytes.chunks_exact(size).map(place).collect::<Option<Vec<_>>>();
    places.ok_or_else(|| "an inode table is not inside the file system".to_owned())
}

/// The inode tables, from which the changed inodes are picked.
#[derive(Debug)]
pub(super) struct Tables {
    places: Vec<(u64, u64)>,
    superblock: Superblock,
    inodes: Vec<Range<u64>>,
}

impl Tables {
    /// Notes the inodes that a part of the device has.
    pub(super) fn touch(&mut self, part: Range<u64>) {
        let length = self.superblock.table_len();
        let first = self.places.partition_point(|&(at, _)| at + length <= part.start);
        for &(at, group) in self.places[first..].iter().take_while(|&&(at, _)| at < part.end) {
            let size = self.superblock.inode_size;
            let index = group * u64::from(self.superblock.inodes_per_group);
            let start = index + part.start.saturating_sub(at) / size;
            let end = index + (part.end - at).min(length).div_ceil(size);
            match self.inodes.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => self.inodes.push(start..end),
            }
        }
    }

    /// All that were noted, each piece within one group; 0 is inode 1.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = Range<u64>> {
        let per_group = u64::from(self.superblock.inodes_per_group);
        self.inodes.into_iter().flat_map(move |all| {
            let groups = all.start / per_group..all.end.div_ceil(per_group);
            groups.map(move |group| {
                let first = group * per_group;
                all.start.max(first)..all.end.min(first + per_group)
            })
        })
    }
}

fn read(device: &File, path: &Path, into: &mut [u8], at: u64) -> Result<()> {
    device.read_exact_at(into, at).map_err(|error| Error::sys("pread", path, error))
}

fn refused(path: &Path, reason: String) -> Error {
    Error::refused("read ext4", path, reason, ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests;
