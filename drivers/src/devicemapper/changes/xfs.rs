//! Where the inodes of an xfs file system are, read from its device.
//!
//! The layout is that of "XFS Algorithms & Data Structures", version 5: a superblock at byte 0, and in each
//! allocation group a header with the root of a tree of its inodes (see [`inobt`]). Numbers are
//! big-endian. A file system with a feature that is not known here is refused: it might keep its
//! inodes elsewhere, or change them unseen.
//!
//! What the log holds is not on the device yet. Nothing here looks at it: a device that takes no writes is
//! mounted only if its log is clean, and a mount of any other puts everything that the log holds in
//! place before it returns. Both have been mounted before they come here.

mod inobt;
mod inode;

use std::path::PathBuf;

use cow::error::Result;

use super::disk::Disk;
use super::format::Format;
use super::places::Place;
use inode::Written;

/// How much of the superblock is read: what version 5 says of it.
const SUPERBLOCK_LEN: usize = 264;
const MAGIC: u32 = 0x5846_5342;
const VERSION: u16 = 5;

/// Incompatible features: `ftype`, `spinodes`, `meta_uuid`, `bigtime`, `nrext64`. Not `needsrepair`, and not
/// those that came later, of which a directory of metadata has inodes without a place in the tree.
const INCOMPAT: u32 = 0x1 | SPARSE | 0x4 | 0x8 | 0x20;
/// `spinodes`: a chunk of inodes may have holes.
const SPARSE: u32 = 0x2;
/// Features that matter to writers: `finobt`, `rmapbt`, `reflink`, `inobtcount`.
const RO_COMPAT: u32 = 0x1 | 0x2 | 0x4 | 0x8;

/// The most groups that are read.
const MAX_GROUPS: u32 = 65_536;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// What is read of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Superblock {
    block_size: u64,
    blocks: u64,
    group_blocks: u32,
    groups: u32,
    sector_size: u64,
    inode_size: u64,
    /// Logarithms of the numbers of inodes in a block, and of blocks in a group; the latter rounded up.
    inode_bits: u32,
    group_bits: u32,
    root: u64,
    /// Files without a name: the real-time device's bitmap and summary, and the quotas of users, groups and
    /// projects; 0 or all ones where there are none.
    nameless: [u64; 5],
    incompatible: u32,
    uuid: [u8; 16],
    /// What the metadata has in the place of the other, if it is another.
    meta_uuid: [u8; 16],
}

impl Superblock {
    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let u16_of = |at| u16_at(bytes, at).ok_or("the superblock is cut off");
        let u32_of = |at| u32_at(bytes, at).ok_or("the superblock is cut off");
        let u64_of = |at| u64_at(bytes, at).ok_or("the superblock is cut off");
        let uuid_of = |at: usize| {
            let uuid = bytes.get(at..at + 16).and_then(|bytes| bytes.try_into().ok());
            uuid.ok_or("the superblock is cut off")
        };
        let bits_of = |at| bytes.get(at).map(|&b| u32::from(b)).ok_or("the superblock is cut off");
        if u32_of(0)? != MAGIC {
            return Err("no xfs".to_owned());
        }
        let version = u16_of(100)? & 0xf;
        let (ro_compatible, incompatible, log) = (u32_of(212)?, u32_of(216)?, u32_of(220)?);
        let (other, ro_other) = (incompatible & !INCOMPAT, ro_compatible & !RO_COMPAT);
        if version != VERSION || other != 0 || ro_other != 0 || log != 0 {
            let features = format!("features {other:#x}, {ro_other:#x}, {log:#x}");
            return Err(format!("version {version}, {features}"));
        }
        let (in_progress, real_time) = (bits_of(126)?, u64_of(16)?);
        if in_progress != 0 || real_time != 0 {
            return Err(format!("being made: {in_progress}, real-time blocks: {real_time}"));
        }
        let this = Self {
            block_size: u32_of(4)?.into(),
            blocks: u64_of(8)?,
            group_blocks: u32_of(84)?,
            groups: u32_of(88)?,
            sector_size: u16_of(102)?.into(),
            inode_size: u16_of(104)?.into(),
            inode_bits: bits_of(123)?,
            group_bits: bits_of(124)?,
            root: u64_of(56)?,
            nameless: [u64_of(64)?, u64_of(72)?, u64_of(160)?, u64_of(168)?, u64_of(232)?],
            incompatible,
            uuid: uuid_of(32)?,
            meta_uuid: uuid_of(248)?,
        };
        if !this.is_sound() {
            return Err(format!("its geometry makes no sense: {this:?}"));
        }
        Ok(this)
    }

    fn is_sound(&self) -> bool {
        let is_size = |size: u64, range: std::ops::RangeInclusive<u64>| {
            size.is_power_of_two() && range.contains(&size)
        };
        let group = u64::from(self.group_blocks);
        let rounded = group.checked_next_power_of_two().map(u64::trailing_zeros);
        let all = group.checked_mul(self.groups.into()).unwrap_or_default();
        is_size(self.block_size, 1024..=65_536)
            && is_size(self.sector_size, 512..=self.block_size.min(32_768))
            && is_size(self.inode_size, 512..=self.block_size.min(2048))
            && (self.block_size / self.inode_size).trailing_zeros() == self.inode_bits
            && rounded == Some(self.group_bits)
            && self.group_bits + self.inode_bits <= 32
            && (1..=MAX_GROUPS).contains(&self.groups)
            && (4 * self.sector_size..=u64::MAX).contains(&(group * self.block_size))
            && (all - group + 1..=all).contains(&self.blocks)
            && self.blocks.checked_mul(self.block_size).is_some()
    }

    /// The inodes of a group are numbered from here on.
    fn first_of(&self, group: u32) -> u64 {
        u64::from(group) << (self.group_bits + self.inode_bits)
    }

    /// Where a group begins, in bytes.
    fn place_of(&self, group: u32) -> u64 {
        u64::from(group) * u64::from(self.group_blocks) * self.block_size
    }

    /// How many blocks a group has; the last one may be shorter.
    fn length_of(&self, group: u32) -> u64 {
        let before = u64::from(group) * u64::from(self.group_blocks);
        (self.blocks - before).min(self.group_blocks.into())
    }

    /// The identity that all metadata has.
    fn identity(&self) -> [u8; 16] {
        const META_UUID: u32 = 0x4;
        if self.incompatible & META_UUID != 0 { self.meta_uuid } else { self.uuid }
    }
}

/// An xfs file system on a device to which nobody writes.
#[derive(Debug)]
pub(super) struct Xfs {
    disk: Disk,
    superblock: Superblock,
}

impl Format for Xfs {
    fn open(path: PathBuf) -> Result<Self> {
        let disk = Disk::open(path, "read xfs")?;
        // xfs writes its metadata past what is in memory of the device.
        disk.forget()?;
        let mut bytes = [0; SUPERBLOCK_LEN];
        disk.read(&mut bytes, 0)?;
        let superblock = Superblock::parse(&bytes).map_err(|reason| disk.refused(reason))?;
        Ok(Self { disk, superblock })
    }

    fn compare(&self, other: &Self) -> Result<()> {
        if self.superblock == other.superblock {
            return Ok(());
        }
        let reason = format!("{:?} is not {:?}", self.superblock, other.superblock);
        Err(self.disk.refused(reason))
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn inode_size(&self) -> u64 {
        self.superblock.inode_size
    }

    fn root(&self) -> u64 {
        self.superblock.root
    }

    fn per_group(&self) -> u64 {
        self.superblock.first_of(1)
    }

    fn places(&self) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for group in 0..self.superblock.groups {
            inobt::read(&self.disk, &self.superblock, group, &mut places)?;
        }
        Ok(places)
    }

    fn written(&self, ino: u64, below: &[u8], above: &[u8]) -> Result<Option<u32>> {
        if self.superblock.nameless.contains(&ino) {
            return Ok(None);
        }
        match inode::written(ino, &self.superblock.identity(), below, above) {
            Written::Yes(names) => Ok(Some(names)),
            Written::No => Ok(None),
            Written::NoInode => Err(self.disk.refused(format!("there is no inode {ino}"))),
        }
    }
}

#[cfg(test)]
mod tests;
