//! Files that outsiders own, read in place.
//!
//! An archive is read with `pread` and never mapped. Its owner may truncate it at any time, and a
//! touched page beyond the new end of a mapped file kills the process with SIGBUS; no lease or size
//! check closes that window for a file that somebody else can open for writing. `pread` answers the
//! same event with a short count. What it costs is one copy out of the page cache: about a tenth of
//! the time that digesting the same bytes through a map takes, page faults included.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cow_sys::Mmap;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::error::{Error, Place, Result};
use crate::mapped::Mapped;

/// A regular file that is open for reading, with the size that it had when it was opened.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    file: File,
    size: u64,
}

/// What a path named by the caller turned out to be.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A regular file.
    File(Archive),
    /// A directory.
    Directory(OwnedFd),
}

/// Opens a path that the caller named, which may be a symbolic link like any argument.
///
/// `O_NONBLOCK` keeps a FIFO from holding the caller up before it is refused.
pub(crate) fn open(path: &Path) -> Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| Error::sys("open", Place::file(path), errno))?;
    match file_type(&fd, path)? {
        (FileType::Directory, _) => Ok(Opened::Directory(fd)),
        (FileType::RegularFile, size) => {
            Ok(Opened::File(Archive { path: path.to_owned(), file: File::from(fd), size }))
        }
        _ => Err(Error::unsupported(
            "open",
            Place::file(path),
            "neither a regular file nor a directory",
        )),
    }
}

/// Opens a regular file below a held directory; no component may be a symbolic link.
///
/// `shown` is the path of the whole for error messages.
pub(crate) fn open_beneath(dir: impl AsFd, name: &str, shown: &Path) -> Result<Option<Archive>> {
    let at = || Place::inside(shown, name);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let fd = match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(Error::sys("openat2", at(), errno)),
    };
    match file_type(&fd, shown)? {
        (FileType::RegularFile, size) => {
            Ok(Some(Archive { path: shown.to_owned(), file: File::from(fd), size }))
        }
        _ => Err(Error::unsupported("openat2", at(), "not a regular file")),
    }
}

fn file_type(fd: &OwnedFd, path: &Path) -> Result<(FileType, u64)> {
    let stat =
        rustix::fs::fstat(fd).map_err(|errno| Error::sys("fstat", Place::file(path), errno))?;
    Ok((FileType::from_raw_mode(stat.st_mode), u64::try_from(stat.st_size).unwrap_or(0)))
}

impl Archive {
    /// Takes a file of our own making.
    pub(crate) fn new(path: &Path, file: File, size: u64) -> Self {
        Self { path: path.to_owned(), file, size }
    }

    /// The path for error messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The size at the time of opening.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads as much of `buffer` as the file has from `offset`; less only at its end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A run of bytes of a file: one entry of an archive, or a whole blob.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    archive: Arc<Archive>,
    offset: u64,
    len: u64,
    /// The entry's name for error messages.
    name: Arc<str>,
}

impl Extent {
    /// A part of a file; the caller has checked that it lies inside.
    pub(crate) fn new(archive: Arc<Archive>, offset: u64, len: u64, name: &str) -> Self {
        Self { archive, offset, len, name: name.into() }
    }

    /// A whole file.
    pub(crate) fn whole(archive: Arc<Archive>, name: &str) -> Self {
        let len = archive.size();
        Self::new(archive, 0, len, name)
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Where it is, for error messages.
    pub(crate) fn place(&self) -> Place {
        Place::inside(self.archive.path(), &*self.name)
    }

    /// The same bytes, called something else in error messages.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Starts reading at its beginning.
    pub(crate) fn reader(&self) -> ExtentReader {
        ExtentReader { extent: self.clone(), position: 0 }
    }

    /// The whole of it as bytes in memory, read as they are touched. See [`Mmap`] for what that asks
    /// of the file.
    pub(crate) fn map(&self) -> io::Result<Mapped> {
        let map = Mmap::of(&self.archive.file)?;
        let range = usize::try_from(self.offset).ok().zip(usize::try_from(self.len).ok());
        let range = range.and_then(|(start, len)| Some(start..start.checked_add(len)?));
        match range {
            Some(range) if range.end <= map.len() => Ok(Mapped::new(map, range)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The first bytes, at most `limit`.
    pub(crate) fn head(&self, limit: usize) -> Result<Vec<u8>> {
        let len = usize::try_from(self.len).map_or(limit, |len| len.min(limit));
        let mut head = vec![0; len];
        self.reader()
            .read_exact(&mut head)
            .map_err(|error| Error::sys("pread", self.place(), error))?;
        Ok(head)
    }
}

/// Reads an [`Extent`] from its beginning to its end.
#[derive(Debug)]
pub(crate) struct ExtentReader {
    extent: Extent,
    position: u64,
}

impl Read for ExtentReader {
    /// Fills the buffer as far as the extent goes; a file that has shrunk meanwhile is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Extent { archive, offset, len, .. } = &self.extent;
        let left = len - self.position;
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = archive.read_at(&mut buffer[..want], offset + self.position)?;
        if read < want {
            let reason = format!(
                "the file was cut off while it was read: {} of {len} bytes are left",
                self.position + read as u64
            );
            return Err(Error::corrupt("pread", self.extent.place(), reason).into());
        }
        self.position += read as u64;
        Ok(read)
    }
}
