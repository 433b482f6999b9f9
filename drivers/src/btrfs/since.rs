//! What was written in a subvolume since a transaction, read from the file system's own tree.
//!
//! Btrfs never changes a block of a tree in place: whoever changes an item writes new blocks from its
//! leaf up to the root, each with the number of the transaction. A search for blocks newer than a
//! transaction therefore passes over all parts of the tree that did not change, and meets the changed
//! leaves alone (`BTRFS_IOC_TREE_SEARCH_V2`, `min_transid`). An inode's item tells in which
//! transaction it was last written; every change of its content, metadata, attributes, names or, for a
//! directory, entries writes it.
//!
//! The layouts are those of `linux/btrfs_tree.h`; numbers are little-endian.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};

use btrfs_uapi::tree_search::SearchHeader;
use cow::diff::Touched;
use cow::error::Result;

use super::search::{
    INODE_ITEM, INODE_REF, Links, Name, inode_items, names_of, refs, u32_at, u64_at,
};
use super::subvolume::ROOT_INO;
use crate::driver::Usage;

/// The type of the items that say where a file's content is.
const EXTENT_DATA: u32 = 108;
/// The space that was taken in a subvolume since a transaction; 0 is since ever.
pub(super) fn usage(dir: impl AsFd, transaction: u64) -> Result<Usage> {
    Ok(Search::run(dir.as_fd(), transaction)?.usage)
}

/// The bytes on the disk of the extents that a subvolume refers to, however much of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Referenced {
    pub(super) all: u64,
    /// Those among them that were allocated since a transaction.
    pub(super) own: u64,
}

/// What a subvolume refers to. All of its tree is read.
pub(super) fn referenced(dir: impl AsFd, transaction: u64) -> Result<Referenced> {
    let mut bytes = Referenced::default();
    let mut met = HashSet::new();
    inode_items(dir.as_fd(), 0, |header, data| {
        if header.item_type != EXTENT_DATA {
            return;
        }
        let Some(extent) = Extent::parse(data) else { return };
        if extent.at == 0 || met.insert(extent.at) {
            bytes.all += extent.length;
            if extent.allocated_in > transaction {
                bytes.own += extent.length;
            }
        }
    })?;
    Ok(bytes)
}

/// Everything that was written in a subvolume since a transaction.
pub(super) fn written(dir: impl AsFd, transaction: u64) -> Result<Touched> {
    let dir = dir.as_fd();
    let search = Search::run(dir, transaction)?;
    let mut ways = Ways { dir, names: HashMap::new(), known: HashSet::from([ROOT_INO]) };
    for (ino, inode) in &search.inodes {
        if !ways.known.insert(*ino) {
            continue;
        }
        let all_seen = inode.links == 1 && inode.names.len() == 1;
        let links = if inode.links > 1 { Links::Many } else { Links::One };
        let names = if all_seen { inode.names.clone() } else { names_of(dir, *ino, links)? };
        for name in names {
            ways.lead(name)?;
        }
    }
    let inodes = search.inodes.into_keys().collect();
    Ok(Touched { inodes, names: ways.names })
}

/// A file of which content was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrittenFile {
    pub(super) ino: u64,
    pub(super) size: u64,
}

/// The regular files of at least `least` bytes that got blocks of their own in a subvolume since a
/// transaction, in order of their inodes.
pub(super) fn written_files(
    dir: impl AsFd,
    transaction: u64,
    least: u64,
) -> Result<Vec<WrittenFile>> {
    let mut files = Vec::new();
    let mut met: Option<WrittenFile> = None;
    inode_items(dir.as_fd(), transaction + 1, |header, data| {
        let ino = header.objectid;
        match header.item_type {
            INODE_ITEM => {
                let wanted = |item: &InodeItem| {
                    item.is_file() && item.size >= least && item.is_written(transaction)
                };
                let item = InodeItem::parse(data).filter(wanted);
                met = item.map(|item| WrittenFile { ino, size: item.size });
            }
            EXTENT_DATA => {
                let own = |extent: &Extent| extent.at != 0 && extent.allocated_in > transaction;
                if Extent::parse(data).is_some_and(|extent| own(&extent)) {
                    // Once for each file.
                    files.extend(met.take_if(|file| file.ino == ino));
                }
            }
            _ => {}
        }
    })?;
    Ok(files)
}

/// Whether an inode's item says that it was written after a transaction, and it still has a name.
pub(super) fn is_written(data: &[u8], transaction: u64) -> bool {
    InodeItem::parse(data).is_some_and(|item| item.is_written(transaction))
}

/// A written inode.
#[derive(Debug, Default)]
struct Inode {
    links: u32,
    /// The names that were met by the way; there may be more.
    names: Vec<Name>,
}

/// The search for written inodes.
#[derive(Debug, Default)]
struct Search {
    inodes: HashMap<u64, Inode>,
    usage: Usage,
    /// Where counted extents begin; one can be in several files, or several times in one.
    extents: HashSet<u64>,
}

impl Search {
    fn run(dir: BorrowedFd<'_>, transaction: u64) -> Result<Self> {
        let mut search = Self::default();
        inode_items(dir, transaction + 1, |header, data| {
            search.item(header, data, transaction);
        })?;
        Ok(search)
    }

    /// Takes one item of a changed leaf. Items of an inode come after the inode's own, in order of
    /// their types; those of its neighbours that were not written are passed over.
    fn item(&mut self, header: &SearchHeader, data: &[u8], transaction: u64) {
        match header.item_type {
            INODE_ITEM => {
                let Some(item) = InodeItem::parse(data) else { return };
                if item.is_written(transaction) {
                    self.usage.inodes += 1;
                    if item.is_file() {
                        self.usage.content += item.size;
                    }
                    self.inodes.insert(header.objectid, Inode { links: item.links, names: vec![] });
                }
            }
            INODE_REF => {
                if let Some(inode) = self.inodes.get_mut(&header.objectid) {
                    inode.names.extend(refs(header.offset, data));
                }
            }
            EXTENT_DATA => {
                let Some(extent) = Extent::parse(data) else { return };
                let is_new = extent.allocated_in > transaction;
                if is_new && (extent.at == 0 || self.extents.insert(extent.at)) {
                    self.usage.bytes += extent.length;
                }
            }
            _ => {}
        }
    }
}

/// The ways from the root to written inodes.
struct Ways<'d> {
    dir: BorrowedFd<'d>,
    names: HashMap<u64, Vec<OsString>>,
    /// Inodes to which the way is noted already, or will be.
    known: HashSet<u64>,
}

impl Ways<'_> {
    /// Notes a name and the directories above it.
    fn lead(&mut self, name: Name) -> Result<()> {
        let mut next = vec![name];
        while let Some(Name { parent, name }) = next.pop() {
            self.names.entry(parent).or_default().push(name);
            if self.known.insert(parent) {
                next.extend(names_of(self.dir, parent, Links::One)?);
            }
        }
        Ok(())
    }
}

/// What is read of a `btrfs_inode_item`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InodeItem {
    written_in: u64,
    size: u64,
    links: u32,
    mode: u32,
}

impl InodeItem {
    fn parse(data: &[u8]) -> Option<Self> {
        let (written_in, size) = (u64_at(data, 8)?, u64_at(data, 16)?);
        Some(Self { written_in, size, links: u32_at(data, 40)?, mode: u32_at(data, 52)? })
    }

    /// Whether it was written after a transaction and still has a name.
    fn is_written(&self, transaction: u64) -> bool {
        self.written_in > transaction && self.links > 0
    }

    fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

/// What is read of a `btrfs_file_extent_item`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    allocated_in: u64,
    /// Where the extent is; 0 for content that is kept in the tree itself.
    at: u64,
    /// Bytes on the disk, after compression.
    length: u64,
}

impl Extent {
    /// Where the content of an inline extent begins.
    const INLINE: usize = 21;

    /// None for a hole.
    fn parse(data: &[u8]) -> Option<Self> {
        let allocated_in = u64_at(data, 0)?;
        if data.get(20)? == &0 {
            let length = data.len().saturating_sub(Self::INLINE) as u64;
            return Some(Self { allocated_in, at: 0, length });
        }
        match u64_at(data, 21)? {
            0 => None,
            at => Some(Self { allocated_in, at, length: u64_at(data, 29)? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_every_form_are_read() {
        let mut inode = vec![0; 160];
        inode[8..16].copy_from_slice(&77_u64.to_le_bytes());
        inode[16..24].copy_from_slice(&4097_u64.to_le_bytes());
        inode[40..44].copy_from_slice(&2_u32.to_le_bytes());
        inode[52..56].copy_from_slice(&0o100_644_u32.to_le_bytes());
        let item = InodeItem::parse(&inode).unwrap();
        assert_eq!(item, InodeItem { written_in: 77, size: 4097, links: 2, mode: 0o100_644 });
        assert!(item.is_file());

        let mut extent = vec![0; 53];
        extent[0..8].copy_from_slice(&9_u64.to_le_bytes());
        extent[20] = 1;
        assert_eq!(Extent::parse(&extent), None, "a hole");
        extent[21..29].copy_from_slice(&4096_u64.to_le_bytes());
        extent[29..37].copy_from_slice(&8192_u64.to_le_bytes());
        let regular = Extent { allocated_in: 9, at: 4096, length: 8192 };
        assert_eq!(Extent::parse(&extent), Some(regular));
        extent[20] = 0;
        let inline = Extent { allocated_in: 9, at: 0, length: 32 };
        assert_eq!(Extent::parse(&extent), Some(inline));
    }

    #[test]
    fn cut_off_items_are_no_panic() {
        for length in 0..60 {
            let data = vec![0xff; length];
            let _ = (InodeItem::parse(&data), Extent::parse(&data));
        }
    }
}
