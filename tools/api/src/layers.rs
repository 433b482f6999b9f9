//! What travels of layers: who has them, and what is in them.

use serde::{Deserialize, Serialize};

use crate::types::Usage;

/// `GET /v1/layers`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LayerList {
    /// All layers of images, each stack once, in the order of their chainIDs.
    pub layers: Vec<LayerSummary>,
}

/// One layer of images, in all drivers that keep it. All figures were kept when it came into the
/// store; nothing is walked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSummary {
    /// The identity of the stack with this layer on top.
    pub chain_id: String,
    /// The digest of the layer's uncompressed tar.
    pub diff_id: String,
    /// The chainID of the stack below.
    pub parent: Option<String>,
    /// Bytes of file content in it.
    pub size: u64,
    /// The length of its uncompressed tar in bytes.
    pub tar_size: u64,
    /// Where it is kept.
    pub kept: Vec<KeptLayer>,
    /// Ids of the images that have it.
    pub images: Vec<String>,
    /// Ids of the containers that have it.
    pub containers: Vec<String>,
}

/// A layer in one driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLayer {
    /// The driver.
    pub driver: String,
    /// Its name there.
    pub layer: String,
    /// The space that it takes by itself.
    pub usage: Usage,
}

/// The answer of `POST /v1/layers/{chainID}/verify`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VerifyList {
    /// The layer in each driver that keeps it.
    pub kept: Vec<VerifiedLayer>,
}

/// Whether a layer's content in one driver is what its diffID says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedLayer {
    /// The driver.
    pub driver: String,
    /// `sound`, `damaged`, or `unknown` where its tar cannot be put together again.
    pub state: String,
    /// Why, unless it is sound.
    pub reason: Option<String>,
}

/// One entry of a layer's tar, for `GET /v1/layers/{chainID}/files` and
/// `GET /v1/containers/{id}/files`: a line each, in the order of the tar. Whiteouts have the names that
/// they have in a tar (OCI image-spec, `layer.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFile {
    /// The path as the tar has it.
    pub path: Text,
    /// `file`, `hardlink`, `symlink`, `dir`, `char`, `block` or `fifo`.
    pub kind: String,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content last changed: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// The length of a regular file in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// The bytes stored of a sparse file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// Where the content begins in the layer's tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The target of a hard link, the text of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Text>,
    /// The major and minor number of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Extended attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(Text, Text)>,
    /// The digest of a regular file's content, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Bytes that are mostly text: a string where they are UTF-8, else a list of numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Text {
    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|bad| Self::Bytes(bad.into_bytes()), Self::Text)
    }
}
