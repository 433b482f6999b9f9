//! The catalogue: an index of what the drivers and the image files hold.
//!
//! The layers' own metadata files and the files of the images are the truth; the catalogue makes it
//! quick to find, and `owner` says what a layer's metadata file must tell so that the catalogue can
//! be rebuilt. Because of that a transaction need not be durable: what a crash takes away is found
//! again when the store is opened. A thread of the catalogue's own makes durable what was written,
//! within a fraction of a second.
//!
//! Rows are JSON, each table one idea:
//!
//! ```text
//! images           config digest                  -> Image
//! names            full name                      -> config digest
//! layers           (driver, chainID)              -> Layer
//! snapshots        (namespace, key)               -> Snapshot
//! children         (driver, layer id, child)      -> ()
//!                  (a child is a layer's id, `image:<hex>` of an image with this top layer, or
//!                  `snapshot:<namespace>:<key>` of a snapshot that shares this layer of images)
//! containers       id                             -> Container
//! container-names  name                           -> id
//! ```

mod flush;
pub(crate) mod owner;
pub mod records;
mod rows;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use redb::{Database, Key, ReadTransaction, ReadableTable, TableDefinition, Value};
use redb::{ReadableDatabase, WriteTransaction};
use rustix::fs::{self, Mode, OFlags};

pub use records::{Container, Image, Labels, Layer, Snapshot, SnapshotKind, Status};
pub(crate) use rows::{Change, Lookup, image_child, is_image_child, sharer_child};

use crate::error::{Error, Result};
use crate::root::{CATALOGUE, Root};

const IMAGES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("images");
const NAMES: TableDefinition<'_, &str, &[u8; 32]> = TableDefinition::new("names");
const LAYERS: TableDefinition<'_, (&str, &[u8; 32]), &[u8]> = TableDefinition::new("layers");
const SNAPSHOTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("snapshots");
const CHILDREN: TableDefinition<'_, (&str, &str, &str), ()> = TableDefinition::new("children");
const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");
const CONTAINER_NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("container-names");

/// The database's cache: the whole index of ten thousand layers fits into it.
const CACHE: usize = 8 << 20;

/// How soon a transaction is to survive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// When the call returns.
    Now,
    /// A little later; what is lost before is found again in the layers.
    Soon,
}

/// The open catalogue.
#[derive(Debug)]
pub(crate) struct Catalogue {
    flusher: flush::Flusher,
}

impl Catalogue {
    /// Opens the catalogue of a root, or makes an empty one.
    ///
    /// # Errors
    /// `Corrupt` when the file is damaged: every page's checksum is looked at.
    pub(crate) fn open(root: &Root) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(root, CATALOGUE, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Error::sys("openat", CATALOGUE, e))?;
        Self::of_file(file)
    }

    /// Opens a copy of the catalogue in memory, so that looking changes nothing on disk.
    pub(crate) fn open_copy(bytes: &[u8]) -> Result<Self> {
        let sys = |e| Error::sys("memfd_create", CATALOGUE, e);
        let copy = fs::memfd_create(CATALOGUE, fs::MemfdFlags::CLOEXEC).map_err(sys)?;
        let mut file = std::fs::File::from(copy);
        std::io::Write::write_all(&mut file, bytes)
            .map_err(|e| Error::sys("copy", CATALOGUE, e))?;
        Self::of_file(file.into())
    }

    fn of_file(file: OwnedFd) -> Result<Self> {
        let backend = redb::backends::FileBackend::new(std::fs::File::from(file))?;
        let db = Database::builder()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)?;
        if !has_tables(&db)? {
            make_tables(&db)?;
        }
        Ok(Self { flusher: flush::Flusher::start(Arc::new(db)) })
    }

    /// A view of the present state, which later changes do not touch.
    pub(crate) fn read(&self) -> Result<Reader> {
        Ok(Reader(self.flusher.db().begin_read()?))
    }

    /// Runs one transaction; when `change` fails nothing of it is kept. Only one runs at a time.
    pub(crate) fn write<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&Writer) -> Result<T>,
    ) -> Result<T> {
        let mut txn = self.flusher.db().begin_write()?;
        if durability == Durability::Soon {
            // The only error is for savepoints, which are not used.
            let _ = txn.set_durability(redb::Durability::None);
        }
        let writer = Writer(txn);
        let done = change(&writer)?;
        writer.0.commit()?;
        if durability == Durability::Soon {
            self.flusher.soon();
        }
        Ok(done)
    }

    /// Returns when everything that was written before survives a crash. Costs a sync of the disk, which
    /// all share who wait at the same time, and which no other transaction waits for longer than it
    /// takes.
    pub(crate) fn settle(&self) -> Result<()> {
        self.flusher.settle().map_err(|e| Error::sys("sync", CATALOGUE, e))
    }
}

/// Whether all tables are there: to see that costs no sync of the disk, as making them does.
fn has_tables(db: &Database) -> Result<bool> {
    let txn = db.begin_read()?;
    Ok(has(&txn, IMAGES)?
        && has(&txn, NAMES)?
        && has(&txn, LAYERS)?
        && has(&txn, SNAPSHOTS)?
        && has(&txn, CHILDREN)?
        && has(&txn, CONTAINERS)?
        && has(&txn, CONTAINER_NAMES)?)
}

fn has<K: Key + 'static, V: Value + 'static>(
    txn: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<bool> {
    match txn.open_table(table) {
        Ok(_) => Ok(true),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn make_tables(db: &Database) -> Result<()> {
    let txn = db.begin_write()?;
    txn.open_table(IMAGES)?;
    txn.open_table(NAMES)?;
    txn.open_table(LAYERS)?;
    txn.open_table(SNAPSHOTS)?;
    txn.open_table(CHILDREN)?;
    txn.open_table(CONTAINERS)?;
    txn.open_table(CONTAINER_NAMES)?;
    txn.commit()?;
    Ok(())
}

/// A view of one state of the catalogue.
pub(crate) struct Reader(ReadTransaction);

/// A transaction that changes the catalogue.
pub(crate) struct Writer(WriteTransaction);

/// Opening a table, in either kind of transaction.
pub(crate) trait Tables {
    /// Opens a table for reading.
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V>>;
}

impl Tables for Reader {
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V>> {
        Ok(self.0.open_table(table)?)
    }
}

impl Tables for Writer {
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V>> {
        Ok(self.0.open_table(table)?)
    }
}

#[cfg(test)]
mod tests;
