//! Layers that are looked at where they lie, through a memory map.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use cow_sys::Mmap;

/// The bytes of an uncompressed layer, mapped into memory.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    range: Range<usize>,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Mapped {
    /// A part of a map, which it is within.
    pub(crate) fn new(map: Mmap, range: Range<usize>) -> Self {
        Self { map, range }
    }

    /// Reads it from front to back, and lets go of what was passed, so that an archive of any size takes
    /// little memory.
    pub fn reader(&self) -> MappedReader<'_> {
        MappedReader { mapped: self, position: 0, kept: 0 }
    }
}

/// Reads what is [`Mapped`].
#[derive(Debug)]
pub struct MappedReader<'m> {
    mapped: &'m Mapped,
    position: usize,
    /// Where that begins which was read or passed, and not let go of yet.
    kept: usize,
}

impl MappedReader<'_> {
    /// How much is kept before it is let go of.
    const MOST: usize = 16 << 20;

    fn moved(&mut self, to: usize) {
        self.position = to;
        self.kept = self.kept.min(to);
        if to - self.kept >= Self::MOST {
            let start = self.mapped.range.start;
            // Memory is all that it costs where it cannot be done.
            let _ =
                self.mapped.map.forget(start + self.kept..start + to.min(self.mapped.range.len()));
            self.kept = to;
        }
    }
}

impl Read for MappedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.mapped.as_ref().get(self.position..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.moved(self.position + length);
        Ok(length)
    }
}

impl Seek for MappedReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(offset) => (0, i64::try_from(offset).ok()),
            SeekFrom::Current(offset) => (self.position as u64, Some(offset)),
            SeekFrom::End(offset) => (self.mapped.range.len() as u64, Some(offset)),
        };
        let place = offset.and_then(|offset| base.checked_add_signed(offset));
        let place = place.and_then(|place| Some((place, usize::try_from(place).ok()?)));
        let (place, at) = place.ok_or(io::ErrorKind::InvalidInput)?;
        self.moved(at);
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_go_of_can_be_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        let bytes: Vec<u8> = (0..10_u32 << 20).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = Mmap::of(&std::fs::File::open(&path).unwrap()).unwrap();
        let mapped = Mapped::new(map, 5000..bytes.len() - 1);
        let expected = &bytes[5000..bytes.len() - 1];
        let mut reader = mapped.reader();
        let mut found = Vec::new();
        reader.read_to_end(&mut found).unwrap();
        assert!(found == expected, "from front to back");
        assert!(reader.kept > 30 << 20, "most of it was let go of");
        for (to, at) in [
            (SeekFrom::Start(7), 7),
            (SeekFrom::Current(33 << 20), (33 << 20) + 4103),
            (SeekFrom::End(-4096), expected.len() - 4096),
            (SeekFrom::Start(1 << 20), 1 << 20),
        ] {
            assert_eq!(reader.seek(to).unwrap(), at as u64, "{to:?}");
            let mut piece = vec![0; 4096];
            reader.read_exact(&mut piece).unwrap();
            assert!(piece == expected[at..at + 4096], "{to:?}");
        }
        assert!(reader.seek(SeekFrom::Current(-1 << 40)).is_err(), "before the beginning");
        assert_eq!(reader.seek(SeekFrom::Start(1 << 40)).unwrap(), 1 << 40, "past the end");
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "where nothing is");
    }
}
