//! Images: listing, naming, removing.
//!
//! Files change before rows and are the truth: after a crash in between, the next start carries the
//! rows after the files.

use cow::digest::{ChainId, Digest};
use drivers::LayerId;

use super::{Store, names};
use crate::catalogue::{Change as _, Container, Durability, Image, Layer, Lookup, Status};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;
use crate::image_files;

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

/// A new row of a layer of an image, with its parent in the driver.
#[derive(Debug)]
pub(crate) struct NewLayer {
    pub(crate) chain: ChainId,
    pub(crate) layer: Layer,
    pub(crate) below: Option<LayerId>,
}

/// Layers whose rows are gone, by driver.
type Released = Vec<(String, Vec<(ChainId, LayerId)>)>;

impl Store {
    /// All images, the newest first.
    pub fn images(&self) -> Result<Vec<Image>> {
        let mut images = self.catalogue.read()?.images()?;
        images.sort_by(|a, b| b.imported.cmp(&a.imported).then(a.id.cmp(&b.id)));
        Ok(images)
    }

    /// The bytes of an image's config, as they were imported.
    ///
    /// # Errors
    /// `NotFound`, and `Corrupt` when the file is not what its digest says.
    pub fn image_config(&self, id: &Digest) -> Result<Vec<u8>> {
        if self.catalogue.read()?.image(id)?.is_none() {
            return Err(Error::not_found("read config of image", id.to_string()));
        }
        image_files::config(&self.root, id)
    }

    /// A layer of an image in one of its drivers.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn image_layer(&self, driver: &str, chain: &ChainId) -> Result<Layer> {
        let row = self.catalogue.read()?.layer(driver, chain)?;
        row.ok_or_else(|| Error::not_found("find layer", format!("{chain} in {driver}")))
    }

    /// Writes a layer of an image as an uncompressed tar; the answer is its length.
    pub fn image_layer_diff(
        &self,
        driver: &str,
        chain: &ChainId,
        out: &mut dyn std::io::Write,
    ) -> Result<u64> {
        let layer = self.image_layer(driver, chain)?.layer;
        let driver = self.driver(Some(driver))?;
        driver.diff(&layer, None, out).map_err(|e| Error::driver(format!("read layer {chain}"), e))
    }

    /// Gives an image one more name, which moves if another image has it.
    ///
    /// # Errors
    /// `NotFound` for the image, `InvalidArgument` for a name that is no reference.
    pub fn tag(&self, image: &str, name: &str) -> Result<Image> {
        const OP: &str = "tag image";
        let full = names::full_name(OP, name)?;
        let _images = self.lock_images();
        let (mut image, _) = names::image(&self.catalogue.read()?, OP, image)?;
        if image.names.insert(full.clone()) {
            image_files::write_meta(&self.root, &image)?;
            self.write_image(&image, &[], "")?;
            self.events.tell(Note::image("tag", &image).with("name", full));
        }
        Ok(image)
    }

    /// Writes the rows of an image and of new layers; the files of images that lose a name follow.
    fn write_image(&self, image: &Image, layers: &[&NewLayer], driver: &str) -> Result<()> {
        let losers = self.catalogue.write(Durability::Now, |w| {
            for new in layers {
                w.put_layer(driver, &new.chain, &new.layer, new.below.as_ref())?;
            }
            w.put_image(image)
        })?;
        losers.iter().try_for_each(|loser| image_files::write_meta(&self.root, loser))
    }

    /// Brings an image into the store whose layers are committed in `driver`, among them `layers`
    /// whose rows are new. An image that exists gets the names and the driver as well.
    pub(crate) fn enter_image(
        &self,
        mut image: Image,
        config: &[u8],
        layers: &[&NewLayer],
        driver: &str,
    ) -> Result<Image> {
        let _images = self.lock_images();
        let before = self.catalogue.read()?.image(&image.id)?;
        if let Some(before) = &before {
            image.names.extend(before.names.iter().cloned());
            let others = before.drivers.iter().filter(|other| !image.drivers.contains(other));
            let others: Vec<String> = others.cloned().collect();
            image.drivers.extend(others);
            image.imported = before.imported;
        }
        image_files::create(&self.root, &image, config)?;
        self.write_image(&image, layers, driver).inspect_err(|_| {
            let undone = match &before {
                Some(before) => image_files::write_meta(&self.root, before),
                None => image_files::remove(&self.root, &image.id.hex()),
            };
            if let Err(error) = undone {
                tracing::error!(image = %image.id, %error, "files of a failed import are left");
            }
        })?;
        Ok(image)
    }

    /// Takes a name away, and with the last one the image and every layer that nobody else uses.
    ///
    /// By its id, an image goes with its only name; with several, only by `force`. `force` also
    /// removes an image that only ended containers use; their layers stay as long as they do.
    ///
    /// # Errors
    /// `InUse` naming the container that uses the image; `FailedPrecondition` for an id of an image
    /// with several names, without `force`.
    #[tracing::instrument(skip_all, fields(image))]
    pub fn remove_image(&self, image: &str, force: bool) -> Result<Removed> {
        const OP: &str = "remove image";
        let mut removed = Removed::default();
        let released = {
            let _images = self.lock_images();
            let rows = self.catalogue.read()?;
            let (mut found, by_name) = names::image(&rows, OP, image)?;
            if let Some(name) = by_name.filter(|_| found.names.len() > 1) {
                found.names.remove(&name);
                image_files::write_meta(&self.root, &found)?;
                self.write_image(&found, &[], "")?;
                self.events.tell(Note::image("untag", &found).with("name", &*name));
                removed.untagged.push(name);
                return Ok(removed);
            }
            if found.names.len() > 1 && !force {
                let reason = format!("it has {} names; force removes all", found.names.len());
                return Err(Error::refused(OP, image, reason, ErrorKind::FailedPrecondition));
            }
            if let Some(user) = user(&rows, &found, force)? {
                let reason = format!("container {} uses it", user.name);
                return Err(Error::refused(OP, image, reason, ErrorKind::InUse));
            }
            self.delete(found, &mut removed)?
        };
        self.free(released, &mut removed);
        Ok(removed)
    }

    /// Deletes an image and the rows of its layers that nobody else uses. The lock is held.
    fn delete(&self, image: Image, removed: &mut Removed) -> Result<Released> {
        image_files::remove(&self.root, &image.id.hex())?;
        self.catalogue.write(Durability::Now, |w| w.delete_image(&image))?;
        self.events.tell(Note::image("remove", &image));
        removed.untagged.extend(image.names);
        removed.deleted.push(image.id);
        let mut released = Vec::new();
        if let Some(top) = image.layers.last() {
            for driver in image.drivers {
                let rows = self.release(&driver, *top)?;
                released.push((driver, rows));
            }
        }
        Ok(released)
    }

    /// Takes back an image that a failed import entered, and the rows of its new layers, which are
    /// the import's to remove.
    pub(crate) fn take_back(&self, image: &Image, layers: &[NewLayer], driver: &str) {
        let _images = self.lock_images();
        let undone = image_files::remove(&self.root, &image.id.hex()).and_then(|()| {
            self.catalogue.write(Durability::Now, |w| {
                w.delete_image(image)?;
                layers.iter().filter(|new| image.layers.contains(&new.chain)).try_for_each(|new| {
                    w.delete_layer(driver, &new.chain, &new.layer.layer, new.below.as_ref())
                })
            })
        });
        if let Err(error) = undone {
            tracing::error!(image = %image.id, %error, "an image of a failed import is left");
        }
    }

    /// Frees released layers; those of a driver that does not work stay for the next collection.
    fn free(&self, released: Released, removed: &mut Removed) {
        for (driver, layers) in released {
            match self.driver(Some(&driver)) {
                Ok(driver) => self.free_released(&*driver, &layers, removed),
                Err(error) => tracing::warn!(driver, %error, "layers left for the next gc"),
            }
        }
    }

    /// Removes images that nobody needs, and everything that [`Store::gc`] does.
    pub fn prune(&self, scope: PruneScope) -> Result<Removed> {
        let mut removed = Removed::default();
        let mut released = Vec::new();
        {
            let _images = self.lock_images();
            let rows = self.catalogue.read()?;
            for image in rows.images()? {
                let wanted = scope == PruneScope::Unused || image.names.is_empty();
                if wanted && user(&rows, &image, false)?.is_none() {
                    released.append(&mut self.delete(image, &mut removed)?);
                }
            }
        }
        self.free(released, &mut removed);
        let collected = self.gc()?;
        removed.layers.extend(collected.layers);
        removed.bytes += collected.bytes;
        Ok(removed)
    }
}

/// A container that keeps an image from being removed: any, or with `force` any that runs.
fn user(rows: &impl Lookup, image: &Image, force: bool) -> Result<Option<Container>> {
    let users = rows.containers()?.into_iter().filter(|container| container.image == image.id);
    let mut users = users.map(super::containers::settled);
    Ok(users.find(|user| !force || matches!(user.status, Status::Running { .. })))
}
