//! Import of images from archives.

use std::path::Path;

use cow::digest::{DiffId, Digest};

use crate::catalogue::Image;
use crate::error::Result;
use crate::store::{Store, pending};

/// How an import is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// A name in place of those in the archive.
    pub name: Option<String>,
    /// The driver; none is the default one.
    pub driver: Option<String>,
    /// The platform, `os/arch[/variant]`; none is the host's.
    pub platform: Option<String>,
}

/// What happens to one layer of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It is in the store already.
    Exists,
    /// It is being read and applied.
    Applying,
    /// It is applied.
    Done,
}

/// One step of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportProgress {
    /// An image was found in the source.
    Image {
        /// The image id.
        id: Digest,
        /// The names that it will have.
        names: Vec<String>,
        /// How many layers it has.
        layers: usize,
    },
    /// A layer moved on.
    Layer {
        /// Its place in the image, 0 at the bottom.
        index: usize,
        /// Its diffID.
        diff_id: DiffId,
        /// Bytes of the blob read so far.
        read: u64,
        /// The length of the blob.
        total: u64,
        /// What happens to it.
        state: LayerState,
    },
}

/// One image that an import brought into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedImage {
    /// The image.
    pub image: Image,
    /// How many of its layers were applied; the others existed.
    pub new_layers: usize,
}

impl Store {
    /// Imports the images of an archive or layout directory.
    ///
    /// `progress` is called from several threads, at most every few megabytes of a layer.
    ///
    /// # Errors
    /// Whatever fails, nothing of the import is kept; the error names file, layer and path.
    pub fn import(
        &self,
        path: &Path,
        options: &ImportOptions,
        progress: &(dyn Fn(ImportProgress) + Sync),
    ) -> Result<Vec<ImportedImage>> {
        let _ = (options, progress);
        pending("import", &path.display().to_string())
    }
}
