//! Listing a directory of the union.
//!
//! Each name has a number of its own that says where in the listing it stands. A later listing of the
//! same directory gives the same names the same numbers and new ones higher numbers, so that a reader
//! which comes back with a number finds its place whatever was created or removed since. So the numbers
//! ([`Places`]) have to last longer than the listing.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::BuildHasher as _;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use super::whiteout::WHITEOUT_FILE;
use super::{RealDir, RealId, Union, marks, merge, open_listing};

/// The first number of a name; those below are `.` and `..`.
const FIRST: u64 = 3;

/// One name of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The place of this name.
    pub place: u64,
    /// The inode number shown.
    pub ino: u64,
    /// The type.
    pub kind: FileType,
    /// Which of the merged directories has it, counted from the top.
    pub layer: usize,
    /// The name.
    pub name: &'a OsStr,
}

#[derive(Debug)]
struct Record {
    place: u64,
    ino: u64,
    at: u32,
    length: u8,
    kind: u8,
    layer: u16,
}

/// Which place each name of a directory has: what is needed of a listing to number the next one.
///
/// Names are kept as keyed hashes of 64 bits, 16 bytes a name with its place.
#[derive(Debug)]
pub struct Places {
    by_hash: Vec<(u64, u64)>,
    next: u64,
}

impl Places {
    fn of(&self, name: &[u8]) -> Option<u64> {
        let hash = hash(name);
        let at = self.by_hash.binary_search_by_key(&hash, |(known, _)| *known).ok()?;
        Some(self.by_hash[at].1)
    }
}

fn hash(name: &[u8]) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one(name)
}

/// The names of one directory, in the order of their places.
#[derive(Debug, Default)]
pub struct Listing {
    records: Vec<Record>,
    names: Vec<u8>,
    next: u64,
}

impl Listing {
    /// The entries whose place is above `place`.
    pub fn after(&self, place: u64) -> impl Iterator<Item = Entry<'_>> {
        self.records[self.position_after(place)..].iter().map(|record| self.entry(record))
    }

    /// How many entries come before those that [`Self::after`] begins with.
    pub fn position_after(&self, place: u64) -> usize {
        self.records.partition_point(|record| record.place <= place)
    }

    /// The entry with so many before it, if there is one.
    pub fn entry_at(&self, position: usize) -> Option<Entry<'_>> {
        self.records.get(position).map(|record| self.entry(record))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn name(&self, record: &Record) -> &OsStr {
        let at = record.at as usize;
        OsStr::from_bytes(&self.names[at..at + usize::from(record.length)])
    }

    fn entry<'a>(&'a self, record: &Record) -> Entry<'a> {
        Entry {
            place: record.place,
            ino: record.ino,
            kind: kind_of(record.kind),
            layer: usize::from(record.layer),
            name: self.name(record),
        }
    }

    fn push(&mut self, name: &[u8], ino: u64, kind: u8, layer: usize) {
        let Ok(at) = u32::try_from(self.names.len()) else { return };
        self.names.extend_from_slice(name);
        self.records.push(Record {
            place: 0,
            ino,
            at,
            length: u8::try_from(name.len()).unwrap_or(u8::MAX),
            kind,
            layer: u16::try_from(layer).unwrap_or(u16::MAX),
        });
    }

    /// The places of its names, for a later listing.
    pub fn places(&self) -> Places {
        let place = |record: &Record| (hash(self.name(record).as_bytes()), record.place);
        let mut by_hash: Vec<_> = self.records.iter().map(place).collect();
        by_hash.sort_unstable();
        Places { by_hash, next: self.next }
    }

    /// Gives every name its place: the one it had before, or a new one.
    fn number(&mut self, before: Option<&Places>) {
        self.next = before.map_or(FIRST, |before| before.next);
        for record in &mut self.records {
            let at = record.at as usize;
            let name = &self.names[at..at + usize::from(record.length)];
            record.place = before.and_then(|before| before.of(name)).unwrap_or_else(|| {
                self.next += 1;
                self.next - 1
            });
        }
        self.records.sort_unstable_by_key(|record| record.place);
    }
}

fn kind_byte(kind: FileType) -> u8 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}

fn kind_of(byte: u8) -> FileType {
    match byte {
        1 => FileType::Fifo,
        2 => FileType::CharacterDevice,
        4 => FileType::Directory,
        6 => FileType::BlockDevice,
        8 => FileType::RegularFile,
        10 => FileType::Symlink,
        12 => FileType::Socket,
        _ => FileType::Unknown,
    }
}

/// What is known of a name while the layers are read.
#[derive(Clone, Copy)]
enum Seen {
    Hidden,
    File,
    Dir(usize),
}

struct Merge<'u> {
    union: &'u Union,
    listing: Listing,
    seen: HashMap<Box<[u8]>, Seen>,
}

impl Union {
    /// Lists a directory of the union; names that `before` has keep their places.
    ///
    /// # Errors
    /// What the layers' file systems say.
    pub fn list(&self, stack: &[Arc<RealDir>], before: Option<&Places>) -> Result<Listing, Errno> {
        let mut merge = Merge { union: self, listing: Listing::default(), seen: HashMap::new() };
        for (depth, dir) in stack.iter().enumerate() {
            merge.layer(dir, depth, depth + 1 == stack.len())?;
        }
        let mut listing = merge.listing;
        self.settle(stack, &mut listing)?;
        listing.number(before);
        Ok(listing)
    }

    /// Whether the union shows a directory without names.
    ///
    /// # Errors
    /// What the layers' file systems say.
    pub fn is_empty(&self, stack: &[Arc<RealDir>]) -> Result<bool, Errno> {
        Ok(self.list(stack, None)?.is_empty())
    }

    /// Corrects the inode numbers that a directory entry alone cannot tell: of merged directories and
    /// of files that were copied up.
    fn settle(&self, stack: &[Arc<RealDir>], listing: &mut Listing) -> Result<(), Errno> {
        let last = self.merged - 1;
        // A directory that merges nothing holds copies only if they were moved there.
        let impure = match stack {
            [only] if self.is_upper(only) => self.is_impure(only, &*self.fds.get(only)?),
            _ => false,
        };
        let mut foreign = false;
        for at in 0..listing.records.len() {
            let record = &listing.records[at];
            let Some(dir) = stack.get(usize::from(record.layer)) else { continue };
            let merged = record.kind == 4 && usize::from(dir.layer) < last;
            let copied = self.is_upper(dir) && record.kind != 4 && (impure || stack.len() > 1);
            if !merged && !copied {
                continue;
            }
            let name = listing.name(record).to_owned();
            let ino = match copied {
                true => {
                    let marks = marks::of_file(self.prefix, &*self.fds.get(dir)?, &name);
                    marks.ok().and_then(|marks| self.shown_origin(marks.origin))
                }
                false => self.lookup(stack, &name)?.map(|found| found.ino),
            };
            if let Some(ino) = ino {
                foreign |= copied || ino != listing.records[at].ino;
                listing.records[at].ino = ino;
            }
        }
        if let ([only], true, false) = (stack, impure, foreign) {
            self.set_pure(only, &*self.fds.get(only)?);
        }
        Ok(())
    }
}

impl Merge<'_> {
    fn layer(&mut self, dir: &Arc<RealDir>, depth: usize, last: bool) -> Result<(), Errno> {
        let base = self.union.fds.get(dir)?;
        let fd = open_listing(&base)?;
        let fs = self.union.layer(dir).fs;
        let check = dir.attr_whiteouts.load(Ordering::Relaxed);
        let upper = self.union.work.as_ref().filter(|_| self.union.is_upper(dir));
        let shared = upper.map_or(0, |work| work.whiteout_ino.load(Ordering::Relaxed));
        let mut hidden: Vec<Box<[u8]>> = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if let Some(gone) = name.strip_prefix(WHITEOUT_FILE) {
                hidden.push(gone.into());
                continue;
            }
            let mut kind = entry.file_type();
            if shared != 0 && entry.ino() == shared && kind == FileType::CharacterDevice {
                self.add(name, shared, kind, depth, true, last);
                continue;
            }
            let unsure = matches!(kind, FileType::CharacterDevice | FileType::Unknown)
                || check && kind == FileType::RegularFile;
            let mut whiteout = false;
            if unsure {
                let os_name = OsStr::from_bytes(name);
                let Ok(stat) = merge::stat(&base, os_name) else { continue };
                kind = FileType::from_raw_mode(stat.stx_mode.into());
                whiteout = merge::is_whiteout(&stat)
                    || check
                        && kind == FileType::RegularFile
                        && stat.stx_size == 0
                        && marks::of_file(self.union.prefix, &base, os_name)?.whiteout;
            }
            let ino = self.union.shown(RealId { fs, ino: entry.ino() });
            self.add(name, ino, kind, depth, whiteout, last);
        }
        if hidden.is_empty() && !(upper.is_some() && self.union.makes_whiteout_files()) {
            dir.whiteout_files.store(false, Ordering::Relaxed);
        }
        // A whiteout file hides what is below, never what is beside it.
        for name in hidden {
            self.seen.entry(name).or_insert(Seen::Hidden);
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &[u8],
        ino: u64,
        kind: FileType,
        depth: usize,
        whiteout: bool,
        last: bool,
    ) {
        match self.seen.get(name) {
            Some(Seen::Dir(at)) if kind == FileType::Directory => {
                // The lowest directory of a merged one gives the number; see `settle`.
                self.listing.records[*at].ino = ino;
                return;
            }
            Some(_) => return,
            None => {}
        }
        let is_dir = kind == FileType::Directory;
        if !last {
            let at = self.listing.records.len();
            let seen = match (whiteout, is_dir) {
                (true, _) => Seen::Hidden,
                (false, true) => Seen::Dir(at),
                (false, false) => Seen::File,
            };
            self.seen.insert(name.into(), seen);
        }
        if !whiteout {
            self.listing.push(name, ino, kind_byte(kind), depth);
        }
    }
}
