//! Compressions of layers and archives, told by their first bytes and undone as a stream.

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::error::Error;
use crate::gzip::GzipReader;
use crate::index::{BLOCK, checksum_matches};

/// The largest zstd window that is accepted, as a power of two: 128 MiB, zstd's own default limit.
///
/// The format lets a frame ask for gigabytes. Levels up to 19 use 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How the bytes of a layer or archive are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip (RFC 1952), of one member or several.
    Gzip,
    /// Zstandard (RFC 8878), of one frame or several, skippable ones included.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// First bytes of compressions that are recognised in order to be refused by name.
const REFUSED: [(&[u8], &str); 6] = [
    (b"\xfd7zXZ\0", "it is compressed by xz, which is not supported"),
    (b"BZh", "it is compressed by bzip2, which is not supported"),
    (b"\x04\x22\x4d\x18", "it is compressed by lz4, which is not supported"),
    (b"\x5d\x00\x00", "it is compressed by lzma, which is not supported"),
    (b"\x1f\x9d", "it is compressed by compress, which is not supported"),
    (b"PK\x03\x04", "it is a zip archive, not a tar"),
];

impl Compression {
    /// How many first bytes are needed to tell.
    pub(crate) const HEAD: usize = BLOCK;

    /// Tells a compression by the first [`Compression::HEAD`] bytes.
    ///
    /// # Errors
    ///
    /// The reason, where it is neither a tar nor a compression that is supported.
    pub(crate) fn tell(head: &[u8]) -> Result<Self, &'static str> {
        if head.starts_with(b"\x1f\x8b") {
            return Ok(Self::Gzip);
        }
        let skippable = head.first().is_some_and(|byte| byte & 0xf0 == 0x50)
            && head.get(1..4) == Some(b"\x2a\x4d\x18");
        if skippable || head.starts_with(b"\x28\xb5\x2f\xfd") {
            return Ok(Self::Zstd);
        }
        // The checksum goes first: a tar may hold a file that is named like a magic number.
        if let Some(block) = head.first_chunk::<BLOCK>()
            && (checksum_matches(block) || block.iter().all(|&byte| byte == 0))
        {
            return Ok(Self::None);
        }
        let known = REFUSED.iter().find(|(magic, _)| head.starts_with(magic));
        Err(known.map_or("it is neither a tar nor compressed by gzip or zstd", |(_, why)| why))
    }

    /// Undoes the compression of a stream.
    ///
    /// The reader ends without an error only where the compressed stream ended properly and
    /// nothing but zero padding followed.
    pub(crate) fn undo<'a>(
        self,
        reader: impl BufRead + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::None => Box::new(reader),
            Self::Gzip => Box::new(GzipReader::new(reader)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(ZstdReader(decoder))
            }
        })
    }
}

/// Gives the library's errors, which have no kind of their own, the one of damaged data.
struct ZstdReader<R>(R);

impl<R: Read> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let of_input = error.raw_os_error().is_some()
                || error.get_ref().is_some_and(|inner| inner.is::<Error>());
            if of_input || error.kind() != io::ErrorKind::Other {
                return error;
            }
            io::Error::new(io::ErrorKind::InvalidData, format!("the zstd data is damaged: {error}"))
        })
    }
}

#[cfg(test)]
mod tests;
