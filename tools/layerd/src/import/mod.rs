//! Import of images from archives.

mod apply;
mod made;
mod plan;

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use cow::digest::{ChainId, DiffId, Digest};
use drivers::Driver;
use image::{Platform, Source};

use crate::catalogue::{Image as CatalogueImage, Lookup as _};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;
use crate::image_files::{self, ImageMeta};
use crate::root::TMP;
use crate::store::claims::Pin;
use crate::store::{NewLayer, Store, full_name};
use apply::Stop;
use made::{Commit, Made};
use plan::{Found, Plan};

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
        /// Its diffID, where the source promises one.
        diff_id: Option<DiffId>,
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
    pub image: CatalogueImage,
    /// How many of its layers were applied; the others existed.
    pub new_layers: usize,
}

impl Store {
    /// Imports the images of an archive or layout directory.
    ///
    /// Layers that are in the store already are not read. The others are applied side by side where
    /// the driver can give them their parents later, largest first; those that cannot do without
    /// (a hard link into a lower layer) follow on their parents. One sync makes them all durable,
    /// and only then does the catalogue learn of them. An import waits for another one that is at
    /// work on a layer which it lacks too.
    ///
    /// `progress` is called from several threads, at most every few megabytes of a layer.
    ///
    /// # Errors
    /// Whatever fails, nothing of the import is kept; the error names file, layer and path.
    #[tracing::instrument(skip_all, fields(path = %path.display()))]
    pub fn import(
        &self,
        path: &Path,
        options: &ImportOptions,
        progress: &(dyn Fn(ImportProgress) + Sync),
    ) -> Result<Vec<ImportedImage>> {
        const OP: &str = "import";
        let began = Instant::now();
        let failed = |source| Error::Image { op: OP, source };
        let name = options.name.as_deref().map(|name| full_name(OP, name)).transpose()?;
        let platform: Option<Platform> =
            options.platform.as_deref().map(str::parse).transpose().map_err(failed)?;
        let driver = self.driver(options.driver.as_deref())?;
        let scratch = self.root.subdir(TMP)?;
        let open = image::Options { scratch: Some(scratch.as_fd()), ..image::Options::default() };
        let source = Source::open_with(path, &open).map_err(failed)?;
        let images = source.images(platform.as_ref()).map_err(failed)?;
        let job = Import { store: self, driver: &*driver, file: path, progress };
        let imported = match (images.as_slice(), &name) {
            ([], _) => {
                let what = path.display().to_string();
                Err(Error::refused(OP, what, "there is no image in it", ErrorKind::NotFound))
            }
            ([only], _) if only.config.is_none() => job.rootfs(only, name),
            ([_, _, ..], Some(_)) => {
                let what = path.display().to_string();
                let reason = format!("it has {} images, which cannot share a name", images.len());
                Err(Error::refused(OP, what, reason, ErrorKind::InvalidArgument))
            }
            _ => job.images(&images, name),
        }?;
        for ImportedImage { image, new_layers } in &imported {
            let note = Note::image("import", image).with("new_layers", new_layers.to_string());
            self.events.tell(note.took(began));
        }
        Ok(imported)
    }
}

/// One import at work.
pub(crate) struct Import<'a> {
    store: &'a Store,
    driver: &'a dyn Driver,
    file: &'a Path,
    progress: &'a (dyn Fn(ImportProgress) + Sync),
}

impl<'a> Import<'a> {
    /// Imports images whose configs are known.
    fn images(&self, images: &[image::Image], name: Option<String>) -> Result<Vec<ImportedImage>> {
        let plan = Plan::new(self, images)?;
        for found in &plan.images {
            let id = found.config.digest();
            let names = name.iter().cloned().chain(found.names.iter().cloned());
            let names = names.take(if name.is_some() { 1 } else { usize::MAX }).collect();
            (self.progress)(ImportProgress::Image { id, names, layers: found.chains.len() });
        }
        let mut made = Made::new(self);
        apply::all(self, &plan, &mut made)?;
        self.enter(plan.images, name, made)
    }

    /// Imports a root file system, whose diffID and config only reading can tell.
    fn rootfs(&self, image: &image::Image, name: Option<String>) -> Result<Vec<ImportedImage>> {
        let mut made = Made::new(self);
        let Some(layer) = image.layers.first() else { return Ok(Vec::new()) };
        let applied = apply::one(self, &made, layer, None, &Stop::default())?;
        let diff_id = applied.verified.diff_id;
        let config = image::Config::for_rootfs(&[diff_id])
            .map_err(|source| Error::Image { op: "import", source })?;
        let chain = ChainId::base(&diff_id);
        // Nothing else is claimed, so nobody can be waiting for this import.
        let _claim = self.store.in_flight.claim((self.driver.name().to_owned(), chain));
        let _pin = self.pin(&chain);
        if self.store.catalogue.read()?.layer(self.driver.name(), &chain)?.is_some() {
            made.undo();
        } else {
            made.commit(&[Commit { chain, diff_id, parent: None, below: None, applied }])?;
        }
        let id = config.digest();
        let names = name.iter().cloned().collect();
        (self.progress)(ImportProgress::Image { id, names, layers: 1 });
        let found = Found { names: Vec::new(), chains: vec![chain], config };
        self.enter(vec![found], name, made)
    }

    /// Keeps an existing layer from being collected, until the image that counts on it is entered.
    fn pin(&self, chain: &ChainId) -> Pin<'a> {
        let _images = self.store.lock_images();
        self.store.pins.pin(self.driver.name(), &chain.to_string())
    }

    /// Makes the images known, whose layers are all committed; undone for all when one fails.
    fn enter(
        &self,
        images: Vec<Found>,
        name: Option<String>,
        made: Made<'_, '_>,
    ) -> Result<Vec<ImportedImage>> {
        let mut entered: Vec<ImportedImage> = Vec::new();
        for found in images {
            let names = match &name {
                Some(name) => BTreeSet::from([name.clone()]),
                None => found.names.iter().cloned().collect(),
            };
            match self.enter_one(&found, names, &made.committed) {
                Ok(image) => {
                    let new = made.committed.iter().filter(|new| found.chains.contains(&new.chain));
                    entered.push(ImportedImage { image, new_layers: new.count() });
                }
                Err(error) => {
                    for image in entered {
                        self.store.take_back(&image.image, &made.committed, self.driver.name());
                    }
                    return Err(error);
                }
            }
        }
        made.keep();
        Ok(entered)
    }

    fn enter_one(
        &self,
        found: &Found,
        names: BTreeSet<String>,
        new: &[NewLayer],
    ) -> Result<CatalogueImage> {
        let driver = self.driver.name();
        let now = Timestamp::now();
        let drivers = vec![driver.to_owned()];
        let meta = ImageMeta { names, drivers, imported: now, written: now };
        let rows = self.store.catalogue.read()?;
        let mut size: u64 = 0;
        for chain in &found.chains {
            let layer = match new.iter().find(|new| new.chain == *chain) {
                Some(new) => Some(new.layer.content_size),
                None => rows.layer(driver, chain)?.map(|layer| layer.content_size),
            };
            size = size.saturating_add(layer.unwrap_or_default());
        }
        let image = image_files::row(&meta, &found.config, size);
        let new: Vec<&NewLayer> =
            new.iter().filter(|new| found.chains.contains(&new.chain)).collect();
        self.store.enter_image(image, found.config.raw(), &new, driver)
    }
}

#[cfg(test)]
mod tests;
