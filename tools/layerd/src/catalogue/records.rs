//! What the catalogue knows of images, layers, snapshots and containers.

use std::collections::{BTreeMap, BTreeSet};

use cow::digest::{ChainId, DiffId, Digest};
use drivers::{LayerId, Usage};
use layerd_api::ContainerSpec;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// Labels of a client: any strings.
pub type Labels = BTreeMap<String, String>;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The image id: the digest of its config.
    pub id: Digest,
    /// Full names (`docker.io/library/debian:12`); none for a dangling image.
    pub names: BTreeSet<String>,
    /// The drivers that keep its layers; the first is where its containers go by default.
    pub drivers: Vec<String>,
    /// Its layers, bottom to top.
    pub layers: Vec<ChainId>,
    /// When it was built, RFC 3339, as its config says.
    pub created: Option<String>,
    /// When it came into this store.
    pub imported: Timestamp,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// The labels of its config.
    pub labels: Labels,
    /// The sum of its layers' content in bytes, shared layers included.
    pub size: u64,
}

/// One committed layer of an image in one driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name in the driver.
    pub layer: LayerId,
    /// The stack below.
    pub parent: Option<ChainId>,
    /// The digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// The length of its uncompressed tar in bytes.
    pub tar_size: u64,
    /// Bytes of file content in it.
    pub content_size: u64,
    /// The space that it takes by itself.
    pub usage: Usage,
}

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Writable.
    Active,
    /// Read-only, never committed.
    View,
    /// Immutable; may be a parent.
    Committed,
}

impl SnapshotKind {
    /// The word for it, as filters and listings write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::View => "view",
            Self::Committed => "committed",
        }
    }
}

/// One snapshot of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The client's key, or name once committed: any string.
    pub key: String,
    /// The key of the snapshot below, or the chainID of an image's layer.
    pub parent: Option<String>,
    /// Where it is in its life.
    pub kind: SnapshotKind,
    /// The client's labels.
    pub labels: Labels,
    /// When it was prepared, or committed.
    pub created: Timestamp,
    /// When its labels last changed.
    pub updated: Timestamp,
    /// The driver that keeps it.
    pub driver: String,
    /// Its layer in that driver.
    pub layer: LayerId,
    /// Its space, frozen at commit; none while it can change.
    pub usage: Option<Usage>,
    /// The stack of the layer, where that is one of images which the snapshot shares with them; none
    /// for a layer of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<ChainId>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    Created,
    /// Running: the process with this id, which began at this tick of the boot's clock, so that
    /// another process that got the same number later is not taken for it.
    Running {
        /// The process id of its init on the host.
        pid: i32,
        /// Field 22 of `/proc/PID/stat` (proc(5)).
        start_ticks: u64,
    },
    /// Ended, with the exit code where one is known.
    Exited {
        /// The exit code; none when it was lost to a crash.
        code: Option<i32>,
    },
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits; also the key of its snapshot.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image.
    pub image: Digest,
    /// The image as the client named it.
    pub image_name: String,
    /// The driver of its snapshot.
    pub driver: String,
    /// Where it is in its life.
    pub status: Status,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last started.
    pub started: Option<Timestamp>,
    /// When it last ended.
    pub finished: Option<Timestamp>,
    /// Whether its runtime is to remove it when it has ended.
    pub auto_remove: bool,
    /// What it runs.
    pub spec: ContainerSpec,
}
