//! Making an index from a tar stream.

use std::io::Read;

use sha2::Digest as _;

use super::build::Content;
use super::{Builder, Index};
use crate::digest::Digest;
use crate::error::Result;
use crate::tar::{Entry, EntryKind, Reader};

/// The most zeros of the holes of one file that are digested. A sparse file may claim any size; one
/// with larger holes has no digest.
const MAX_HOLES: u64 = 4 << 30;

/// Whether contents are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Passed over, and over by a seek where the reader can: no digests.
    Skip,
    /// Digested.
    Digest,
}

impl Contents {
    /// Finds out about the content of the entry that a reader has just given.
    ///
    /// # Errors
    /// Those of [`Reader::content`].
    pub fn of<R: Read>(self, reader: &mut Reader<R>, entry: &Entry) -> Result<Content> {
        let mut content = Content::default();
        if entry.kind == EntryKind::File {
            content.offset = Some(reader.position());
            if self == Self::Digest {
                content.digest = digest(reader, entry)?;
            }
        }
        Ok(content)
    }
}

impl Index {
    /// Makes an index of a layer from its uncompressed tar, up to the end of the archive.
    ///
    /// # Errors
    /// Those of [`Reader::next_entry`], and those of [`Builder::push`].
    pub fn read<R: Read>(reader: &mut Reader<R>, contents: Contents) -> Result<Self> {
        let mut builder = Builder::new();
        let mut entry = Entry::default();
        while reader.next_entry(&mut entry)? {
            let content = contents.of(reader, &entry)?;
            builder.push(&entry, content)?;
        }
        builder.finish()
    }
}

/// Digests the content of the present entry, holes as zeros.
fn digest<R: Read>(reader: &mut Reader<R>, entry: &Entry) -> Result<Option<Digest>> {
    let stored = match &entry.sparse {
        Some(segments) => segments.iter().map(|segment| segment.len).sum(),
        None => entry.size,
    };
    if entry.size - stored > MAX_HOLES {
        return Ok(None);
    }
    let mut sha = sha2::Sha256::new();
    let mut position = 0;
    reader.content(entry, |offset, bytes| {
        zeros(&mut sha, offset - position);
        sha.update(bytes);
        position = offset + bytes.len() as u64;
        Ok(())
    })?;
    zeros(&mut sha, entry.size - position);
    Ok(Some(Digest::from_sha256(sha.finalize().into())))
}

fn zeros(sha: &mut sha2::Sha256, mut count: u64) {
    const ZEROS: [u8; 4096] = [0; 4096];
    while count > 0 {
        let now = usize::try_from(count).map_or(ZEROS.len(), |count| count.min(ZEROS.len()));
        sha.update(&ZEROS[..now]);
        count -= now as u64;
    }
}
