//! The reproducible writer.

use std::io::{Read, Write};

use super::header::{self, Block};
use super::{BLOCK, Entry, EntryKind, pax};
use crate::error::{Error, Result};

/// How much is gathered before it is passed on.
const BUFFER: usize = 256 << 10;

/// Writes entries as a PAX archive whose bytes depend on nothing but the entries.
///
/// A plain ustar header is written where it can say everything. PAX records, in byte order of their
/// keys, are added for what it cannot: long names, ids above 2097151, sizes from 8 GiB, times before
/// 1970 or with a fraction of a second, and xattrs (`SCHILY.xattr.`). Sparse files are written whole,
/// as the OCI image-spec asks (`layer.md`, "File Types").
#[derive(Debug)]
pub struct Writer<W: Write> {
    inner: W,
    buffer: Box<[u8]>,
    /// How much of the buffer waits to be passed on.
    filled: usize,
    records: Vec<u8>,
    /// Bytes passed on to `inner`.
    passed: u64,
    /// Content bytes that the present entry still owes.
    owed: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            filled: 0,
            records: Vec::new(),
            passed: 0,
            owed: 0,
            padding: 0,
        }
    }

    /// Writes an entry's headers; the content of a file (`entry.size` bytes) follows by
    /// [`Writer::data`] or [`Writer::copy`]. What it is short of is filled with zeros.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_entry()?;
        let block = self.headers(entry);
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            let mut block = pax_block(entry, records.len());
            header::seal(&mut block);
            self.push(&block)?;
            self.push(&records)?;
            self.zeros(records.len().wrapping_neg() % BLOCK)?;
            self.records = records;
        }
        self.push(&block)?;
        if entry.kind == EntryKind::File {
            self.owed = entry.size;
            self.padding = usize::try_from(entry.size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        }
        Ok(())
    }

    /// Writes content of the present entry; bytes beyond its size are dropped.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let take = usize::try_from(self.owed).map_or(bytes.len(), |owed| owed.min(bytes.len()));
        self.owed -= take as u64;
        self.push(&bytes[..take])
    }

    /// Copies content from a reader, up to the entry's size or the reader's end, straight into the
    /// writer's buffer; returns how much there was.
    pub fn copy(&mut self, from: &mut impl Read) -> Result<u64> {
        let mut copied = 0;
        while self.owed > 0 {
            let want = usize::try_from(self.owed).map_or(BUFFER, |owed| owed.min(BUFFER));
            // One read takes a small file whole, and most of the buffer of a large one.
            self.make_room(want.min(BUFFER / 2))?;
            let room = want.min(BUFFER - self.filled);
            match from.read(&mut self.buffer[self.filled..self.filled + room]) {
                Ok(0) => break,
                Ok(read) => {
                    self.filled += read;
                    copied += read as u64;
                    self.owed -= read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::sys("read content", "", error)),
            }
        }
        Ok(copied)
    }

    /// Writes the end marker and returns the inner writer with the length of the archive.
    pub fn finish(mut self) -> Result<(W, u64)> {
        self.end_entry()?;
        self.zeros(2 * BLOCK)?;
        self.pass_on()?;
        self.inner.flush().map_err(|error| Error::sys("write tar", "", error))?;
        Ok((self.inner, self.passed))
    }

    fn end_entry(&mut self) -> Result<()> {
        while self.owed > 0 {
            let step = usize::try_from(self.owed).map_or(BUFFER, |owed| owed.min(BUFFER));
            self.zeros(step)?;
            self.owed -= step as u64;
        }
        let padding = std::mem::take(&mut self.padding);
        self.zeros(padding)
    }

    fn zeros(&mut self, count: usize) -> Result<()> {
        self.make_room(count)?;
        self.buffer[self.filled..self.filled + count].fill(0);
        self.filled += count;
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.make_room(bytes.len())?;
        if bytes.len() > BUFFER {
            self.inner.write_all(bytes).map_err(|error| Error::sys("write tar", "", error))?;
            self.passed += bytes.len() as u64;
        } else {
            self.buffer[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
            self.filled += bytes.len();
        }
        Ok(())
    }

    /// Empties the buffer if it cannot take so much more.
    fn make_room(&mut self, count: usize) -> Result<()> {
        if self.filled + count > BUFFER { self.pass_on() } else { Ok(()) }
    }

    fn pass_on(&mut self) -> Result<()> {
        let bytes = &self.buffer[..self.filled];
        self.inner.write_all(bytes).map_err(|error| Error::sys("write tar", "", error))?;
        self.passed += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    /// Builds the plain header, and in `records` what it cannot say.
    fn headers(&mut self, entry: &Entry) -> Block {
        self.records.clear();
        let records = &mut self.records;
        let mut xattrs: Vec<_> = entry.xattrs.iter().collect();
        xattrs.sort();
        for (name, value) in xattrs {
            pax::push_record(records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        let mut block = [0; BLOCK];
        block[header::TYPE] = type_flag(entry.kind);
        block[header::MAGIC].copy_from_slice(header::USTAR);
        header::put_octal(&mut block[header::MODE], u64::from(entry.mode & 0o7777));
        // Records in byte order of their keys: gid, linkpath, mtime, path, size, uid.
        if !header::put_octal(&mut block[header::GID], u64::from(entry.gid)) {
            pax::push_record(records, b"gid", entry.gid.to_string().as_bytes());
        }
        if !put_link(&mut block, entry) {
            pax::push_record(records, b"linkpath", &entry.link);
        }
        let secs = u64::try_from(entry.mtime.secs);
        let fits = header::put_octal(&mut block[header::MTIME], secs.unwrap_or(0));
        if !fits || secs.is_err() || entry.mtime.nanos != 0 {
            pax::push_record(records, b"mtime", pax::format_time(entry.mtime).as_bytes());
        }
        let path = directory_path(entry);
        if !put_path(&mut block, &path) {
            pax::push_record(records, b"path", &path);
        }
        let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
        if !header::put_octal(&mut block[header::SIZE], size) {
            pax::push_record(records, b"size", size.to_string().as_bytes());
        }
        if !header::put_octal(&mut block[header::UID], u64::from(entry.uid)) {
            pax::push_record(records, b"uid", entry.uid.to_string().as_bytes());
        }
        if let EntryKind::Char(device) | EntryKind::Block(device) = entry.kind {
            header::put_octal(&mut block[header::MAJOR], u64::from(device.major));
            header::put_octal(&mut block[header::MINOR], u64::from(device.minor));
        }
        header::seal(&mut block);
        block
    }
}

/// The path as written: directories end with a slash.
fn directory_path(entry: &Entry) -> std::borrow::Cow<'_, [u8]> {
    if entry.kind == EntryKind::Dir && !entry.path.ends_with(b"/") {
        return [&entry.path[..], b"/"].concat().into();
    }
    entry.path.as_slice().into()
}

/// Writes the path into name and prefix; whether it fits. A path that does not is cut off.
fn put_path(block: &mut Block, path: &[u8]) -> bool {
    let (name, prefix) = (header::NAME.len(), header::PREFIX.len());
    if path.len() <= name {
        block[header::NAME][..path.len()].copy_from_slice(path);
        return true;
    }
    // The slash between prefix and name is not stored; the name must not be empty.
    let first = path.len().saturating_sub(name + 1);
    let split = (first..path.len() - 1).find(|at| path[*at] == b'/' && (1..=prefix).contains(at));
    match split {
        Some(at) => {
            block[header::PREFIX][..at].copy_from_slice(&path[..at]);
            block[header::NAME][..path.len() - at - 1].copy_from_slice(&path[at + 1..]);
            true
        }
        None => {
            block[header::NAME].copy_from_slice(&path[..name]);
            false
        }
    }
}

/// Writes the link target; whether it fits. One that does not is cut off.
fn put_link(block: &mut Block, entry: &Entry) -> bool {
    if !matches!(entry.kind, EntryKind::HardLink | EntryKind::Symlink) {
        return true;
    }
    let stored = entry.link.len().min(header::LINK.len());
    block[header::LINK][..stored].copy_from_slice(&entry.link[..stored]);
    stored == entry.link.len()
}

/// The header of a PAX header. Its name is for readers that take it for a file, and fixed.
fn pax_block(entry: &Entry, size: usize) -> Block {
    let mut block = [0; BLOCK];
    let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
    let base = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = [b"PaxHeaders.0/", base].concat();
    let stored = name.len().min(header::NAME.len());
    block[header::NAME][..stored].copy_from_slice(&name[..stored]);
    block[header::TYPE] = b'x';
    block[header::MAGIC].copy_from_slice(header::USTAR);
    header::put_octal(&mut block[header::MODE], 0o644);
    for field in [header::UID, header::GID, header::MTIME] {
        header::put_octal(&mut block[field], 0);
    }
    header::put_octal(&mut block[header::SIZE], size as u64);
    block
}

fn type_flag(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::Char(_) => b'3',
        EntryKind::Block(_) => b'4',
        EntryKind::Dir => b'5',
        EntryKind::Fifo => b'6',
    }
}

#[cfg(test)]
mod tests;
