//! Snapshots on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One mount, in the words of mount(8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `overlay`, `bind`, ...
    #[serde(rename = "type")]
    pub fstype: String,
    /// The source.
    pub source: String,
    /// `key` or `key=value`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// The answer of `POST /v1/snapshots` and of `GET /v1/snapshots/mounts`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MountList {
    /// To be made in this order.
    pub mounts: Vec<Mount>,
}

/// The body of `POST /v1/snapshots` (prepare or view).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// The client's name for the snapshot: any string.
    pub key: String,
    /// The committed snapshot below; none for an empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// A read-only view.
    #[serde(default)]
    pub view: bool,
    /// The driver of a snapshot without parent; none is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Which users on the host those on the disk are shown as: `container:host:size,...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_map: Option<String>,
    /// The same for groups; both or neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid_map: Option<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The body of `POST /v1/snapshots/commit`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommitSnapshotRequest {
    /// The active snapshot.
    pub key: String,
    /// The name of the committed one.
    pub name: String,
    /// Labels, in place of the active one's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The body of a request that names one snapshot, such as `POST /v1/snapshots/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyRequest {
    /// Key or name.
    pub key: String,
}

/// Whose snapshots a listing shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotScope {
    /// Those of this dialect, whose keys its other requests take.
    #[default]
    V1,
    /// Those, and the ones that hold the changes of layerd's own containers.
    Own,
    /// Those of every client, Docker and containerd included.
    All,
}

impl SnapshotScope {
    /// The word for it in a query.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Own => "own",
            Self::All => "all",
        }
    }
}

/// `GET /v1/snapshots`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotList {
    /// The snapshots, by namespace and key.
    pub snapshots: Vec<SnapshotInfo>,
}

/// One snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Whose it is: `v1`, `layerd` (of a container), `docker`, or `containerd/SNAPSHOTTER`.
    pub namespace: String,
    /// Key or name.
    pub key: String,
    /// The parent's name.
    pub parent: Option<String>,
    /// `active`, `view` or `committed`.
    pub kind: String,
    /// The driver.
    pub driver: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub updated: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its space: of a committed one as it was then; of others where a listing was to measure them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// The space of one layer or snapshot, its parents not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Allocated bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}
