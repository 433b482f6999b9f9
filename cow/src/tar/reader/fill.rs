//! What the headers of an entry say about it.

use std::io::Read;

use super::Reader;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::Device;
use crate::tar::header::{self, Block, Dialect};
use crate::tar::pax::{self, Extra};
use crate::tar::sparse::{self, Preamble};
use crate::tar::{BLOCK, Entry, EntryKind, Segment};

impl<R: Read> Reader<R> {
    /// Fills an entry from its header block and the headers before it.
    pub(super) fn fill_entry(
        &mut self,
        block: &Block,
        kind: u8,
        size: u64,
        entry: &mut Entry,
    ) -> Result<()> {
        entry.clear();
        self.fill_plain(block, entry)?;
        let extra = pax::merge(&self.headers.pax, entry, &self.limits)
            .map_err(|reason| Error::corrupt("read PAX header", path_of(entry), reason))?;
        let size = extra.stored.unwrap_or(size);
        self.check_path(entry)?;
        entry.kind = entry_kind(block, kind, entry)?;
        self.set_data(0);
        match entry.kind {
            EntryKind::File => {
                self.set_data(size);
                entry.size = size;
                if kind == b'S' {
                    self.old_sparse(block, size, entry)?;
                } else if extra.preamble || extra.map.is_some() {
                    self.pax_sparse(extra, size, entry)?;
                }
            }
            EntryKind::HardLink | EntryKind::Symlink => self.check_link(entry)?,
            EntryKind::Dir | EntryKind::Fifo | EntryKind::Char(_) | EntryKind::Block(_) => {
                entry.link.clear();
            }
        }
        Ok(())
    }

    /// Fills in what the plain header and GNU's long names say.
    fn fill_plain(&self, block: &Block, entry: &mut Entry) -> Result<()> {
        let (long_name, long_link) = (&self.headers.long_name, &self.headers.long_link);
        match header::text(long_name) {
            b"" => header::path(block, &mut entry.path),
            name => entry.path.extend_from_slice(name),
        }
        match header::text(long_link) {
            b"" => entry.link.extend_from_slice(header::text(&block[header::LINK])),
            link => entry.link.extend_from_slice(link),
        }
        let mode = header::number(&block[header::MODE]).ok_or_else(|| bad(block, "mode"))?;
        entry.mode = u32::try_from(mode & 0o7777).unwrap_or_default();
        // A PAX record may yet replace an id that the header cannot hold.
        let id = |field, name| match header::number(field) {
            Some(id) => Ok(u32::try_from(id).ok().filter(|id| *id != u32::MAX)),
            None => Err(bad(block, name)),
        };
        let has_pax = !self.headers.pax.is_empty();
        let (uid, gid) = (id(&block[header::UID], "uid")?, id(&block[header::GID], "gid")?);
        if !has_pax && (uid.is_none() || gid.is_none()) {
            return Err(bad(block, "uid or gid"));
        }
        (entry.uid, entry.gid) = (uid.unwrap_or_default(), gid.unwrap_or_default());
        entry.mtime.secs =
            header::number(&block[header::MTIME]).ok_or_else(|| bad(block, "mtime"))?;
        Ok(())
    }

    fn check_path(&self, entry: &Entry) -> Result<()> {
        if entry.path.len() > self.limits.path {
            return Err(refused(entry, "path is too long"));
        }
        if entry.path.len() > self.limits.component {
            let longest = entry.path.split(|byte| *byte == b'/').map(<[u8]>::len).max();
            if longest > Some(self.limits.component) {
                return Err(refused(entry, "a component of the path is too long"));
            }
        }
        Ok(())
    }

    fn check_link(&self, entry: &Entry) -> Result<()> {
        match entry.link.len() {
            0 => Err(Error::corrupt("read tar", path_of(entry), "link without a target")),
            length if length > self.limits.path => Err(refused(entry, "link target is too long")),
            _ => Ok(()),
        }
    }

    /// Reads the map of an old GNU sparse file, which goes on in blocks behind the header.
    fn old_sparse(&mut self, block: &Block, stored: u64, entry: &mut Entry) -> Result<()> {
        let malformed = || Error::corrupt("read tar", path_of(entry), "sparse map malformed");
        let mut map = Vec::new();
        sparse::old_pairs(&block[header::SPARSE], &mut map).ok_or_else(malformed)?;
        let real = header::size(&block[header::SPARSE_SIZE]).ok_or_else(malformed)?;
        let mut more = block[header::SPARSE_MORE] != 0;
        while more {
            if map.len() > self.limits.segments {
                return Err(refused(entry, "sparse file has too many segments"));
            }
            let block = self.block()?;
            let (pairs, another) = sparse::extension(&block);
            sparse::old_pairs(pairs, &mut map).ok_or_else(malformed)?;
            more = another;
        }
        set_sparse(entry, map, real, stored)
    }

    /// Takes a sparse map from a PAX header, or from before the content.
    fn pax_sparse(&mut self, extra: Extra, stored: u64, entry: &mut Entry) -> Result<()> {
        let real = extra.real_size.ok_or_else(|| {
            Error::corrupt("read tar", path_of(entry), "sparse file without its real size")
        })?;
        let mut map = extra.map.unwrap_or_default();
        if extra.preamble {
            map.clear();
            let mut preamble = Preamble::default();
            loop {
                if self.remaining < BLOCK as u64 {
                    return Err(Error::corrupt("read tar", path_of(entry), "sparse map cut off"));
                }
                let block = self.block()?;
                self.remaining -= BLOCK as u64;
                match preamble.block(&block, &mut map, self.limits.segments) {
                    Some(true) => break,
                    Some(false) => {}
                    None => {
                        let reason = "sparse map malformed or too large";
                        return Err(Error::corrupt("read tar", path_of(entry), reason));
                    }
                }
            }
            return set_sparse(entry, map, real, self.remaining);
        }
        set_sparse(entry, map, real, stored)
    }
}

fn set_sparse(entry: &mut Entry, mut map: Vec<Segment>, real: u64, stored: u64) -> Result<()> {
    sparse::check(&mut map, real, stored)
        .map_err(|reason| Error::corrupt("read tar", path_of(entry), reason))?;
    entry.size = real;
    entry.sparse = Some(map);
    Ok(())
}

/// Reads the kind of an entry from its type flag.
fn entry_kind(block: &Block, kind: u8, entry: &Entry) -> Result<EntryKind> {
    let device = || -> Result<Device> {
        if header::dialect(block) == Dialect::V7 {
            return Err(bad(block, "device number"));
        }
        let part = |field| header::number(field).and_then(|number| u32::try_from(number).ok());
        let (major, minor) = (part(&block[header::MAJOR]), part(&block[header::MINOR]));
        match (major, minor) {
            (Some(major), Some(minor)) => Ok(Device { major, minor }),
            _ => Err(bad(block, "device number")),
        }
    };
    Ok(match kind {
        // Before POSIX a directory was a file whose name ends with a slash.
        0 if entry.path.ends_with(b"/") => EntryKind::Dir,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::Char(device()?),
        b'4' => EntryKind::Block(device()?),
        b'5' => EntryKind::Dir,
        b'6' => EntryKind::Fifo,
        other => {
            let reason = format!("entry type {:?} is not supported", char::from(other));
            return Err(Error::refused("read tar", path_of(entry), reason, ErrorKind::Unsupported));
        }
    })
}

pub(super) fn path_of(entry: &Entry) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt as _;
    std::path::Path::new(std::ffi::OsStr::from_bytes(&entry.path))
}

pub(super) fn refused(entry: &Entry, reason: &'static str) -> Error {
    Error::invalid("read tar", path_of(entry), reason)
}

pub(super) fn bad(block: &Block, field: &str) -> Error {
    use std::os::unix::ffi::OsStringExt as _;
    let mut path = Vec::new();
    header::path(block, &mut path);
    let path = std::ffi::OsString::from_vec(path);
    Error::corrupt("read tar header", &path, format!("bad {field}"))
}
