//! Bringing the catalogue in step with what the drivers and the image files hold.
//!
//! One comparison serves three purposes: the start of a daemon after a crash, the rebuilding of a
//! lost catalogue (which is the same with an empty one), and `layerd check`. It says step by step
//! what is wrong and what would mend it; the caller decides which steps are taken.

pub(crate) mod garbage;
pub(crate) mod images;
pub(crate) mod layers;

use cow::digest::{ChainId, Digest};
use drivers::LayerId;

use crate::catalogue::{Catalogue, Change, Container, Durability, Image, Layer, Snapshot};
use crate::error::Result;
use crate::image_files as files;
use crate::root::Root;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The catalogue is behind the layers and files, which is no fault: it is brought up to date
    /// whenever the store is opened.
    Behind,
    /// What a crash may leave; the next start clears it away by itself.
    Leftover,
    /// Something that a client was promised is gone or damaged; only a repair touches it.
    Damage,
}

/// One thing that is wrong, and what mends it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// What is wrong, for a person.
    pub(crate) problem: String,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What mends it.
    pub(crate) mend: Mend,
}

impl Step {
    pub(crate) fn behind(problem: String, mend: Mend) -> Self {
        Self { problem, severity: Severity::Behind, mend }
    }

    pub(crate) fn leftover(problem: String, mend: Mend) -> Self {
        Self { problem, severity: Severity::Leftover, mend }
    }

    pub(crate) fn damage(problem: String, mend: Mend) -> Self {
        Self { problem, severity: Severity::Damage, mend }
    }
}

/// One change that mends something.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mend {
    PutLayer {
        driver: String,
        chain: ChainId,
        layer: Layer,
        below: Option<LayerId>,
    },
    DropLayer {
        driver: String,
        chain: ChainId,
        layer: LayerId,
    },
    PutSnapshot {
        namespace: String,
        snapshot: Snapshot,
    },
    DropSnapshot {
        namespace: String,
        key: String,
    },
    PutContainer(Box<Container>),
    DropContainer(Box<Container>),
    PutChild {
        driver: String,
        parent: String,
        child: String,
    },
    DropChild {
        driver: String,
        parent: String,
        child: String,
    },
    PutImage(Box<Image>),
    DropImage(Box<Image>),
    /// Write the image's `image.json` as the catalogue's row has it.
    WriteMeta(Box<Image>),
    /// Remove a directory of image files.
    RemoveFiles(String),
}

/// Takes steps: rows in one transaction of `catalogue`, files where `root` is given.
pub(crate) fn take(catalogue: &Catalogue, root: Option<&Root>, steps: &[&Step]) -> Result<()> {
    if let Some(root) = root {
        for step in steps {
            match &step.mend {
                Mend::WriteMeta(image) => files::write_meta(root, image)?,
                Mend::RemoveFiles(name) => files::remove(root, name)?,
                _ => {}
            }
        }
    }
    if steps.is_empty() {
        return Ok(());
    }
    catalogue.write(Durability::Now, |w| steps.iter().try_for_each(|step| row(w, &step.mend)))
}

fn row(w: &impl Change, mend: &Mend) -> Result<()> {
    match mend {
        Mend::PutLayer { driver, chain, layer, below } => {
            w.put_layer(driver, chain, layer, below.as_ref())
        }
        Mend::DropLayer { driver, chain, layer } => w.delete_layer(driver, chain, layer, None),
        Mend::PutSnapshot { namespace, snapshot } => w.put_snapshot(namespace, snapshot),
        Mend::DropSnapshot { namespace, key } => w.delete_snapshot(namespace, key),
        Mend::PutContainer(container) => w.put_container(container),
        Mend::DropContainer(container) => w.delete_container(container),
        Mend::PutChild { driver, parent, child } => w.put_child(driver, parent, child),
        Mend::DropChild { driver, parent, child } => w.delete_child(driver, parent, child),
        Mend::PutImage(image) => w.put_image(image).map(drop),
        Mend::DropImage(image) => w.delete_image(image),
        Mend::WriteMeta(_) | Mend::RemoveFiles(_) => Ok(()),
    }
}

/// An image in messages: its id and one of its names.
fn shown(id: &Digest, names: &std::collections::BTreeSet<String>) -> String {
    match names.first() {
        Some(name) => format!("image {} ({name})", id.short()),
        None => format!("image {}", id.short()),
    }
}
