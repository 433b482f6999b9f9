//! Where an image's pieces are found by name: the entries of a tar, the files of a directory, or
//! one file that is all there is.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use cow::digest::Digest;

use crate::error::{Error, Place, Result};
use crate::file::{self, Archive, Extent};
use crate::index::{TarIndex, clean};
use crate::oci;

/// The longest JSON document that is read, in bytes; containerd's bound for manifests too.
pub(crate) const MAX_JSON: u64 = 8 << 20;

/// How many bytes of documents one source may make us read, all its images together.
///
/// Thousands of entries may name one large document; each would be parsed and kept.
#[derive(Debug)]
pub(crate) struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Self(32 << 20)
    }
}

impl Budget {
    fn take(&mut self, bytes: u64, at: impl FnOnce() -> Place) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            Error::corrupt("read", at(), "manifests and configs are over 32 MiB in all")
        })?;
        Ok(())
    }
}

/// A set of named pieces.
#[derive(Debug)]
pub(crate) enum Store {
    /// The entries of an archive.
    Tar {
        /// The archive.
        archive: Arc<Archive>,
        /// Its contents.
        index: TarIndex,
    },
    /// The files below a directory.
    Directory {
        /// The directory.
        dir: OwnedFd,
        /// Its path, for error messages.
        path: PathBuf,
    },
    /// A file that is found under any name.
    Single(Arc<Archive>),
}

impl Store {
    /// Names a piece in error messages.
    pub(crate) fn place(&self, name: &str) -> Place {
        match self {
            Self::Tar { archive, .. } | Self::Single(archive) => {
                Place::inside(archive.path(), name)
            }
            Self::Directory { path, .. } => Place::inside(path, name),
        }
    }

    /// Looks a piece up.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Extent>> {
        match self {
            Self::Tar { archive, index } => {
                let entry = index
                    .find(name)
                    .map_err(|reason| Error::corrupt("look up", self.place(name), reason))?;
                Ok(entry
                    .map(|entry| Extent::new(Arc::clone(archive), entry.offset, entry.size, name)))
            }
            Self::Directory { dir, path } => {
                let name = clean(name).ok_or_else(|| {
                    Error::corrupt("look up", self.place(name), "the name leaves the directory")
                })?;
                let found = file::open_beneath(dir, &name, path)?;
                Ok(found.map(|archive| Extent::whole(Arc::new(archive), &name)))
            }
            Self::Single(archive) => Ok(Some(Extent::whole(Arc::clone(archive), name))),
        }
    }

    /// Whether the two files are there that make an OCI layout.
    pub(crate) fn is_layout(&self) -> Result<bool> {
        Ok(self.find(oci::MARKER)?.is_some() && self.find(oci::INDEX)?.is_some())
    }

    /// Looks a piece up that must be there.
    pub(crate) fn get(&self, name: &str) -> Result<Extent> {
        self.find(name)?
            .ok_or_else(|| Error::missing("look up", self.place(name), "it is not there"))
    }

    /// Reads a document whole.
    pub(crate) fn document(&self, name: &str, budget: &mut Budget) -> Result<Vec<u8>> {
        let extent = self.get(name)?;
        if extent.len() > MAX_JSON {
            let reason = format!("it is {} bytes long, a document may have 8 MiB", extent.len());
            return Err(Error::corrupt("read", self.place(name), reason));
        }
        budget.take(extent.len(), || self.place(name))?;
        let mut bytes = Vec::with_capacity(usize::try_from(extent.len()).unwrap_or(0));
        extent
            .reader()
            .read_to_end(&mut bytes)
            .map_err(|error| Error::sys("pread", self.place(name), error))?;
        Ok(bytes)
    }

    /// Reads a document whole and checks its digest.
    pub(crate) fn verified(
        &self,
        name: &str,
        expected: Digest,
        budget: &mut Budget,
    ) -> Result<Vec<u8>> {
        let bytes = self.document(name, budget)?;
        let found = Digest::of(&bytes);
        if found != expected {
            let (at, what) = (self.place(name), "digest");
            return Err(Error::DigestMismatch { at, what, expected, found });
        }
        Ok(bytes)
    }
}
