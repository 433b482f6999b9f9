//! The inodes of an allocation group, as its tree of them has it.
//!
//! Inodes are made in chunks of 64. A group's header ("AGI") is in its third sector and names the root of a
//! B+tree, whose blocks are in the group, too; its leaves have one record for each chunk, with the number
//! of its first inode in the group. With sparse inodes a bit of a mask says of each four of them that
//! they are not there, and the place holds something else.

use std::collections::HashSet;

use cow::error::Result;

use super::super::disk::Disk;
use super::super::places::Place;
use super::{SPARSE, Superblock, u16_at, u32_at, u64_at};

/// How many inodes a chunk has, and a bit of its mask of holes.
const CHUNK: u64 = 64;
const HOLE: u64 = 4;

/// A group's header, as far as it is read: magic, version, number, length, inodes, root, levels, identity.
const AGI_MAGIC: u32 = 0x5841_4749;
const AGI_LEN: usize = 312;
const AGI_SECTOR: u64 = 2;

/// A block of the tree: what it is, its level, how many entries; what it is of; then the entries.
const BLOCK_MAGIC: u32 = 0x4941_4233;
const HEADER_LEN: usize = 56;
const RECORD_LEN: usize = 16;
const KEY_LEN: usize = 4;
const MAX_LEVELS: u32 = 9;

/// Adds the places of a group's inodes, in rising order.
///
/// # Errors
/// `Unsupported` for a tree that is not wholly as it should be.
pub(super) fn read(
    disk: &Disk,
    superblock: &Superblock,
    group: u32,
    places: &mut Vec<Place>,
) -> Result<()> {
    let refused = |reason| disk.refused(format!("group {group}: {reason}"));
    let mut bytes = [0; AGI_LEN];
    disk.read(&mut bytes, superblock.place_of(group) + AGI_SECTOR * superblock.sector_size)?;
    let header = Header::parse(&bytes, superblock, group).map_err(refused)?;
    let mut tree = Tree { superblock, group, places, last: None, inodes: 0, seen: HashSet::new() };
    let mut block = vec![0; usize::try_from(superblock.block_size).unwrap_or_default()];
    let mut pending = vec![(header.root, header.levels - 1)];
    while let Some((number, level)) = pending.pop() {
        let at = tree.place_of(number).map_err(refused)?;
        disk.read(&mut block, at)?;
        let below = tree.take(&block, at, level).map_err(refused)?;
        // The first comes next.
        pending.extend(below.into_iter().rev().map(|number| (number, level.saturating_sub(1))));
    }
    if tree.inodes != u64::from(header.inodes) {
        let reason = format!("{} inodes in the tree are not {}", tree.inodes, header.inodes);
        return Err(refused(reason));
    }
    Ok(())
}

/// What is read of a group's header.
#[derive(Clone, Copy, Debug)]
struct Header {
    inodes: u32,
    root: u32,
    levels: u32,
}

impl Header {
    fn parse(bytes: &[u8], superblock: &Superblock, group: u32) -> Result<Self, String> {
        let is_its = u32_at(bytes, 0) == Some(AGI_MAGIC)
            && u32_at(bytes, 4) == Some(1)
            && u32_at(bytes, 8) == Some(group)
            && u32_at(bytes, 12).map(u64::from) == Some(superblock.length_of(group))
            && bytes.get(296..312) == Some(&superblock.identity());
        let parse = || {
            let this = Self {
                inodes: u32_at(bytes, 16)?,
                root: u32_at(bytes, 20)?,
                levels: u32_at(bytes, 24)?,
            };
            (is_its && (1..=MAX_LEVELS).contains(&this.levels)).then_some(this)
        };
        parse().ok_or_else(|| "its header is none".to_owned())
    }
}

/// A tree that is being read.
struct Tree<'t> {
    superblock: &'t Superblock,
    group: u32,
    places: &'t mut Vec<Place>,
    /// The number in the group after those of the last chunk.
    last: Option<u64>,
    inodes: u64,
    /// The blocks that were read, each of which is in the tree once.
    seen: HashSet<u32>,
}

impl Tree<'_> {
    /// Where a block of the group is.
    fn place_of(&mut self, number: u32) -> Result<u64, String> {
        let is_inside = number > 0 && u64::from(number) < self.superblock.length_of(self.group);
        if !is_inside || !self.seen.insert(number) {
            return Err(format!("block {number} is no block of its tree"));
        }
        let start = self.superblock.place_of(self.group);
        Ok(start + u64::from(number) * self.superblock.block_size)
    }

    /// Takes in a block of the tree; the numbers of the blocks below it.
    fn take(&mut self, block: &[u8], at: u64, level: u32) -> Result<Vec<u32>, String> {
        let count = usize::from(u16_at(block, 6).unwrap_or_default());
        let entry = if level == 0 { RECORD_LEN } else { 2 * KEY_LEN };
        let most = (block.len() - HEADER_LEN) / entry;
        let is_its = u32_at(block, 0) == Some(BLOCK_MAGIC)
            && u16_at(block, 4).map(u32::from) == Some(level)
            && u64_at(block, 16) == Some(at / 512)
            && u32_at(block, 48) == Some(self.group)
            && block.get(32..48) == Some(&self.superblock.identity())
            && count <= most;
        if !is_its {
            return Err(format!("the block at {at} is none of its tree"));
        }
        if level > 0 {
            let numbers = HEADER_LEN + most * KEY_LEN;
            let below = (0..count).filter_map(|index| u32_at(block, numbers + index * KEY_LEN));
            return Ok(below.collect());
        }
        for record in block[HEADER_LEN..].chunks_exact(RECORD_LEN).take(count) {
            self.chunk(record).ok_or_else(|| format!("the block at {at} has no such chunk"))?;
        }
        Ok(Vec::new())
    }

    /// Takes in the record of a chunk; none if it makes no sense.
    fn chunk(&mut self, record: &[u8]) -> Option<()> {
        let start = u64::from(u32_at(record, 0)?);
        let is_sparse = self.superblock.incompatible & SPARSE != 0;
        let (holes, count) =
            if is_sparse { (u16_at(record, 4)?, u64::from(*record.get(6)?)) } else { (0, CHUNK) };
        let bits = self.superblock.inode_bits;
        // A chunk begins with a block, or is a part of one.
        let is_aligned = start.is_multiple_of(CHUNK.min(1 << bits));
        let is_inside = start + CHUNK <= self.superblock.length_of(self.group) << bits;
        let is_next = self.last.is_none_or(|last| start >= last);
        if !is_aligned || !is_inside || !is_next {
            return None;
        }
        self.last = Some(start + CHUNK);
        let mut there = 0;
        for index in (0..CHUNK / HOLE).filter(|index| holes >> index & 1 == 0) {
            there += HOLE;
            self.add(start + index * HOLE);
        }
        self.inodes += there;
        (there == count).then_some(())
    }

    /// Adds four inodes.
    fn add(&mut self, start: u64) {
        let superblock = self.superblock;
        let size = superblock.inode_size;
        let first = superblock.first_of(self.group) + start;
        let at = superblock.place_of(self.group) + start * size;
        match self.places.last_mut() {
            Some(last) if last.first + last.count == first && last.at + last.count * size == at => {
                last.count += HOLE;
            }
            _ => self.places.push(Place { at, first, count: HOLE }),
        }
    }
}
