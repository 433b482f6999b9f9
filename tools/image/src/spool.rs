//! Archives of images that are compressed as a whole, unpacked into a file without a name.

use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::os::fd::BorrowedFd;

use cow::ErrorKind;
use rustix::fs::{Mode, OFlags};

use crate::codec::Compression;
use crate::error::{Error, Result};
use crate::file::{Archive, Extent};
use crate::stream::{LayerStream, Promise};

/// Unpacks a file; the copy never has a name and is gone with its last user.
///
/// # Errors
///
/// Corrupt for damaged input or more than `limit` bytes; NoSpace and others as the system says.
pub(crate) fn spool(
    whole: &Extent,
    compression: Compression,
    scratch: BorrowedFd<'_>,
    limit: u64,
) -> Result<Archive> {
    let at = whole.place();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(scratch, ".", flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| Error::sys("open O_TMPFILE for", at.clone(), errno))?;
    let mut file = File::from(file);
    // Decompressed by one thread while another writes.
    let mut stream = LayerStream::start(whole, compression, Promise::default())?;
    let mut size = 0_u64;
    loop {
        let piece =
            stream.fill_buf().map_err(|error| Error::sys("decompress", at.clone(), error))?;
        let read = piece.len();
        if read == 0 {
            return Ok(Archive::new(&at.file, file, size));
        }
        size += read as u64;
        if size > limit {
            let reason = format!("it unpacks to more than {limit} bytes").into();
            return Err(Error::Refused { op: "decompress", at, reason, kind: ErrorKind::NoSpace });
        }
        file.write_all(piece)
            .map_err(|error| Error::sys("write the scratch file of", at.clone(), error))?;
        stream.consume(read);
    }
}
