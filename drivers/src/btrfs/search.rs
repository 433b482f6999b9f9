//! Reading the file system's own trees (`BTRFS_IOC_TREE_SEARCH_V2`).
//!
//! The layouts of items are those of `linux/btrfs_tree.h`; numbers are little-endian.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use btrfs_uapi::tree_search::{Key, SearchFilter, SearchHeader, tree_search, tree_search_v2};
use cow::error::{Error, Result};
use nix::errno::Errno;

use super::subvolume::{Nested, ROOT_INO};

/// Item types.
pub(super) const INODE_ITEM: u32 = 1;
pub(super) const INODE_REF: u32 = 12;
const INODE_EXTREF: u32 = 13;
const ORPHAN_ITEM: u32 = 48;
/// The entries of a directory by the sums of their names, and by their order. No directory has items after them.
const DIR_ITEM: u32 = 84;
const DIR_INDEX: u32 = 96;
const ROOT_REF: u32 = 156;
/// The greatest inode number (`BTRFS_LAST_FREE_OBJECTID`).
const LAST_INO: u64 = u64::MAX - 255;
/// What the items of orphans are filed under (`BTRFS_ORPHAN_OBJECTID`).
const ORPHAN: u64 = (-5_i64).cast_unsigned();
/// The tree of all roots.
const ROOT_TREE: u64 = 1;

/// How much a search may return at once: several leaves of the greatest size (64 KiB), so that every item fits.
/// Of one that does not, btrfs-uapi 0.13 would have the kernel write where its buffer was before it grew.
const LARGE: usize = 256 * 1024;

/// How much a search asks for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// Less than 4 KiB. Of an item that is larger there is the head alone.
    Small,
    /// [`LARGE`].
    Large,
}

/// How many directories are remembered by those who look for many paths.
const MOST_KNOWN: usize = 16 << 10;

/// One name of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) parent: u64,
    pub(super) name: OsString,
}

/// How many names an inode has; a directory has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    One,
    Many,
}

/// Whether this process may search trees: it needs `CAP_SYS_ADMIN` in the initial user namespace.
pub(super) fn is_allowed(dir: impl AsFd) -> bool {
    let first = Key { objectid: ROOT_INO, item_type: INODE_ITEM, offset: 0 };
    items(dir.as_fd(), 0, Batch::Small, (first, first), 0, |_, _| ()).is_ok()
}

/// All names of an inode.
///
/// # Errors
/// When there is more to tell than `links` says.
pub(super) fn names_of(dir: BorrowedFd<'_>, ino: u64, links: Links) -> Result<Vec<Name>> {
    let first = Key { objectid: ino, item_type: INODE_REF, offset: 0 };
    let last = Key { objectid: ino, item_type: INODE_EXTREF, offset: u64::MAX };
    let (mut names, mut is_cut) = (Vec::new(), false);
    let batch = if links == Links::One { Batch::Small } else { Batch::Large };
    items(dir, 0, batch, (first, last), 0, |header, data| {
        is_cut |= data.is_empty();
        match header.item_type {
            INODE_REF => names.extend(refs(header.offset, data)),
            INODE_EXTREF => names.extend(extrefs(data)),
            _ => {}
        }
    })?;
    match is_cut {
        true => Err(Error::sys("search tree", "", rustix::io::Errno::OVERFLOW)),
        false => Ok(names),
    }
}

/// The subvolumes right inside the one with this number, which `dir` is the root of.
pub(super) fn nested(dir: BorrowedFd<'_>, subvolume: u64) -> Result<Vec<Nested>> {
    let first = Key { objectid: subvolume, item_type: ROOT_REF, offset: 0 };
    let last = Key { offset: u64::MAX, ..first };
    let mut found = Vec::new();
    items(dir, ROOT_TREE, Batch::Large, (first, last), 0, |header, data| {
        if header.item_type == ROOT_REF {
            found.extend(root_ref(data));
        }
    })?;
    let mut paths = Paths::new(dir);
    let place = |name: Name| Ok(Nested { holder: paths.of(name.parent)?, name: name.name });
    found.into_iter().map(place).collect()
}

/// Whether subvolumes of the file system are deleted and not freed yet: each is an orphan in the tree of roots.
pub(super) fn has_dropped(dir: impl AsFd) -> Result<bool> {
    let first = Key { objectid: ORPHAN, item_type: ORPHAN_ITEM, offset: 0 };
    let last = Key { offset: u64::MAX, ..first };
    let mut found = false;
    items(dir.as_fd(), ROOT_TREE, Batch::Small, (first, last), 0, |_, _| found = true)?;
    Ok(found)
}

/// The paths of inodes from the root of their subvolume; the ways up are looked for once.
pub(super) struct Paths<'d> {
    dir: BorrowedFd<'d>,
    /// Directories met so far.
    known: HashMap<u64, PathBuf>,
}

impl<'d> Paths<'d> {
    /// Those in the subvolume that `dir` is in.
    pub(super) fn new(dir: BorrowedFd<'d>) -> Self {
        Self { dir, known: HashMap::new() }
    }

    /// A path of an inode; of a file with several names one of them.
    pub(super) fn of(&mut self, ino: u64) -> Result<PathBuf> {
        let Some(Name { parent, name }) = self.name_of(ino)? else { return Ok(PathBuf::new()) };
        let mut path = self.directory(parent)?;
        path.push(name);
        Ok(path)
    }

    /// The path of a directory.
    fn directory(&mut self, ino: u64) -> Result<PathBuf> {
        let mut way = Vec::new();
        let mut next = ino;
        let mut path = loop {
            if let Some(path) = self.known.get(&next) {
                break path.clone();
            }
            let Some(Name { parent, name }) = self.name_of(next)? else { break PathBuf::new() };
            way.push((next, name));
            next = parent;
        };
        if self.known.len() + way.len() > MOST_KNOWN {
            self.known.clear();
        }
        for (ino, name) in way.into_iter().rev() {
            path.push(name);
            self.known.insert(ino, path.clone());
        }
        Ok(path)
    }

    /// A name of an inode; the root has none.
    fn name_of(&self, ino: u64) -> Result<Option<Name>> {
        if ino == ROOT_INO {
            return Ok(None);
        }
        // All the names of a file may be more than the smaller search can tell.
        let mut names = match names_of(self.dir, ino, Links::One) {
            Err(_) => names_of(self.dir, ino, Links::Many)?,
            Ok(names) => names,
        };
        match names.pop() {
            None => Err(Error::corrupt("find path", "", format!("inode {ino} has no name"))),
            name => Ok(name),
        }
    }
}

/// Calls `f` for each item of a tree between two keys that is in a block of the transaction `since`
/// or a later one. Tree 0 is the subvolume that `dir` is in.
///
pub(super) fn items(
    dir: BorrowedFd<'_>,
    tree_id: u64,
    batch: Batch,
    (start, end): (Key, Key),
    since: u64,
    mut f: impl FnMut(&SearchHeader, &[u8]),
) -> Result<()> {
    let filter = SearchFilter { tree_id, start, end, min_transid: since, max_transid: u64::MAX };
    let item = |header: &SearchHeader, data: &[u8]| {
        f(header, data);
        Ok(())
    };
    let found = match batch {
        Batch::Small => tree_search(dir, filter, item),
        Batch::Large => tree_search_v2(dir, filter, Some(LARGE), item),
    };
    found.map_err(|errno| Error::sys("search tree", "", errno))
}

/// Everything about the inodes of a subvolume.
const INODES: (Key, Key) = (
    Key { objectid: ROOT_INO, item_type: 0, offset: 0 },
    Key { objectid: LAST_INO, item_type: u32::MAX, offset: u64::MAX },
);

/// Calls `f` for each item of an inode, but for the entries of directories, that is in a block of the transaction
/// `since` or a later one, in the subvolume that `dir` is in.
///
/// A file that is made in a directory of hundreds writes leaves full of the others' names, and the kernel takes its time
/// to copy each. So it is asked for little at a time, and for more as long as no directory is met whose entries
/// can be passed over.
pub(super) fn inode_items(
    dir: BorrowedFd<'_>,
    since: u64,
    mut f: impl FnMut(&SearchHeader, &[u8]),
) -> Result<()> {
    let (mut start, end) = INODES;
    let mut batch = Batch::Small;
    loop {
        let filter =
            SearchFilter { tree_id: 0, start, end, min_transid: since, max_transid: u64::MAX };
        let mut pass = Pass { batch, taken: 0, entries: 0, next: None };
        let item = |header: &SearchHeader, data: &[u8]| {
            pass.item(header, data).map(|wanted| {
                if wanted {
                    f(header, data);
                }
            })
        };
        let ended = match batch {
            Batch::Small => tree_search(dir, filter, item),
            Batch::Large => tree_search_v2(dir, filter, Some(LARGE), item),
        };
        match pass.next {
            Some(next) => (start, batch) = next,
            None => return ended.map_err(|errno| Error::sys("search tree", "", errno)),
        }
    }
}

/// A search of [`inode_items`] up to where another does better.
#[derive(Debug)]
struct Pass {
    batch: Batch,
    /// Bytes of items that were read.
    taken: usize,
    /// Entries in a row, which are those of one directory.
    entries: usize,
    /// Where the next search begins, if this one does not come to the end.
    next: Option<(Key, Batch)>,
}

impl Pass {
    /// How much is read in small batches before it is read in large ones.
    const PATIENCE: usize = 16 * 1024;
    /// After so many entries those that are left are passed over; fewer cost less than another search.
    const ENTRIES: usize = 32;

    /// Whether an item is wanted; an error ends the search.
    fn item(&mut self, header: &SearchHeader, data: &[u8]) -> std::result::Result<bool, Errno> {
        let SearchHeader { objectid, item_type, offset, .. } = *header;
        if matches!(item_type, DIR_ITEM..=DIR_INDEX) {
            self.entries += 1;
            if self.entries > Self::ENTRIES {
                let key = Key { objectid, item_type: DIR_INDEX + 1, offset: 0 };
                return self.go_on_at(key, Batch::Small);
            }
            return Ok(false);
        }
        self.entries = 0;
        if self.batch == Batch::Small && (data.is_empty() || self.taken > Self::PATIENCE) {
            return self.go_on_at(Key { objectid, item_type, offset }, Batch::Large);
        }
        self.taken += size_of::<SearchHeader>() + data.len();
        Ok(true)
    }

    fn go_on_at(&mut self, key: Key, batch: Batch) -> std::result::Result<bool, Errno> {
        self.next = Some((key, batch));
        Err(Errno::ECANCELED)
    }
}

pub(super) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(at..at + 8)?.try_into().ok()?))
}

/// A name of a length that stands in 16 bits at an offset, right before it.
fn name_at(data: &[u8], at: usize) -> Option<OsString> {
    let length = usize::from(u16_at(data, at)?);
    Some(OsString::from_vec(data.get(at + 2..at + 2 + length)?.to_owned()))
}

/// The names of an `INODE_REF` item, which are all in one directory: index, length, name, ...
pub(super) fn refs(parent: u64, mut data: &[u8]) -> Vec<Name> {
    let mut names = Vec::new();
    while let Some(name) = name_at(data, 8) {
        data = &data[10 + name.len()..];
        names.push(Name { parent, name });
    }
    names
}

/// The names of an `INODE_EXTREF` item: parent, index, length, name, ...
fn extrefs(mut data: &[u8]) -> Vec<Name> {
    let mut names = Vec::new();
    while let (Some(parent), Some(name)) = (u64_at(data, 0), name_at(data, 16)) {
        data = &data[18 + name.len()..];
        names.push(Name { parent, name });
    }
    names
}

/// The place that a `ROOT_REF` item names: directory, sequence, length, name.
fn root_ref(data: &[u8]) -> Option<Name> {
    Some(Name { parent: u64_at(data, 0)?, name: name_at(data, 16)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(parent: u64, name: &str) -> Name {
        Name { parent, name: name.into() }
    }

    fn item(numbers: &[u64], text: &str) -> Vec<u8> {
        let mut data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        data.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
        data.extend_from_slice(text.as_bytes());
        data
    }

    #[test]
    fn names_are_read_from_all_kinds_of_items() {
        let data = [item(&[3], "one"), item(&[4], "second")].concat();
        assert_eq!(refs(300, &data), [name(300, "one"), name(300, "second")]);
        let data = [item(&[301, 3], "a"), item(&[302, 3], "bc")].concat();
        assert_eq!(extrefs(&data), [name(301, "a"), name(302, "bc")]);
        assert_eq!(root_ref(&item(&[257, 9], "inner")), Some(name(257, "inner")));
    }

    fn head(objectid: u64, item_type: u32) -> SearchHeader {
        SearchHeader { transid: 7, objectid, offset: 5, item_type, len: 0 }
    }

    fn pass(batch: Batch) -> Pass {
        Pass { batch, taken: 0, entries: 0, next: None }
    }

    #[test]
    fn many_entries_of_a_directory_are_passed_over() {
        let mut pass = pass(Batch::Large);
        assert_eq!(pass.item(&head(256, INODE_ITEM), &[0; 160]), Ok(true));
        for objectid in [256, 300] {
            for _ in 0..Pass::ENTRIES {
                assert_eq!(pass.item(&head(objectid, DIR_ITEM), &[0; 40]), Ok(false), "too few");
            }
            assert_eq!(pass.item(&head(objectid + 1, INODE_ITEM), &[0; 160]), Ok(true));
        }
        for _ in 0..Pass::ENTRIES {
            assert_eq!(pass.item(&head(400, DIR_ITEM), &[0; 40]), Ok(false));
        }
        assert_eq!(pass.item(&head(400, DIR_INDEX), &[0; 40]), Err(Errno::ECANCELED));
        let key = Key { objectid: 400, item_type: DIR_INDEX + 1, offset: 0 };
        assert_eq!(pass.next, Some((key, Batch::Small)));
    }

    #[test]
    fn much_and_large_items_are_read_in_large_batches() {
        let this = Key { objectid: 300, item_type: 108, offset: 5 };
        let mut cut = pass(Batch::Small);
        assert_eq!(cut.item(&head(300, 108), &[]), Err(Errno::ECANCELED));
        assert_eq!(cut.next, Some((this, Batch::Large)), "the item is read again");
        assert_eq!(pass(Batch::Large).item(&head(300, 108), &[]), Ok(true));

        let mut much = pass(Batch::Small);
        let taken = (0..100).take_while(|_| much.item(&head(300, 108), &[0; 2048]).is_ok()).count();
        assert!((7..10).contains(&taken), "{taken}");
        assert_eq!(much.next, Some((this, Batch::Large)));
        let mut more = pass(Batch::Large);
        assert!((0..100).all(|_| more.item(&head(300, 108), &[0; 2048]) == Ok(true)));
    }

    #[test]
    fn cut_off_items_are_no_panic() {
        let whole = [item(&[301, 3], "a"), item(&[302, 3], "bc")].concat();
        for length in 0..whole.len() {
            let data = &whole[..length];
            // What comes out is made of bytes that are there.
            let names = refs(1, data).into_iter().chain(extrefs(data)).chain(root_ref(data));
            let bytes: usize = names.map(|name| name.name.len()).sum();
            assert!(bytes <= 3 * length, "{length}: {bytes}");
        }
    }
}
