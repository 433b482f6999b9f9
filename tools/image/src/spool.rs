//! Archives of images that are compressed as a whole, unpacked into a file without a name.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::os::fd::BorrowedFd;

use cow::ErrorKind;
use rustix::fs::{Mode, OFlags};

use crate::codec::Compression;
use crate::error::{Error, Result};
use crate::file::{Archive, Extent};
use crate::pool::CHUNK;

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
    let reader = BufReader::with_capacity(CHUNK, whole.reader());
    let mut reader =
        compression.undo(reader).map_err(|error| Error::sys("decompress", at.clone(), error))?;
    let mut buffer = vec![0; CHUNK];
    let mut size = 0_u64;
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|error| Error::sys("decompress", at.clone(), error))?;
        if read == 0 {
            return Ok(Archive::new(&at.file, file, size));
        }
        size += read as u64;
        if size > limit {
            let reason = format!("it unpacks to more than {limit} bytes").into();
            return Err(Error::Refused { op: "decompress", at, reason, kind: ErrorKind::NoSpace });
        }
        file.write_all(&buffer[..read])
            .map_err(|error| Error::sys("write the scratch file of", at.clone(), error))?;
    }
}
