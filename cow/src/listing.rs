//! The names in a directory, sorted.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::RawDir;
use rustix::io::Result;

/// The names in one directory without `.` and `..`, in byte order.
///
/// One allocation holds all names, so that a directory of 100,000 costs little more than its text.
#[derive(Debug, Default)]
pub struct Listing {
    text: Vec<u8>,
    /// Where each name is in the text; offsets fit because 4 GiB of names are refused.
    spans: Vec<(u32, u16)>,
}

/// How much one `getdents64(2)` may return: large directories take few calls.
const BUFFER: usize = 32 * 1024;

impl Listing {
    /// Reads a directory from its beginning; `dir` is open for reading, not an `O_PATH` handle.
    pub fn read(dir: impl AsFd) -> Result<Self> {
        let dir = dir.as_fd();
        rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
        let mut listing = Self::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                listing.push(name)?;
            }
        }
        listing.sort();
        Ok(listing)
    }

    fn push(&mut self, name: &[u8]) -> Result<()> {
        let too_big = |_| rustix::io::Errno::OVERFLOW;
        let start = u32::try_from(self.text.len()).map_err(too_big)?;
        let length = u16::try_from(name.len()).map_err(too_big)?;
        self.text.extend_from_slice(name);
        self.spans.push((start, length));
        Ok(())
    }

    fn sort(&mut self) {
        let Self { text, spans } = self;
        spans.sort_unstable_by(|a, b| span(text, *a).cmp(span(text, *b)));
        // A directory that changes while it is read may show a renamed name twice.
        spans.dedup_by(|a, b| span(text, *a) == span(text, *b));
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The name at a position in byte order.
    pub fn get(&self, index: usize) -> Option<&OsStr> {
        self.spans.get(index).map(|at| OsStr::from_bytes(span(&self.text, *at)))
    }

    /// All names in byte order.
    pub fn iter(&self) -> impl Iterator<Item = &OsStr> {
        self.spans.iter().map(|at| OsStr::from_bytes(span(&self.text, *at)))
    }

    /// The names of several listings together, each once.
    pub fn union<'l>(listings: impl IntoIterator<Item = &'l Self>) -> Result<Self> {
        let mut all = Self::default();
        for listing in listings {
            listing.iter().try_for_each(|name| all.push(name.as_bytes()))?;
        }
        all.sort();
        Ok(all)
    }
}

fn span(text: &[u8], (start, length): (u32, u16)) -> &[u8] {
    let start = start as usize;
    &text[start..start + usize::from(length)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        Listing::read(std::fs::File::open(dir.path()).unwrap()).unwrap()
    }

    #[test]
    fn names_are_sorted_by_bytes() {
        let names = listing(&["b", "a.txt", "é", "a", "B", ".hidden"]);
        let sorted: Vec<_> = names.iter().collect();
        assert_eq!(sorted, [".hidden", "B", "a", "a.txt", "b", "é"]);
        assert_eq!((names.len(), names.get(1), names.get(6)), (6, Some(OsStr::new("B")), None));
    }

    #[test]
    fn a_directory_larger_than_the_buffer_is_read_whole_and_again() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..3000 {
            std::fs::write(dir.path().join(format!("{number:040}")), "").unwrap();
        }
        let fd = std::fs::File::open(dir.path()).unwrap();
        for _ in 0..2 {
            let names = Listing::read(&fd).unwrap();
            assert_eq!(names.len(), 3000);
            assert_eq!(names.get(2999).unwrap().len(), 40);
        }
    }

    #[test]
    fn a_union_has_every_name_once() {
        let union = Listing::union([&listing(&["a", "c"]), &listing(&["b", "c"])]).unwrap();
        assert_eq!(union.iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(Listing::union([]).unwrap().is_empty());
    }
}
