//! What the files of a layer hold, in short: where later layers look for content that they have too.
//!
//! One file beside the layer's tree, `sums`: a head of five numbers, then the records, ordered by sum. All
//! numbers are little-endian. The file is a hint and never synced: the kernel compares what it names, so
//! a damaged one costs time and nothing else.

use std::os::fd::AsFd;

use cow::error::Result;

use super::search::u64_at;
use crate::home::fs::{self, Durability};

/// The file's name.
const NAME: &str = "sums";
/// The first eight bytes; the last is the version.
const MAGIC: u64 = u64::from_le_bytes(*b"lay-sum\x01");
/// Bytes of the head: magic, files and bytes that are shared, the number of records, and one to spare.
const HEAD: usize = 40;
/// Bytes of a record: sum, size, inode.
const RECORD: usize = 32;
/// The most files of a layer that are noted; of more, the largest. 8 MiB of records.
pub(super) const MOST: usize = 256 << 10;

/// One file of a layer. They are ordered by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    /// The first half of its content's sha256: what is taken for equal is compared anyway.
    pub(super) sum: [u8; 16],
    pub(super) size: u64,
    pub(super) ino: u64,
}

impl Record {
    /// What files of equal content have in common.
    pub(super) fn content(&self) -> ([u8; 16], u64) {
        (self.sum, self.size)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let sum = bytes.get(..16)?.try_into().ok()?;
        Some(Self { sum, size: u64_at(bytes, 16)?, ino: u64_at(bytes, 24)? })
    }
}

/// What a layer shares with others since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) files: u64,
    /// The lengths of these files.
    pub(super) bytes: u64,
}

/// The contents of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) shared: Shared,
    /// Ordered.
    pub(super) records: Vec<Record>,
}

impl Sums {
    /// Those of a layer, whose directory this is; none if it has none that can be read.
    pub(super) fn read(dir: impl AsFd) -> Option<Self> {
        Self::parse(&fs::read_file(dir, NAME, (HEAD + MOST * RECORD) as u64).ok()?)
    }

    /// Notes those of a layer.
    pub(super) fn write(&self, dir: impl AsFd) -> Result<()> {
        fs::write_file(dir, NAME, &self.to_bytes(), Durability::Later)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.records.len() * RECORD);
        let head = [MAGIC, self.shared.files, self.shared.bytes, self.records.len() as u64, 0];
        bytes.extend(head.iter().flat_map(|number| number.to_le_bytes()));
        for record in &self.records {
            bytes.extend_from_slice(&record.sum);
            bytes.extend_from_slice(&record.size.to_le_bytes());
            bytes.extend_from_slice(&record.ino.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let records = bytes.get(HEAD..)?;
        let count = usize::try_from(u64_at(bytes, 24)?).ok()?;
        if u64_at(bytes, 0)? != MAGIC || count.checked_mul(RECORD)? != records.len() {
            return None;
        }
        let shared = Shared { files: u64_at(bytes, 8)?, bytes: u64_at(bytes, 16)? };
        let records = records.chunks_exact(RECORD).filter_map(Record::parse).collect();
        Some(Self { shared, records })
    }

    /// What the layer shares, without reading the records.
    pub(super) fn shared(dir: impl AsFd) -> Option<Shared> {
        let head = fs::read_start(dir, NAME, HEAD as u64).ok()?;
        if u64_at(&head, 0)? != MAGIC {
            return None;
        }
        Some(Shared { files: u64_at(&head, 8)?, bytes: u64_at(&head, 16)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> Sums {
        let record = |n: u8| Record { sum: [n; 16], size: u64::from(n) << 12, ino: 256 };
        Sums {
            shared: Shared { files: 2, bytes: 8192 },
            records: vec![record(1), record(2), record(255)],
        }
    }

    #[test]
    fn written_and_read_are_the_same() {
        for sums in [Sums::default(), sums()] {
            assert_eq!(Sums::parse(&sums.to_bytes()), Some(sums));
        }
    }

    #[test]
    fn damage_is_no_panic_and_no_record() {
        let whole = sums().to_bytes();
        for length in 0..whole.len() {
            assert_eq!(Sums::parse(&whole[..length]), None, "cut off at {length}");
        }
        let mut foreign = whole.clone();
        foreign[7] = 9;
        assert_eq!(Sums::parse(&foreign), None, "another version");
        let mut many = whole;
        many[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Sums::parse(&many), None, "more records than bytes");
    }
}
