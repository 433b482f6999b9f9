//! One layer of an image: where it is, what it must be, and how to read it.

use std::sync::Arc;

use cow::digest::{DiffId, Digest};

use crate::codec::Compression;
use crate::error::{Error, Place, Result};
use crate::file::Extent;
use crate::mapped::Mapped;
use crate::recipe::Recipe;
use crate::store::Store;
use crate::stream::{LayerStream, Promise};

/// A layer that can be read any number of times, from any thread.
#[derive(Clone, Debug)]
pub struct Layer {
    index: usize,
    store: Arc<Store>,
    name: String,
    size: u64,
    compression: Compression,
    media_type: Option<String>,
    promise: Promise,
}

impl Layer {
    /// Finds a layer and looks at its first bytes.
    ///
    /// # Errors
    ///
    /// Naming the layer: it is missing, not as long as promised, or of an unknown compression.
    pub(crate) fn locate(
        store: &Arc<Store>,
        index: usize,
        name: &str,
        promise: Promise,
        media_type: Option<String>,
    ) -> Result<Self> {
        let label = label(index, name);
        let at = || store.place(&label);
        let extent = store
            .find(name)?
            .ok_or_else(|| Error::missing("look up", at(), "it is not in the archive"))?;
        if let Some(size) = promise.blob_size
            && size != extent.len()
        {
            let reason = format!("it is {} bytes long, its descriptor says {size}", extent.len());
            return Err(Error::corrupt("look up", at(), reason));
        }
        let size = extent.len();
        let head = extent.named(&label).head(Compression::HEAD)?;
        let compression = Compression::tell(&head).map_err(|reason| match &media_type {
            Some(media_type) => {
                let reason = format!("{reason} (its media type is {media_type:?})");
                Error::unsupported("look up", at(), reason)
            }
            None => Error::unsupported("look up", at(), reason),
        })?;
        let (store, name) = (Arc::clone(store), name.to_owned());
        Ok(Self { index, store, name, size, compression, media_type, promise })
    }

    /// The place in the image, 0 at the bottom.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The promised diffID; none for a root file system, whose diffID reading finds out.
    pub fn diff_id(&self) -> Option<DiffId> {
        self.promise.diff_id
    }

    /// The promised digest of the blob as it is stored, where the source has one.
    pub fn blob_digest(&self) -> Option<Digest> {
        self.promise.blob_digest
    }

    /// The length of the blob as it is stored, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How the blob is compressed, told by its content.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The media type, where the source has one.
    pub fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref()
    }

    /// Where the layer is, for error messages.
    pub fn place(&self) -> Place {
        self.store.place(&label(self.index, &self.name))
    }

    /// Starts reading the uncompressed tar; this starts two or three threads.
    ///
    /// # Errors
    ///
    /// NotFound if it was taken away meanwhile, Io if no thread could be started.
    pub fn open(&self) -> Result<LayerStream> {
        LayerStream::start(&self.extent()?, self.compression, self.promise.clone())
    }

    /// The same, taking down the tar's recipe on the way for [`LayerStream::finish_recorded`].
    ///
    /// # Errors
    ///
    /// As [`Layer::open`].
    pub fn open_recorded(&self) -> Result<LayerStream> {
        let promise = self.promise.clone();
        LayerStream::start_with(&self.extent()?, self.compression, promise, Recipe::TakeDown)
    }

    /// The uncompressed tar in memory, read as it is touched and *not verified*; none for a layer that
    /// is compressed.
    ///
    /// Only for programs that may die of it when somebody cuts the file off meanwhile
    /// ([`cow_sys::Mmap`]), which a daemon may not: those use [`Layer::open`].
    ///
    /// # Errors
    ///
    /// NotFound if it was taken away meanwhile, Io if it cannot be mapped.
    pub fn map(&self) -> Result<Option<Mapped>> {
        if self.compression != Compression::None {
            return Ok(None);
        }
        let map = self.extent()?.map();
        map.map(Some).map_err(|error| Error::sys("map", self.place(), error))
    }

    fn extent(&self) -> Result<Extent> {
        let extent = self.store.get(&self.name)?;
        Ok(extent.named(&label(self.index, &self.name)))
    }
}

/// How error messages call a layer; people count from one.
fn label(index: usize, name: &str) -> String {
    format!("layer {} ({name})", index + 1)
}
