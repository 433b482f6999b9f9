//! Images by name: listing, naming, removing.

use cow::digest::{ChainId, Digest};

use super::{Store, pending};
use crate::catalogue::Image;
use crate::error::Result;

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// Images that are gone.
    pub deleted: Vec<Digest>,
    /// Layers of images that are gone, by chainID.
    pub layers: Vec<ChainId>,
    /// Freed bytes.
    pub bytes: u64,
}

/// Which images a prune takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneScope {
    /// Those without a name that no container uses.
    Dangling,
    /// All that no container uses.
    Unused,
}

impl Store {
    /// All images, the newest first.
    pub fn images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    /// Finds an image by full name, short name, id, or beginning of an id.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidArgument` when several ids begin so.
    pub fn resolve(&self, reference: &str) -> Result<Image> {
        pending("resolve image", reference)
    }

    /// The bytes of an image's config, as they were imported.
    pub fn image_config(&self, id: &Digest) -> Result<Vec<u8>> {
        pending("read config of image", &id.to_string())
    }

    /// Gives an image one more name, which moves if another image has it.
    ///
    /// # Errors
    /// `NotFound` for the image, `InvalidArgument` for a name that is no reference.
    pub fn tag(&self, image: &str, name: &str) -> Result<Image> {
        let _ = name;
        pending("tag image", image)
    }

    /// Takes a name away, and with the last one the image and every layer that nobody else uses.
    ///
    /// # Errors
    /// `InUse` naming the container that uses the image; `FailedPrecondition` for an id of an image
    /// with several names, without `force`.
    pub fn remove_image(&self, image: &str, force: bool) -> Result<Removed> {
        let _ = force;
        pending("remove image", image)
    }

    /// Removes images that nobody needs, and everything that [`Store::gc`] does.
    pub fn prune(&self, scope: PruneScope) -> Result<Removed> {
        let _ = scope;
        self.gc()
    }

    /// Frees what nothing refers to: layers that a crash left, and layers of images that are gone.
    pub fn gc(&self) -> Result<Removed> {
        Ok(Removed::default())
    }
}
