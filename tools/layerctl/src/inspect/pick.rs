//! Contents of some files of a tar, by where they lie in it.

use std::collections::BTreeMap;
use std::io::{self, Read};

use cow::index::Index;
use cow::tar::{Entry, Reader};

use super::subject::Sink;

/// Rows of an index by where their contents begin; those without content have no place.
pub(super) fn wanted(index: &Index, rows: &[usize]) -> BTreeMap<u64, usize> {
    rows.iter().filter_map(|row| Some((index.get(*row)?.offset()?, *row))).collect()
}

/// Gives the files whose content begins at the wanted places, and reads no further than the last.
pub(super) fn pick<R: Read>(
    reader: &mut Reader<R>,
    wanted: &BTreeMap<u64, usize>,
    sink: &mut Sink<'_>,
) -> anyhow::Result<()> {
    let mut left = wanted.len();
    let mut entry = Entry::default();
    while left > 0 && reader.next_entry(&mut entry)? {
        let Some(row) = wanted.get(&reader.position()) else { continue };
        left -= 1;
        match entry.sparse.take() {
            None => sink(*row, &mut reader.stored())?,
            Some(segments) => {
                let mut stored = reader.stored();
                sink(
                    *row,
                    &mut Sparse {
                        segments: &segments,
                        size: entry.size,
                        at: 0,
                        stored: &mut stored,
                    },
                )?;
            }
        }
    }
    // A container may change between being listed and being read.
    anyhow::ensure!(left == 0, "{left} files are not where they were: they have changed meanwhile");
    Ok(())
}

/// The content of a sparse file with zeros for its holes.
struct Sparse<'a> {
    /// What is left of the map.
    segments: &'a [cow::tar::Segment],
    size: u64,
    at: u64,
    stored: &'a mut dyn Read,
}

impl Read for Sparse<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(first) = self.segments.first()
            && first.offset + first.len <= self.at
        {
            self.segments = &self.segments[1..];
        }
        let (end, data) = match self.segments.first() {
            Some(next) if next.offset <= self.at => (next.offset + next.len, true),
            Some(next) => (next.offset, false),
            None => (self.size, false),
        };
        let most =
            usize::try_from(end - self.at).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..most];
        let read = if data {
            self.stored.read(buffer)?
        } else {
            buffer.fill(0);
            most
        };
        self.at += read as u64;
        Ok(read)
    }
}
