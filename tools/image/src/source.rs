//! A file or directory with images in it, told by what is inside and never by its name.

use std::fmt;
use std::io::BufReader;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blocks::{FileBlocks, StreamBlocks};
use crate::codec::Compression;
use crate::error::{Error, Place, Result};
use crate::file::{self, Archive, Extent, Opened};
use crate::image::Image;
use crate::index::{Scan, TarIndex};
use crate::layer::Layer;
use crate::platform::Platform;
use crate::store::Store;
use crate::stream::Promise;
use crate::{docker, oci, spool};

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What `docker save` writes: a tar with `manifest.json`.
    DockerArchive,
    /// An OCI layout in a tar.
    OciArchive,
    /// An OCI layout in a directory.
    OciLayout,
    /// A tar of a root file system, which becomes an image of one layer.
    RootfsTar,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DockerArchive => "docker-archive",
            Self::OciArchive => "oci-archive",
            Self::OciLayout => "oci-layout",
            Self::RootfsTar => "rootfs-tar",
        })
    }
}

/// How a source is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Where a docker or OCI archive that is compressed as a whole may be unpacked, as one unlinked
    /// file; without it such an archive is refused.
    ///
    /// It is the one exception to reading in place: its manifest may come last, its layers lie in
    /// any order, and a gzip stream cannot be entered in the middle.
    pub scratch: Option<BorrowedFd<'a>>,
    /// The most bytes that such an archive may unpack to.
    pub scratch_limit: u64,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { scratch: None, scratch_limit: 64 << 30 }
    }
}

/// An open source. Everything is read from the file that was opened, whatever its path names later.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: Kind,
    store: Arc<Store>,
}

impl Source {
    /// Opens a source with the default options.
    ///
    /// # Errors
    ///
    /// As [`Source::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Options::default())
    }

    /// Opens a source and tells what it is; layers are not read, the manifests neither.
    ///
    /// # Errors
    ///
    /// Naming the file: it cannot be opened (as the system says), is no image (Unsupported), or is
    /// cut off or damaged (Corrupt).
    pub fn open_with(path: impl AsRef<Path>, options: &Options<'_>) -> Result<Self> {
        let path = path.as_ref();
        let (kind, store) = match file::open(path)? {
            Opened::Directory(dir) => {
                let store = Store::Directory { dir, path: path.to_owned() };
                if !store.is_layout()? {
                    return Err(Error::unsupported(
                        "open",
                        Place::file(path),
                        "the directory is no OCI layout: it lacks oci-layout or index.json",
                    ));
                }
                (Kind::OciLayout, store)
            }
            Opened::File(archive) => open_archive(archive, options)?,
        };
        tracing::debug!(path = %path.display(), %kind, "opened a source of images");
        Ok(Self { path: path.to_owned(), kind, store: Arc::new(store) })
    }

    /// The path as the caller gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Finds the images, reading and verifying manifests and configs, and locates their layers.
    ///
    /// Of an image for several platforms the one is taken that `platform`, or else the host, runs
    /// best; an image that offers no choice is taken as it is unless a platform was asked for.
    ///
    /// # Errors
    ///
    /// NotFound, listing what is there, where no image runs on the platform or a blob is missing;
    /// Corrupt or Unsupported, naming file, document or layer, for what is wrong with it.
    pub fn images(&self, platform: Option<&Platform>) -> Result<Vec<Image>> {
        let images = match self.kind {
            Kind::DockerArchive => {
                let images = docker::images(&self.store)?;
                let runs =
                    |image: &Image| platform.is_none_or(|p| p.rank(&image.platform).is_some());
                // Newer writers make one archive both, and only the index has all platforms.
                if !images.iter().all(runs) && self.store.is_layout()? {
                    return oci::images(&self.store, platform);
                }
                images
            }
            Kind::OciArchive | Kind::OciLayout => return oci::images(&self.store, platform),
            Kind::RootfsTar => vec![self.rootfs()?],
        };
        if let Some(wanted) = platform {
            for image in &images {
                if wanted.rank(&image.platform).is_none() {
                    let reason = format!(
                        "the image is not there for {wanted}; there is: {}",
                        image.platform
                    );
                    return Err(Error::missing("choose platform", Place::file(&self.path), reason));
                }
            }
        }
        Ok(images)
    }

    fn rootfs(&self) -> Result<Image> {
        let layer = Layer::locate(&self.store, 0, "rootfs", Promise::default(), None)?;
        Ok(Image {
            names: Vec::new(),
            config: None,
            manifest: None,
            platform: Platform::host(),
            layers: vec![layer],
        })
    }
}

fn open_archive(archive: Archive, options: &Options<'_>) -> Result<(Kind, Store)> {
    let at = Place::file(archive.path());
    if archive.size() == 0 {
        return Err(Error::corrupt("open", at, "the file is empty"));
    }
    let archive = Arc::new(archive);
    let whole = Extent::whole(Arc::clone(&archive), "");
    let compression = Compression::tell(&whole.head(Compression::HEAD)?)
        .map_err(|reason| Error::unsupported("open", at.clone(), reason))?;
    if compression == Compression::None {
        return tell_tar(archive);
    }
    if !begins_like_an_image(&whole, compression)? {
        return Ok((Kind::RootfsTar, Store::Single(archive)));
    }
    let Some(scratch) = options.scratch else {
        let reason = format!(
            "an archive of images that is compressed as a whole ({compression}); \
             it needs a scratch directory, or decompressing first"
        );
        return Err(Error::unsupported("open", at, reason));
    };
    tell_tar(Arc::new(spool::spool(&whole, compression, scratch, options.scratch_limit)?))
}

/// Tells by its entries what a plain tar holds.
fn tell_tar(archive: Arc<Archive>) -> Result<(Kind, Store)> {
    let Some(index) = TarIndex::read(FileBlocks::new(&archive))? else {
        return Ok((Kind::RootfsTar, Store::Single(archive)));
    };
    let kind = if index.contains(docker::MANIFEST) {
        Kind::DockerArchive
    } else if index.contains(oci::MARKER) && index.contains(oci::INDEX) {
        Kind::OciArchive
    } else if index.contains("repositories") && index.has_legacy_layer() {
        return Err(Error::unsupported(
            "open",
            Place::file(archive.path()),
            "an archive of Docker before 1.10, which has no manifest.json; save it again",
        ));
    } else {
        return Ok((Kind::RootfsTar, Store::Single(archive)));
    };
    Ok((kind, Store::Tar { archive, index }))
}

/// How many entries decide whether a compressed tar is worth unpacking as an archive of images.
const GLANCE: usize = 64;

/// Whether a compressed tar has an entry near its beginning that an archive of images would have.
///
/// A wrong yes only costs the unpacking, since the whole index decides then.
fn begins_like_an_image(whole: &Extent, compression: Compression) -> Result<bool> {
    let place = whole.place();
    let reader = BufReader::with_capacity(64 << 10, whole.reader());
    let reader =
        compression.undo(reader).map_err(|error| Error::sys("decompress", place.clone(), error))?;
    let mut scan = Scan::new(StreamBlocks::new(reader, place));
    for _ in 0..GLANCE {
        match scan.next()? {
            Some(entry) if is_image_name(&entry.name) => return Ok(true),
            Some(_) => {}
            None => break,
        }
    }
    Ok(false)
}

fn is_image_name(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    // To look further would mean to decompress all of it, and then once more.
    if first.ends_with(".tar") {
        return true;
    }
    let stem = first.strip_suffix(".json").unwrap_or(first);
    let hex = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex || ["blobs", oci::MARKER, oci::INDEX, docker::MANIFEST, "repositories"].contains(&first)
}

#[cfg(test)]
mod tests;
