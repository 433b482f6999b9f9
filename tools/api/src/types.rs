//! What travels: requests, answers and the lines of streams.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod events;
mod snapshots;

pub use events::*;
pub use snapshots::*;

/// The answer to a failed request, with an HTTP status that fits its kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What failed, for a person: operation, layer, path and reason.
    pub message: String,
    /// The kind in snake case: `not_found`, `already_exists`, `in_use`, `invalid_argument`,
    /// `failed_precondition`, `unsupported`, `no_space`, `corrupt`, `permission_denied`, `io`.
    pub kind: String,
}

/// The answer of `GET /v1/info`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// layerd's version.
    pub version: String,
    /// The root directory.
    pub root: String,
    /// The default driver.
    pub driver: String,
    /// Every open driver with its status rows, as `docker info` shows them.
    pub drivers: BTreeMap<String, Vec<(String, String)>>,
    /// How many images there are.
    pub images: u64,
    /// How many committed layers there are.
    pub layers: u64,
    /// How many containers there are.
    pub containers: u64,
}

/// The answer of `GET /v1/pool`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolList {
    /// The pools of the open drivers that have one.
    pub pools: Vec<Pool>,
}

/// The space of a driver that keeps its layers on block devices. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The driver.
    pub driver: String,
    /// The name of the pool's device.
    pub name: String,
    /// Where it comes from, for a person.
    pub source: String,
    /// The devices that it is made of, where they are known.
    pub devices: Vec<String>,
    /// The size of a block: space is given out in these.
    pub block_size: u64,
    /// The blocks of all layers.
    pub data: Fill,
    /// Which layer has which blocks.
    pub metadata: Fill,
    /// What the devices have that the pool can still grow by.
    pub spare: u64,
    /// From how many per cent in use the pool grows, where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u64>,
    /// What the pool does now: `rw`, `ro`, `out_of_data_space`.
    pub mode: String,
    /// Bytes of data a day that were taken of late, once there is something to compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_per_day: Option<i64>,
    /// The size of a new layer's file system.
    pub base_size: u64,
    /// How many deleted layers wait for their last user.
    pub deferred: u64,
}

/// How full something is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// What is taken.
    pub used: u64,
    /// All.
    pub total: u64,
}

/// The body of `POST /v1/pool/devices`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddDeviceRequest {
    /// The driver; none is the only one that has a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The absolute path of an empty block device.
    pub device: String,
    /// Whether what the device holds may be lost.
    #[serde(default)]
    pub force: bool,
}

/// The body of `POST /v1/images/import`; the answer is a stream of [`ImportEvent`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImportRequest {
    /// The absolute path of an archive or layout directory, as the daemon sees it.
    pub path: String,
    /// A name for the image, in place of those in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The driver; none is the daemon's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The platform, `os/arch[/variant]`; none is the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// One line of the stream that an import answers with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ImportEvent {
    /// An image was found in the source.
    Image {
        /// The image id (config digest).
        id: String,
        /// Its names.
        names: Vec<String>,
        /// How many layers it has.
        layers: usize,
    },
    /// A layer is being read.
    Layer {
        /// The layer's place in the image, 0 at the bottom.
        index: usize,
        /// The diffID, where the source promises one.
        diff_id: Option<String>,
        /// Bytes of the blob read so far.
        read: u64,
        /// Length of the blob.
        total: u64,
        /// `exists`, `applying`, `done`.
        state: String,
    },
    /// The image is in the store.
    Done {
        /// The image as `GET /v1/images` would show it.
        image: ImageSummary,
        /// How many layers were applied, the others existed.
        new_layers: usize,
    },
    /// The import failed; nothing of it is kept. Always the last line.
    Error(ErrorBody),
}

/// One image in `GET /v1/images` (`{"images": [..]}`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageSummary {
    /// The image id: the digest of its config.
    pub id: String,
    /// Full names (`docker.io/library/debian:12`); empty for a dangling image.
    pub names: Vec<String>,
    /// When it was made, RFC 3339, from the config.
    pub created: Option<String>,
    /// The sum of its layers' sizes in bytes, shared ones included.
    pub size: u64,
    /// The driver where its containers go unless another is named.
    pub driver: String,
    /// All drivers that keep its layers, that one included.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// ChainIDs, bottom to top.
    pub layers: Vec<String>,
    /// Labels from the config.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `GET /v1/images`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageList {
    /// All images, those that came into the store last first.
    pub images: Vec<ImageSummary>,
}

/// `GET /v1/images/{reference}`: one image with all that is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageDetails {
    /// The image as the list shows it.
    pub image: ImageSummary,
    /// The image's config as it was imported (OCI image-spec, `config.md`).
    pub config: serde_json::Value,
    /// The layers, bottom to top.
    pub layers: Vec<ImageLayer>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// The identity of the stack with this layer on top.
    pub chain_id: String,
    /// The digest of the layer's uncompressed tar.
    pub diff_id: String,
    /// Bytes of file content in it.
    pub size: u64,
    /// The length of its uncompressed tar in bytes.
    pub tar_size: u64,
    /// The space that it takes by itself in the image's first driver.
    pub usage: Usage,
}

/// The body of `POST /v1/images/tag`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TagRequest {
    /// Name, id or id prefix of the image.
    pub image: String,
    /// The new name; it moves if another image has it.
    pub name: String,
}

/// The body of `POST /v1/images/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveImageRequest {
    /// Name, id or id prefix.
    pub image: String,
    /// Remove an image with several names by its id, all names with it.
    #[serde(default)]
    pub force: bool,
}

/// What a removal or prune did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// Ids of images that are gone.
    pub deleted: Vec<String>,
    /// ChainIDs of layers that are gone.
    pub layers: Vec<String>,
    /// Freed bytes.
    pub bytes: u64,
}

/// The body of `POST /v1/prune`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PruneRequest {
    /// Also images that have names, when no container uses them.
    #[serde(default)]
    pub all: bool,
}

/// What a container runs: the image's config with the command line's changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Environment, `K=V`.
    pub env: Vec<String>,
    /// Working directory; empty is `/`.
    pub cwd: String,
    /// `user[:group]` by name or number; names are looked up in the container's own files.
    pub user: String,
    /// Host name; empty is the short id.
    pub hostname: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether standard input is passed on.
    pub stdin: bool,
    /// `none` or `host`.
    pub network: String,
    /// Bind mounts `SRC:DST[:ro]`.
    pub volumes: Vec<String>,
    /// Whether the root file system is read-only.
    pub read_only: bool,
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// CPUs, as a decimal fraction in thousandths (1500 is one and a half).
    pub milli_cpus: Option<u64>,
    /// The greatest number of processes.
    pub pids_limit: Option<i64>,
    /// The signal that asks it to stop (`SIGTERM` when empty).
    pub stop_signal: String,
}

/// The body of `POST /v1/containers`: makes a container, prepares its snapshot, starts nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CreateContainerRequest {
    /// Name, id or id prefix of the image.
    pub image: String,
    /// The container's name; none makes one up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One of the image's drivers; none is its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Whether it is to be removed when it has ended.
    #[serde(default)]
    pub auto_remove: bool,
    /// In place of the image's `Entrypoint`; an empty list means none at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The command in place of the image's `Cmd`; empty keeps it.
    #[serde(default)]
    pub command: Vec<String>,
    /// Options that the driver gets for the container's writable layer (`size`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// Overrides: empty or absent fields keep the image's; `env` is merged by name; `args` is
    /// ignored (see `command`).
    #[serde(default)]
    pub spec: ContainerSpec,
}

/// One container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image id.
    pub image: String,
    /// The image name it was created by.
    pub image_name: String,
    /// `created`, `running`, `exited`.
    pub state: String,
    /// The exit code, once exited.
    pub exit_code: Option<i32>,
    /// The process id of its init on the host, while running.
    pub pid: Option<i32>,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub started: Option<String>,
    /// RFC 3339.
    pub finished: Option<String>,
    /// Whether it is removed when it has ended.
    pub auto_remove: bool,
    /// What it runs.
    pub spec: ContainerSpec,
    /// How its root file system is mounted, in order.
    pub mounts: Vec<Mount>,
    /// The snapshot that holds its changes.
    pub snapshot: String,
    /// The driver that keeps them.
    #[serde(default)]
    pub driver: String,
    /// What the driver tells of their layer, as `docker inspect` shows it (`UpperDir`, and on btrfs
    /// `SharedBytes`, `ExclusiveBytes` and a limit's `Size`); only where one container is looked at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_data: BTreeMap<String, String>,
}

/// `GET /v1/containers?all=true`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerList {
    /// Containers, newest first.
    pub containers: Vec<Container>,
}

/// The body of `POST /v1/containers/{id}/state`, by which the runtime reports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StateRequest {
    /// `running` or `exited`.
    pub state: String,
    /// With `running`.
    #[serde(default)]
    pub pid: Option<i32>,
    /// With `exited`.
    #[serde(default)]
    pub exit_code: Option<i32>,
}

/// The body of `POST /v1/containers/{id}/commit`; answers with the new [`ImageSummary`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CommitContainerRequest {
    /// The new image's name.
    #[serde(default)]
    pub name: Option<String>,
    /// The history comment.
    #[serde(default)]
    pub comment: Option<String>,
    /// The author.
    #[serde(default)]
    pub author: Option<String>,
}

/// One changed path, for `GET /v1/containers/{id}/changes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PathChange {
    /// With a leading slash.
    pub path: String,
    /// `A` added, `C` changed, `D` deleted, as `docker diff` prints them.
    pub kind: String,
}

/// `GET /v1/containers/{id}/changes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeList {
    /// Ordered by path.
    pub changes: Vec<PathChange>,
}
