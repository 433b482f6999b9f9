//! What is in the layers of images and containers, file by file.
//!
//! `files/<hex>` in the root is the list of the files of the layer with that diffID, one JSON object a
//! line, compressed with zstd: made when it is first asked for, since it takes reading all content,
//! and found from then on. It may be lost at any time. Beside it lies the layer's recipe ([`super::verify`]).
//! What belongs to layers that are gone is removed when the store is opened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::PoisonError;

use cow::digest::{ChainId, DiffId, Digest};
use cow::index::Contents;
use cow::tar::{Entry, EntryKind, Reader};
use drivers::Usage;
use layerd_api::{LayerFile, Text};

use super::verify::RECIPE;
use super::{Store, containers};

use crate::catalogue::{Layer, Lookup as _};
use crate::error::{Error, ErrorKind, Result};
use crate::root::{self, FILES};

/// The level of compression: lists are read once in a while and never sent compressed.
const LEVEL: i32 = 1;

/// A layer of images in all drivers that keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLayer {
    /// The identity of the stack.
    pub chain: ChainId,
    /// The layer in each driver.
    pub kept: Vec<(String, Layer)>,
    /// Ids of images that have it.
    pub images: Vec<String>,
    /// Ids of containers that have it.
    pub containers: Vec<String>,
}

impl Store {
    /// All layers of images with their users, from the catalogue alone.
    pub fn known_layers(&self) -> Result<Vec<KnownLayer>> {
        let rows = self.catalogue.read()?;
        let mut known: BTreeMap<ChainId, KnownLayer> = BTreeMap::new();
        for (driver, chain, layer) in rows.layers()? {
            let new = || KnownLayer {
                chain,
                kept: Vec::new(),
                images: Vec::new(),
                containers: Vec::new(),
            };
            known.entry(chain).or_insert_with(new).kept.push((driver, layer));
        }
        let mut users: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for container in rows.containers()? {
            users.entry(container.image).or_default().push(container.id);
        }
        for image in rows.images()? {
            let users = users.get(&image.id).map(Vec::as_slice).unwrap_or_default();
            for chain in image.layers.iter().collect::<BTreeSet<_>>() {
                if let Some(layer) = known.get_mut(chain) {
                    layer.images.push(image.id.to_string());
                    layer.containers.extend_from_slice(users);
                }
            }
        }
        Ok(known.into_values().collect())
    }

    /// Writes the uncompressed tar of a layer of images.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn layer_tar(&self, chain: &ChainId, out: &mut dyn Write) -> Result<()> {
        self.metrics.exported.inc_by(self.write_tar(chain, out)?);
        Ok(())
    }

    fn write_tar(&self, chain: &ChainId, out: &mut dyn Write) -> Result<u64> {
        let (driver, layer) = self.any_driver(chain)?;
        match self.recipe(&layer.diff_id)? {
            Some(recipe) => self.rebuild(&driver, &layer, recipe, out),
            None => self.image_layer_diff(&driver, chain, out),
        }
    }

    /// Writes the list of the files of a layer of images.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn layer_files(&self, chain: &ChainId, out: &mut dyn Write) -> Result<()> {
        let (_, layer) = self.any_driver(chain)?;
        // One at a time: a list keeps the processors busy, and the next one may want the same.
        let lists = self.list_lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = self.kept_list(&layer.diff_id)? {
            drop(lists);
            return send(list, out);
        }
        let made = self.make_list(chain)?;
        self.keep_list(&layer.diff_id, &made)?;
        drop(lists);
        send(&made[..], out)
    }

    /// Writes the list of the files that a container changed.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn container_files(&self, reference: &str, out: &mut dyn Write) -> Result<()> {
        let what = format!("container {reference:?}");
        listed(&what, |tar| self.container_tar(reference, tar), out)
    }

    /// Writes a container's changes as an uncompressed layer tar.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn container_tar(&self, reference: &str, out: &mut dyn Write) -> Result<()> {
        let container = self.container(reference)?;
        self.snapshot_diff(containers::NAMESPACE, &container.id, None, out).map(drop)
    }

    /// The space that a container's changes take.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn container_usage(&self, reference: &str) -> Result<Usage> {
        let container = self.container(reference)?;
        self.snapshot_usage(containers::NAMESPACE, &container.id)
    }

    /// A driver that keeps a layer.
    fn any_driver(&self, chain: &ChainId) -> Result<(String, Layer)> {
        let rows = self.catalogue.read()?;
        let found = rows.layers()?.into_iter().find(|(_, other, _)| other == chain);
        let (driver, _, layer) =
            found.ok_or_else(|| Error::not_found("find layer", chain.to_string()))?;
        Ok((driver, layer))
    }

    fn make_list(&self, chain: &ChainId) -> Result<Vec<u8>> {
        let failed = |error| Error::sys("compress", FILES, error);
        let mut packed = zstd::Encoder::new(Vec::new(), LEVEL).map_err(failed)?;
        listed(&format!("layer {chain}"), |tar| self.write_tar(chain, tar).map(drop), &mut packed)?;
        packed.finish().map_err(failed)
    }

    fn kept_list(&self, diff_id: &DiffId) -> Result<Option<std::fs::File>> {
        root::open_opt(self.root.subdir(FILES)?, &diff_id.digest().hex())
    }

    fn keep_list(&self, diff_id: &DiffId, list: &[u8]) -> Result<()> {
        root::write_whole(self.root.subdir(FILES)?, &diff_id.digest().hex(), list)
    }

    /// Removes what is kept for layers that are gone; before the store is used.
    pub(super) fn sweep_files(&self) -> Result<()> {
        let dir = self.root.subdir(FILES)?;
        let layers = self.catalogue.read()?.layers()?;
        let known: BTreeSet<String> =
            layers.iter().map(|(_, _, layer)| layer.diff_id.digest().hex()).collect();
        for name in root::names(&dir, FILES)? {
            if !known.contains(name.trim_end_matches(RECIPE)) {
                root::remove_all(&dir, &name)?;
            }
        }
        Ok(())
    }
}

/// Unpacks a list on its way to the client.
fn send(list: impl Read, out: &mut dyn Write) -> Result<()> {
    let failed = |error| Error::sys("read", FILES, error);
    let mut unpacked = zstd::Decoder::new(list).map_err(failed)?;
    io::copy(&mut unpacked, out).map(drop).map_err(failed)
}

/// Writes the list of the entries of the tar that `write` writes.
fn listed(
    what: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
    out: &mut dyn Write,
) -> Result<()> {
    let (reader, mut writer) = io::pipe().map_err(|error| Error::sys("pipe", what, error))?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || write(&mut writer));
        let read = read_list(what, reader, out);
        // Dropped by now, the reader ends the writer too.
        let written = writing.join();
        let died = || Error::refused("list files", what, "a thread died", ErrorKind::Io);
        match (read, written.map_err(|_| died())?) {
            (Err(error), Ok(())) => Err(error),
            // The tar's own trouble is the cause of the list's, except where that one ended first.
            (Err(error), Err(cause)) => {
                Err(if matches!(cause.kind(), ErrorKind::Io) { error } else { cause })
            }
            (Ok(()), written) => written,
        }
    })
}

fn read_list(what: &str, tar: impl Read, out: &mut dyn Write) -> Result<()> {
    let in_tar =
        |source: cow::Error| Error::refused("list files", what, source.to_string(), source.kind());
    let mut reader = Reader::new(tar);
    let mut entry = Entry::default();
    while reader.next_entry(&mut entry).map_err(in_tar)? {
        let content = Contents::Digest.of(&mut reader, &entry).map_err(in_tar)?;
        let file = LayerFile {
            path: entry.path.clone().into(),
            kind: kind(entry.kind).to_owned(),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: (entry.mtime.secs, entry.mtime.nanos),
            size: entry.size,
            stored: entry.sparse.as_ref().map(|map| map.iter().map(|segment| segment.len).sum()),
            offset: content.offset,
            link: (!entry.link.is_empty()).then(|| Text::from(entry.link.clone())),
            device: match entry.kind {
                EntryKind::Char(device) | EntryKind::Block(device) => {
                    Some((device.major, device.minor))
                }
                _ => None,
            },
            xattrs: entry
                .xattrs
                .iter()
                .map(|(name, value)| (name.clone().into(), value.clone().into()))
                .collect(),
            sha256: content.digest.map(|digest| digest.hex()),
        };
        let mut line = serde_json::to_vec(&file).map_err(|error| {
            Error::refused("list files", what, error.to_string(), ErrorKind::Io)
        })?;
        line.push(b'\n');
        out.write_all(&line).map_err(|error| Error::sys("write", what, error))?;
    }
    reader.drain().map(drop).map_err(in_tar)
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::HardLink => "hardlink",
        EntryKind::Symlink => "symlink",
        EntryKind::Char(_) => "char",
        EntryKind::Block(_) => "block",
        EntryKind::Dir => "dir",
        EntryKind::Fifo => "fifo",
    }
}
