//! The contract that every backend keeps.
//!
//! A driver keeps *layers* in a home directory of its own. A layer is made writable
//! ([`State::Active`]) or readable ([`State::View`]) on top of at most one parent, and becomes
//! immutable by [`Driver::commit`]. Only a committed layer can be a parent, with the one exception
//! of [`Capabilities::rebase`].
//!
//! All methods block, and all may be called from many threads at once. Calls on *different* layers
//! never wait for one another's input or output; two calls on the *same* layer are put in order by
//! the driver. What a crash leaves is said method by method; [`Driver::repair`] is run before the
//! first other call of a process and clears all of it away.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cow::change::Changeset;
use cow::digest::{ChainId, DiffId};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::id::LayerId;
use crate::id_map::IdMaps;

/// What a backend can do beyond the contract's minimum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// A layer may be created without its parent, applied, and be given the parent at commit
    /// ([`LayerRecord::parent`]): the layers of one image can then be applied in parallel.
    pub rebase: bool,
    /// [`Driver::changes`] costs what the change costs, not what the tree costs.
    pub native_diff: bool,
    /// [`CreateOptions::size`] is honoured.
    pub quota: bool,
    /// [`Driver::mounts`] describes mounts that any process may make for itself (overlay and bind
    /// mounts); otherwise only [`Driver::mount`] can make the tree appear.
    pub client_mounts: bool,
    /// [`CreateOptions::id_map`] is honoured: a layer can be shown with other owners without copying
    /// (id-mapped mounts).
    pub id_map: bool,
}

/// The life of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Writable; nothing of it is promised to survive a power cut.
    Active,
    /// A read-only look at its parents; never committed.
    View,
    /// Immutable and durable.
    Committed,
}

/// How a layer is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// [`State::Active`] or [`State::View`].
    pub state: State,
    /// The greatest size of the writable layer in bytes, where the driver has quotas.
    pub size: Option<u64>,
    /// Driver options of this layer (Docker's `--storage-opt`), as yet unread.
    pub options: BTreeMap<String, String>,
    /// The ids that the layer's mount shows in place of those on the disk. Such a layer is mounted by
    /// [`Driver::mount`] alone.
    ///
    /// Not done for a parent whose root directory belongs to the mapped root already: its client has
    /// shifted it by changing the owners of files.
    pub id_map: Option<IdMaps>,
    /// What the catalogue wants to find again should it lose its own record: kept in the layer's
    /// metadata file from the beginning and shown as [`LayerRecord::labels`] of [`LayerInfo`], until
    /// [`Driver::commit`] or [`Driver::relabel`] replaces them.
    pub labels: BTreeMap<String, String>,
}

impl CreateOptions {
    /// A writable layer without options.
    pub fn active() -> Self {
        Self {
            state: State::Active,
            size: None,
            options: BTreeMap::new(),
            id_map: None,
            labels: BTreeMap::new(),
        }
    }

    /// A read-only view without options.
    pub fn view() -> Self {
        Self { state: State::View, ..Self::active() }
    }
}

/// What the catalogue knows of a layer at commit; kept in the layer's own metadata file beside its
/// data, so that the catalogue can be rebuilt from the layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The digest of the uncompressed tar, for a layer that came from an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<DiffId>,
    /// The identity of the stack with this layer on top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<ChainId>,
    /// The length of the uncompressed tar in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tar_size: Option<u64>,
    /// The parent that a layer created without one gets now (see [`Capabilities::rebase`]); none
    /// keeps the parent it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<LayerId>,
    /// Anything the catalogue wants to find again: snapshot name, labels, creation time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a driver's metadata file says of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// The layer.
    pub id: LayerId,
    /// The layer below it.
    pub parent: Option<LayerId>,
    /// Where it is in its life.
    pub state: State,
    /// When it was made.
    pub created: SystemTime,
    /// Its own space, frozen at commit; none while it can change.
    pub usage: Option<Usage>,
    /// The ids that its mount shows in place of those on the disk.
    pub id_map: Option<IdMaps>,
    /// The catalogue's record.
    pub record: LayerRecord,
}

/// The space that a layer takes by itself, its parents not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Allocated bytes, an inode with many names counted once.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// The lengths of the regular files together, an inode with many names counted once: what the
    /// layer would measure on any other backend.
    #[serde(default)]
    pub content: u64,
}

/// What applying a tar did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bytes read from the tar stream, padding and end marker included.
    pub tar_size: u64,
    /// Bytes of file content written.
    pub content_size: u64,
    /// Entries applied.
    pub entries: u64,
}

/// One mount, in the words of mount(8); containerd's and layerd's clients get it as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The file system type: `overlay`, `bind`, `btrfs`, `ext4`, ...
    pub fstype: String,
    /// The source.
    pub source: PathBuf,
    /// Options as `key` or `key=value`; a bind mount has `rbind` and `rw` or `ro`.
    pub options: Vec<String>,
}

/// How a mount is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As the layer's state says: an active layer writable, everything else read-only.
    Default,
    /// Read-only whatever the state.
    ReadOnly,
}

/// One thing that [`Driver::check`] found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The layer, where one can be named.
    pub layer: Option<LayerId>,
    /// The path below the driver's home.
    pub path: PathBuf,
    /// What is wrong, for a person.
    pub problem: String,
    /// Whether [`Driver::repair`] can mend it without losing a committed layer.
    pub repairable: bool,
}

/// A storage backend. See the [module](self) for what holds for all methods.
pub trait Driver: Send + Sync + Debug {
    /// The driver's name as the command line and Docker's `-s` write it.
    fn name(&self) -> &'static str;

    /// What this backend can do here, probed once when it was opened.
    fn capabilities(&self) -> Capabilities;

    /// Makes a layer on `parent`, which must be committed.
    ///
    /// The layer appears under its id whole or not at all: a crash in the middle leaves a temporary
    /// directory, which [`Driver::repair`] removes. Costs the same however large the parent is,
    /// except on vfs.
    ///
    /// # Errors
    /// `AlreadyExists` for an id in use, `NotFound` for a missing parent, `FailedPrecondition` for a
    /// parent that is not committed, `InvalidArgument` or `Unsupported` for an option, by its name, and
    /// `Unsupported` for ids that the driver cannot map.
    fn create(&self, id: &LayerId, parent: Option<&LayerId>, options: &CreateOptions)
    -> Result<()>;

    /// Applies an OCI layer tar (uncompressed) to an active layer that is not mounted.
    ///
    /// Reads the stream to its end, trailing padding included, so that a digest over it is whole.
    /// After an error the layer's content is undefined and the caller removes it. A crash leaves an
    /// active layer, which the catalogue does not know and gc removes.
    ///
    /// # Errors
    /// `Corrupt` for a cut-off or malformed tar, `InvalidArgument` for a hostile one;
    /// [`Error::needs_lower`](crate::Error::needs_lower) when the layer was created without its
    /// parent and cannot do without: apply it again on a layer that has it.
    fn apply(&self, id: &LayerId, tar: &mut dyn Read) -> Result<Applied>;

    /// Makes an active layer immutable and durable, and stores `record` beside it.
    ///
    /// When it returns, the layer survives a power cut (one `syncfs`, never an fsync per file); a
    /// crash before leaves it active. Usage is measured and frozen. A second commit of the same
    /// layer is `FailedPrecondition`, as is one of a view or of a mounted layer that cannot be
    /// frozen.
    ///
    /// # Errors
    /// `InvalidArgument` when `record.parent` is given to a layer that has another parent,
    /// `NotFound` or `FailedPrecondition` when it is missing or not committed.
    fn commit(&self, id: &LayerId, record: &LayerRecord) -> Result<LayerInfo>;

    /// Commits several layers, parents before children, as the layers of one image are. A layer may
    /// be given a parent ([`LayerRecord::parent`]) that comes before it in `batch`.
    ///
    /// The same promises as [`Driver::commit`], at the price of one sync for all. After an error or
    /// a crash, some of the lower layers may be committed and the rest are active.
    ///
    /// # Errors
    /// Those of [`Driver::commit`], and `InvalidArgument` for a layer named twice.
    fn commit_many(&self, batch: &[(LayerId, LayerRecord)]) -> Result<Vec<LayerInfo>> {
        batch.iter().map(|(id, record)| self.commit(id, record)).collect()
    }

    /// Puts other labels ([`LayerRecord::labels`]) into a layer's metadata file.
    ///
    /// For a committed layer they are durable when it returns; a crash leaves the former ones or
    /// these. Nothing else of the layer changes, and it may be in use meanwhile.
    ///
    /// # Errors
    /// `NotFound` for an unknown layer.
    fn relabel(&self, id: &LayerId, labels: &BTreeMap<String, String>) -> Result<()>;

    /// Removes a layer that nothing uses.
    ///
    /// Takes it out of sight by one rename and then frees its space; a crash in between leaves
    /// space that [`Driver::repair`] frees. Removing a layer that does not exist is `NotFound`.
    ///
    /// # Errors
    /// `InUse` when it is mounted through [`Driver::mount`] or has children.
    fn remove(&self, id: &LayerId) -> Result<()>;

    /// What the metadata file says of a layer.
    ///
    /// # Errors
    /// `NotFound` for an unknown layer, `Corrupt` for an unreadable metadata file.
    fn info(&self, id: &LayerId) -> Result<LayerInfo>;

    /// All layers, in no order.
    fn list(&self) -> Result<Vec<LayerInfo>>;

    /// The mounts that show a layer, for a process that mounts for itself.
    ///
    /// Only a description: nothing is mounted and no reference is taken. A layer without a parent
    /// is one bind mount; a committed layer is shown read-only.
    ///
    /// # Errors
    /// `Unsupported` without [`Capabilities::client_mounts`], and for a layer with an
    /// [id map](CreateOptions::id_map).
    fn mounts(&self, id: &LayerId, access: Access) -> Result<Vec<Mount>>;

    /// Mounts a layer in this process's mount namespace and takes a reference.
    ///
    /// The same path for every caller. References are counted; they survive a restart of the
    /// process, because counting starts from the mounts that exist (the kernel's mount table), one
    /// for each.
    ///
    /// # Errors
    /// `InUse` when the layer is mounted already, but writable where read-only is asked for or the
    /// other way round: one path cannot be both.
    fn mount(&self, id: &LayerId, access: Access) -> Result<PathBuf>;

    /// Drops a reference, and unmounts with the last one. Without a reference this is `Ok`: clients
    /// may repeat it after a crash.
    ///
    /// A mount that a process still uses is detached, and ends when the process lets go of it.
    /// Waits for nobody's data to be written: the kernel's part of that goes on behind.
    ///
    /// # Errors
    /// `NotFound` for an unknown layer.
    fn unmount(&self, id: &LayerId) -> Result<()>;

    /// Drops all references and unmounts, for clients that never say when they are done with a mount.
    ///
    /// # Errors
    /// Those of [`Driver::unmount`].
    fn release(&self, id: &LayerId) -> Result<()> {
        self.unmount(id)
    }

    /// How a layer differs from the one below it (or from `base`, an ancestor), exactly: a file
    /// copied up but not changed is no change, and content is compared where metadata cannot tell.
    ///
    /// A layer without one below is compared with an empty tree; a view adds nothing to its parent.
    ///
    /// The [`cow::change::Location`]s are relative to [`Driver::diff`]'s own roots and mean nothing
    /// to other callers, who use path and kind.
    ///
    /// # Errors
    /// `NotFound` for an unknown `base`, `InvalidArgument` for one that is not below the layer.
    fn changes(&self, id: &LayerId, base: Option<&LayerId>) -> Result<Changeset>;

    /// Writes the same difference as an OCI layer tar, in reproducible order.
    ///
    /// The layer may be active and even mounted; a file that changes under the reader appears in
    /// one state or another, never as a malformed tar.
    fn diff(&self, id: &LayerId, base: Option<&LayerId>, out: &mut dyn Write) -> Result<u64>;

    /// The space a layer takes by itself: frozen for a committed layer, measured for an active one.
    fn usage(&self, id: &LayerId) -> Result<Usage>;

    /// What `docker inspect` shows as GraphDriver.Data (LowerDir, UpperDir, WorkDir, MergedDir, ...).
    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>>;

    /// What `docker info` shows below "Storage Driver", in order.
    fn status(&self) -> Vec<(String, String)>;

    /// Looks for damage without changing anything: leftovers of a crash, missing directories,
    /// unreadable metadata, parents that are gone.
    fn check(&self) -> Result<Vec<Finding>>;

    /// Mends what [`Driver::check`] calls repairable and says what it did. Never removes a sound
    /// committed layer.
    fn repair(&self) -> Result<Vec<Finding>>;

    /// Unmounts everything of this driver that is mounted. For the end of a process that owns the
    /// home; idempotent.
    fn cleanup(&self) -> Result<()>;

    /// The space that all layers of this driver share, where it is a device of the driver's own and
    /// not a file system of the machine's.
    fn pool(&self) -> Option<&dyn Pool> {
        None
    }
}

/// The space of a driver that keeps its layers on block devices.
pub trait Pool: Sync {
    /// How full it is.
    ///
    /// # Errors
    /// When the kernel does not say it.
    fn report(&self) -> Result<PoolReport>;

    /// Gives the pool another device, while it is in use. It must be empty unless `force` says that
    /// what it holds may be lost.
    ///
    /// # Errors
    /// `Unsupported` for a pool that was not set up from devices, `InvalidArgument` for a device that
    /// holds something, by what that is.
    fn add_device(&self, device: &Path, force: bool) -> Result<()>;
}

/// How full a [`Pool`] is. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The name of the pool's device.
    pub name: String,
    /// Where it comes from, for a person.
    pub source: String,
    /// The devices that it is made of, where they are known.
    pub devices: Vec<PathBuf>,
    /// The size of a block: space is given out in these.
    pub block_size: u64,
    /// The blocks of all layers.
    pub data: Fill,
    /// Which layer has which blocks.
    pub metadata: Fill,
    /// What the devices have that the pool can still grow by.
    pub spare: u64,
    /// From how many per cent in use the pool grows, where it can.
    pub threshold: Option<u64>,
    /// What the pool does now: "rw", "ro", "out_of_data_space".
    pub mode: String,
    /// Bytes of data a day that were taken of late; none before there is something to compare with.
    pub growth_per_day: Option<i64>,
    /// The size of a new layer's file system.
    pub base_size: u64,
    /// How many deleted layers wait for their last user.
    pub deferred: usize,
}

/// How full something is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// What is taken.
    pub used: u64,
    /// All.
    pub total: u64,
}
