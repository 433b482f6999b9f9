//! Reads the log of `dm-log-writes` and plays it, so that a power cut can be played at any point.
//!
//! The target passes everything on to a device and writes down, on another one, in which order it came
//! to the disk: a write when it completes if it was one with FUA, otherwise with the next flush that
//! was asked for after its completion. Programs put marks in between by the message `mark TEXT`.
//!
//! The format (`Documentation/admin-guide/device-mapper/log-writes.rst`): a sector with the number of
//! entries, then for each entry a sector that describes it and the sectors that it wrote. All numbers
//! are little-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What the first sector begins with, and the version of the format.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;

/// What an entry is.
const FLUSH: u64 = 1 << 0;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;

/// The words that describe an entry: sector, number of sectors, flags, length of a mark.
const WORDS: usize = 4;
const HEAD: usize = WORDS * 8;

/// One thing that the device was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The place on the device, in bytes.
    offset: u64,
    length: u64,
    flags: u64,
    /// Where in the log its bytes are.
    bytes: u64,
    /// The text of a mark.
    mark: Option<String>,
}

impl Entry {
    /// Whether what was written before is safe with it.
    fn flushes(&self) -> bool {
        self.flags & FLUSH != 0
    }

    /// Whether a power cut after it cannot take it away, though nothing was flushed since.
    fn is_safe(&self) -> bool {
        self.flags & (FUA | MARK) != 0 || self.length == 0
    }
}

/// A log that is read from a device or a file.
#[derive(Debug)]
pub struct Log<D> {
    log: D,
    entries: Vec<Entry>,
}

impl Log<File> {
    /// Opens the log on a device.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::read(File::open(path)?)
    }
}

/// What is read and written at offsets.
pub trait Disk {
    /// Fills `bytes` from an offset.
    ///
    /// # Errors
    /// When the disk has not as many.
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes `bytes` at an offset.
    ///
    /// # Errors
    /// When there is no room for them.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl Disk for File {
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
}

impl<D: Disk> Log<D> {
    /// Reads what a log has.
    ///
    /// # Errors
    /// `InvalidData` for something else than a log.
    pub fn read(log: D) -> io::Result<Self> {
        let mut head = [0; 28];
        log.read(&mut head, 0)?;
        let word = |at: usize| number(&head[at..at + 8]);
        if (word(0), word(8)) != (MAGIC, VERSION) {
            return Err(damaged(format!("{:#x} is no log of version {VERSION}", word(0))));
        }
        let sector = number(&head[24..28]);
        if !sector.is_power_of_two() || !(512..=65_536).contains(&sector) {
            return Err(damaged(format!("sectors of {sector} bytes")));
        }
        let mut at = sector;
        let mut entries = Vec::new();
        for _ in 0..word(16) {
            let entry = entry(&log, at, sector)?;
            let data = if entry.flags & DISCARD == 0 { entry.length } else { 0 };
            at += sector + data;
            entries.push(entry);
        }
        Ok(Self { log, entries })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The marks, each with the number of entries before it.
    #[must_use]
    pub fn marks(&self) -> Vec<(usize, &str)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(at, entry)| Some((at, entry.mark.as_deref()?))).collect()
    }

    /// How many of the first `at` entries are safe from a power cut then.
    #[must_use]
    pub fn flushed(&self, at: usize) -> usize {
        self.entries[..at].iter().rposition(Entry::flushes).unwrap_or(0)
    }

    /// Plays the entries of a range that `keeps` wants; those that a power cut cannot take are kept
    /// in any case. What was discarded is left as it was, as a disk may.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn play(
        &self,
        range: std::ops::Range<usize>,
        onto: &impl Disk,
        mut keeps: impl FnMut() -> bool,
    ) -> io::Result<()> {
        for entry in &self.entries[range] {
            if entry.length == 0 || entry.flags & DISCARD != 0 {
                continue;
            }
            if entry.is_safe() || keeps() {
                let length = usize::try_from(entry.length).map_err(io::Error::other)?;
                let mut bytes = vec![0; length];
                self.log.read(&mut bytes, entry.bytes)?;
                onto.write(&bytes, entry.offset)?;
            }
        }
        Ok(())
    }
}

/// The entry that is described at a place of the log.
fn entry(log: &impl Disk, at: u64, sector: u64) -> io::Result<Entry> {
    let mut head = [0; HEAD];
    log.read(&mut head, at)?;
    let [first, count, flags, text] =
        std::array::from_fn(|word| number(&head[word * 8..word * 8 + 8]));
    let bytes = |sectors: u64| {
        let bytes = sectors.checked_mul(sector).filter(|&bytes| bytes < 1 << 48);
        bytes.ok_or_else(|| damaged(format!("an entry of {sectors} sectors at {at}")))
    };
    let mark = match flags & MARK {
        0 => None,
        _ if text > sector - HEAD as u64 => {
            return Err(damaged(format!("a mark of {text} bytes at {at}")));
        }
        _ => {
            let mut mark = vec![0; usize::try_from(text).map_err(io::Error::other)?];
            log.read(&mut mark, at + HEAD as u64)?;
            let text = String::from_utf8_lossy(&mark);
            Some(text.trim_end_matches('\0').to_owned())
        }
    };
    Ok(Entry { offset: bytes(first)?, length: bytes(count)?, flags, bytes: at + sector, mark })
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // numbers of a few digits
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A disk in memory.
    struct Memory(RefCell<Vec<u8>>);

    impl Disk for Memory {
        fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let disk = self.0.borrow();
            let there = disk.get(offset as usize..).and_then(|disk| disk.get(..bytes.len()));
            bytes.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let mut disk = self.0.borrow_mut();
            disk[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
    }

    fn head(magic: u64, version: u64, entries: u64) -> Vec<u8> {
        let words = [magic, version, entries];
        let mut log: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        log.extend(512_u32.to_le_bytes());
        log.resize(512, 0);
        log
    }

    /// An entry that writes one letter over its sectors, or is a mark of that letter.
    fn push(log: &mut Vec<u8>, sector: u64, count: u64, flags: u64, letter: u8) {
        let start = log.len();
        let text = u64::from(flags & MARK != 0);
        for word in [sector, count, flags, text] {
            log.extend(word.to_le_bytes());
        }
        log.extend(std::iter::repeat_n(letter, text as usize));
        log.resize(start + 512, 0);
        if flags & DISCARD == 0 {
            log.extend(std::iter::repeat_n(letter, count as usize * 512));
        }
    }

    fn log() -> Log<Memory> {
        let mut log = head(MAGIC, VERSION, 7);
        push(&mut log, 0, 1, 0, b'a');
        push(&mut log, 1, 2, 0, b'b');
        push(&mut log, 0, 0, FLUSH, 0);
        push(&mut log, 0, 0, MARK, b'm');
        push(&mut log, 0, 1, DISCARD, 0);
        push(&mut log, 2, 1, 0, b'c');
        push(&mut log, 3, 1, FUA, b'd');
        Log::read(Memory(RefCell::new(log))).expect("a log")
    }

    fn played(at: usize, keeps: bool) -> String {
        let (log, disk) = (log(), Memory(RefCell::new(vec![b'.'; 2048])));
        let safe = log.flushed(at);
        log.play(0..safe, &disk, || true).expect("room");
        log.play(safe..at, &disk, || keeps).expect("room");
        let disk = disk.0.borrow();
        disk.chunks(512).map(|sector| char::from(sector[0])).collect()
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_may() {
        let cases = [
            (0, true, "...."),
            (2, true, "abb."),
            (2, false, "...."),
            (3, false, "abb."),
            (6, true, "abc."),
            (6, false, "abb."),
            (7, false, "abbd"),
        ];
        for (at, keeps, expected) in cases {
            assert_eq!(played(at, keeps), expected, "cut at {at}, later writes kept: {keeps}");
        }
        assert_eq!(log().marks(), [(3, "m")], "marks");
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let mut long = head(MAGIC, VERSION, 1);
        push(&mut long, 0, u64::MAX, DISCARD, 0);
        let cases = [
            ("another magic", head(1, VERSION, 0)),
            ("another version", head(MAGIC, 2, 0)),
            ("cut off", head(MAGIC, VERSION, 1)),
            ("nothing", Vec::new()),
            ("too long", long),
        ];
        for (what, bytes) in cases {
            assert!(Log::read(Memory(RefCell::new(bytes))).is_err(), "{what}");
        }
    }
}
