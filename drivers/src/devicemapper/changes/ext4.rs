//! Where the inode tables of an ext4 file system are, read from its device.
//!
//! The layout is that of the kernel's Documentation/filesystems/ext4: a superblock of 1024 bytes at
//! byte 1024, and a table of group descriptors in the block after the superblock's. Numbers are
//! little-endian. A file system with a feature that is not known here is refused: it might keep its
//! inodes elsewhere, or change them unseen.

mod inode;

use std::path::PathBuf;

use cow::error::Result;

use super::disk::Disk;
use super::format::Format;
use super::places::Place;

/// The inode number of a root directory.
const ROOT_INO: u32 = 2;

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

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What is read of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Superblock {
    inodes: u32,
    blocks: u64,
    block_size: u64,
    first_data_block: u32,
    blocks_per_group: u32,
    inodes_per_group: u32,
    inode_size: u64,
    descriptor_size: u64,
    incompatible: u32,
    has_sums: bool,
    uuid: [u8; 16],
    made: u32,
    /// When `e2fsck` was here last: what it mends it does not date.
    checked: u32,
    /// The first number that is not the file system's own.
    first_free: u32,
    /// The file that lists deleted files which are still open; it has no name.
    orphan_file: u32,
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
    fn has_place(&self, ino: u32) -> bool {
        ino == ROOT_INO || (ino >= self.first_free && ino != self.orphan_file)
    }
}

/// An ext4 file system on a device to which nobody writes.
#[derive(Debug)]
pub(super) struct Ext4 {
    disk: Disk,
    superblock: Superblock,
    /// Where each group's inode table begins, in bytes.
    tables: Vec<u64>,
}

impl Format for Ext4 {
    fn open(path: PathBuf) -> Result<Self> {
        let disk = Disk::open(path, "read ext4")?;
        let mut bytes = [0; SUPERBLOCK_LEN];
        disk.read(&mut bytes, SUPERBLOCK)?;
        let superblock = Superblock::parse(&bytes).map_err(|reason| disk.refused(reason))?;
        let length = superblock.groups() * superblock.descriptor_size;
        if length > MAX_DESCRIPTORS {
            return Err(disk.refused(format!("{} groups are too many", superblock.groups())));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let at = u64::from(superblock.first_data_block + 1) * superblock.block_size;
        disk.read(&mut bytes, at)?;
        let tables = tables(&superblock, &bytes).map_err(|reason| disk.refused(reason))?;
        Ok(Self { disk, superblock, tables })
    }

    fn compare(&self, other: &Self) -> Result<()> {
        if self.superblock != other.superblock {
            let reason = format!("{:?} is not {:?}", self.superblock, other.superblock);
            return Err(self.disk.refused(reason));
        }
        if self.tables != other.tables {
            return Err(self.disk.refused("its inode tables are elsewhere"));
        }
        Ok(())
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn inode_size(&self) -> u64 {
        self.superblock.inode_size
    }

    fn root(&self) -> u64 {
        ROOT_INO.into()
    }

    fn per_group(&self) -> u64 {
        self.superblock.inodes_per_group.into()
    }

    fn places(&self) -> Result<Vec<Place>> {
        let count = self.per_group();
        let groups = self.tables.iter().zip(0..);
        Ok(groups.map(|(&at, group)| Place { at, first: group * count + 1, count }).collect())
    }

    fn written(&self, ino: u64, below: &[u8], above: &[u8]) -> Result<Option<u32>> {
        let ino = u32::try_from(ino).unwrap_or(u32::MAX);
        let names = inode::names(above).filter(|_| self.superblock.has_place(ino));
        Ok(names.filter(|_| !inode::is_same(below, above, self.superblock.has_sums)))
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

#[cfg(test)]
mod tests;
