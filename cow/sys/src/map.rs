//! Files read in place.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;

/// A whole file as a read-only byte slice, its pages brought in as they are touched.
///
/// # Contract
/// The file must not shrink while it is mapped: a read past the new end raises SIGBUS, which ends
/// the process. Map only files that are complete and immutable by agreement (blobs of an archive
/// or of the store, sealed memory files), never one that an untrusted party can truncate; for
/// those, read into a buffer. The bytes may change under the reader if somebody writes to the
/// file, so that nothing may be checked once and then trusted at a second read of the same bytes.
pub struct Mmap(memmap2::Mmap);

impl Mmap {
    /// Maps a file from its beginning to its present end; an empty file is an empty slice.
    pub fn of(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is private and read-only, so this process cannot write through it.
        // That nobody truncates the file meanwhile is the caller's part of the contract above; a
        // breach ends the process by SIGBUS and does not reach memory that is not the mapping's.
        unsafe { memmap2::MmapOptions::new().map_copy_read_only(file) }.map(Self)
    }

    /// Advises the kernel that the file will be read from front to back.
    pub fn sequential(&self) -> io::Result<()> {
        self.0.advise(memmap2::Advice::Sequential)
    }

    /// Lets go of the memory of a range that was read; whoever reads it again reads the file again.
    ///
    /// The file's pages stay in the kernel's cache, but no longer count as this process's.
    ///
    /// # Errors
    /// `InvalidInput` when the range is not within the map.
    pub fn forget(&self, range: std::ops::Range<usize>) -> io::Result<()> {
        if range.start > range.end || range.end > self.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: no page of the map was ever written to, since it is read-only: each comes back from the
        // file as it was, under the same contract as when it was first read.
        unsafe { self.0.unchecked_advise_range(advice, range.start, range.len()) }
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Mmap {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Mmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mmap").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for text in [&b""[..], b"text", &[7; 100_000]] {
            let path = dir.path().join("file");
            std::fs::write(&path, text).unwrap();
            let map = Mmap::of(&File::open(&path).unwrap()).unwrap();
            map.sequential().unwrap();
            assert_eq!(&*map, text);
            map.forget(text.len() / 2..text.len()).unwrap();
            assert_eq!(&*map, text, "what was forgotten is read again");
            assert!(map.forget(0..text.len() + 1).is_err(), "more than there is");
            std::fs::remove_file(&path).unwrap();
            assert_eq!(map.as_ref(), text, "the map outlives the name");
        }
    }
}
