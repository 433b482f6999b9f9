//! Making an image of a container's changes.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::Arc;
use std::time::Instant;

use cow::digest::{ChainId, DiffId, Digest, Digester};
use drivers::{Applied, CreateOptions, Driver, LayerId, LayerRecord};
use image::{Config, History, ImageConfig};

use super::{CommitContainer, NewLayer, Store, names};
use crate::catalogue::owner::Owner;
use crate::catalogue::{Container, Image, Layer, Lookup as _};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;
use crate::image_files::{self, ImageMeta};

const OP: &str = "commit container";

/// A layer that holds a container's changes, not committed yet.
struct Packed {
    diff_id: DiffId,
    tar_size: u64,
    applied: Applied,
}

/// How large the device of a layer is, which may have content that fits in no smaller one; none of a driver
/// that gives layers no devices.
fn device_size(driver: &dyn Driver, layer: &LayerId) -> Option<u64> {
    driver.metadata(layer).ok()?.get("DeviceSize")?.parse().ok()
}

impl Store {
    /// Makes an image of a container's image and changes; the container may be running.
    ///
    /// The changes are packed and at once applied as a layer of its own, without a file in between.
    ///
    /// # Errors
    /// `NotFound` for the container or its image, `InvalidArgument` for a name that is none.
    #[tracing::instrument(skip_all, fields(container = reference))]
    pub fn commit_container(&self, reference: &str, commit: &CommitContainer) -> Result<Image> {
        let name = commit.name.as_deref().map(|name| names::full_name(OP, name)).transpose()?;
        let (container, snapshot, driver) = self.container_layer(OP, reference)?;
        let base = self.catalogue.read()?.image(&container.image)?;
        let base = base.ok_or_else(|| Error::not_found(OP, container.image.to_string()))?;
        let config = image_files::parse(image_files::config(&self.root, &base.id)?, &base.id)?;
        let parent = base.layers.last().copied();
        let below = match &parent {
            Some(parent) => self.catalogue.read()?.layer(driver.name(), parent)?,
            None => None,
        };
        let below = below.map(|below| below.layer);

        let id = self.new_id()?;
        let _pin = self.pins.pin(driver.name(), id.as_str());
        let labels = Owner::of_image(0).to_labels()?;
        let size = device_size(&*driver, &snapshot.layer);
        let options = CreateOptions { labels, size, ..CreateOptions::active() };
        let failed = |e| Error::driver(format!("{OP} {reference}"), e);
        let began = Instant::now();
        driver.create(&id, below.as_ref(), &options).map_err(failed)?;
        self.events.tell(Note::layer("create", driver.name(), &id));
        let made = pack(&driver, &snapshot.layer, &id).map_err(failed).and_then(|packed| {
            let config = extend(&config, &container, packed.diff_id, commit)?;
            self.enter_commit(&driver, &id, below, parent, &packed, &config, name)
        });
        match &made {
            Ok(image) => {
                let note = Note::image("commit", image).with("container", &*container.name);
                self.events.tell(note.took(began));
            }
            Err(_) => self.drop_layer(&*driver, &id),
        }
        made
    }

    /// Commits a packed layer, or takes the equal one that exists, and enters the image.
    #[allow(clippy::too_many_arguments, reason = "one step of one operation, called once")]
    fn enter_commit(
        &self,
        driver: &Arc<dyn Driver>,
        id: &LayerId,
        below: Option<LayerId>,
        parent: Option<ChainId>,
        packed: &Packed,
        config: &Config,
        name: Option<String>,
    ) -> Result<Image> {
        let diff_id = packed.diff_id;
        let chain = parent.map_or_else(|| ChainId::base(&diff_id), |parent| parent.push(&diff_id));
        // Nothing else is claimed, so nobody can be waiting for this call.
        let _claim = self.in_flight.claim((driver.name().to_owned(), chain));
        let _pin = {
            let _images = self.lock_images();
            self.pins.pin(driver.name(), &chain.to_string())
        };
        let mut new = Vec::new();
        if self.catalogue.read()?.layer(driver.name(), &chain)?.is_some() {
            self.drop_layer(&**driver, id);
        } else {
            let content_size = packed.applied.content_size;
            let record = LayerRecord {
                diff_id: Some(diff_id),
                chain_id: Some(chain),
                tar_size: Some(packed.tar_size),
                parent: None,
                labels: Owner::of_image(content_size).to_labels()?,
            };
            let info = driver.commit(id, &record).map_err(|e| Error::driver(OP, e))?;
            let layer = Layer {
                layer: id.clone(),
                parent,
                diff_id,
                tar_size: packed.tar_size,
                content_size,
                usage: info.usage.unwrap_or_default(),
            };
            self.events.tell(Note::committed(driver.name(), &chain, &layer));
            new.push(NewLayer { chain, layer, below });
        }
        let now = Timestamp::now();
        let meta = ImageMeta {
            names: name.into_iter().collect(),
            drivers: vec![driver.name().to_owned()],
            imported: now,
            written: now,
        };
        let rows = self.catalogue.read()?;
        let mut size = packed.applied.content_size;
        for chain in image_files::chains(config).iter().rev().skip(1) {
            let layer = rows.layer(driver.name(), chain)?;
            size = size.saturating_add(layer.map_or(0, |layer| layer.content_size));
        }
        drop(rows);
        let image = image_files::row(&meta, config, size);
        let new: Vec<&NewLayer> = new.iter().collect();
        self.enter_image(image, config.raw(), &new, driver.name())
    }

    /// Removes a layer that turned out useless; what cannot be removed is left for the collector.
    fn drop_layer(&self, driver: &dyn Driver, id: &LayerId) {
        match driver.remove(id) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(layer = %id, %error, "layer left for the next gc");
            }
            _ => self.events.tell(Note::layer("remove", driver.name(), id)),
        }
    }
}

/// Packs the changes of one layer and applies them to another at the same time.
fn pack(driver: &Arc<dyn Driver>, from: &LayerId, to: &LayerId) -> drivers::Result<Packed> {
    let (reader, writer) = io::pipe().map_err(|error| drivers::Error::Home {
        driver: driver.name(),
        op: "diff",
        source: cow::Error::sys("pipe2", "", error),
    })?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| write_diff(&**driver, from, writer));
        let applied = apply(&**driver, to, reader);
        // A panic of the other thread is this one's as well.
        let packed = packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (packed, applied) {
            (Ok((digest, tar_size)), Ok(applied)) => {
                Ok(Packed { diff_id: DiffId::new(digest), tar_size, applied })
            }
            // Whichever stops first makes the other fail, by an end of file or a closed pipe: the
            // packer's error is the cause unless it is the closed pipe.
            (Err(error), Ok(_)) => Err(error),
            (Err(error), Err(_)) if !is_closed_pipe(&error) => Err(error),
            (_, Err(error)) => Err(error),
        }
    })
}

fn write_diff(
    driver: &dyn Driver,
    from: &LayerId,
    writer: PipeWriter,
) -> drivers::Result<(Digest, u64)> {
    let mut out = Digester::new(writer);
    driver.diff(from, None, &mut out)?;
    let (_, digest, bytes) = out.finish();
    Ok((digest, bytes))
}

fn apply(driver: &dyn Driver, to: &LayerId, mut reader: PipeReader) -> drivers::Result<Applied> {
    driver.apply(to, &mut reader)
}

fn is_closed_pipe(error: &drivers::Error) -> bool {
    let (drivers::Error::Layer { source, .. } | drivers::Error::Home { source, .. }) = error else {
        return false;
    };
    let cow::Error::Sys { source, .. } = source else { return false };
    source.kind() == io::ErrorKind::BrokenPipe
}

/// The config of the image with one more layer.
fn extend(
    base: &Config,
    container: &Container,
    diff_id: DiffId,
    commit: &CommitContainer,
) -> Result<Config> {
    let mut config: ImageConfig = base.image().clone();
    let now = Timestamp::now().to_string();
    config.created = Some(now.clone());
    if let Some(author) = &commit.author {
        config.author.clone_from(author);
    }
    // What only the base knows of itself is not true of the new image.
    for stale in ["container", "container_config", "docker_version", "id", "parent"] {
        config.other.remove(stale);
    }
    let spec = &container.spec;
    config.config.env.clone_from(&spec.env);
    config.config.working_dir.clone_from(&spec.cwd);
    config.config.user.clone_from(&spec.user);
    // The words after the image's entrypoint are the command that ran.
    let entrypoint = &config.config.entrypoint;
    match spec.args.strip_prefix(entrypoint.as_slice()) {
        Some(command) => config.config.cmd = command.to_vec(),
        None => {
            config.config.entrypoint.clear();
            config.config.cmd.clone_from(&spec.args);
        }
    }
    config.rootfs.diff_ids.push(diff_id);
    config.history.push(History {
        created: Some(now),
        created_by: Some(spec.args.join(" ")),
        author: commit.author.clone(),
        comment: commit.comment.clone(),
        ..History::default()
    });
    Config::build(config).map_err(|source| Error::Image { op: OP, source })
}
