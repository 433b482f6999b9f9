//! The image config: what an image runs, and the diffIDs of its layers.
//!
//! The types are the crate's own rather than `oci-spec`'s since configs in the wild are older than
//! the specification: Docker writes `null` for empty lists and maps and, long ago, a string for a
//! list. Members that nothing here needs are kept as they are, so that a changed config loses none.

use std::collections::BTreeMap;

use cow::digest::{DiffId, Digest};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::{Error, Place, Result};
use crate::platform::Platform;

/// The most layers of an image. The kernel's overlay stops at 500 and Docker at 128.
pub(crate) const MAX_LAYERS: usize = 1024;

/// An image config as its bytes, its digest and its meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    raw: Vec<u8>,
    digest: Digest,
    image: ImageConfig,
}

impl Config {
    /// Parses a document and checks what the other parts rely on.
    ///
    /// # Errors
    ///
    /// Corrupt where it is no image config, Unsupported where its diffIDs are not sha256.
    pub fn parse(raw: Vec<u8>, at: Place) -> Result<Self> {
        let image: ImageConfig = match serde_json::from_slice(&raw) {
            Ok(image) => image,
            Err(source) => return Err(Error::Json { at, source }),
        };
        if image.rootfs.kind != "layers" {
            return Err(Error::corrupt("parse", at, "its rootfs is not of the type \"layers\""));
        }
        if image.rootfs.diff_ids.len() > MAX_LAYERS {
            return Err(Error::unsupported("parse", at, "it has more than 1,024 layers"));
        }
        Ok(Self { digest: Digest::of(&raw), raw, image })
    }

    /// Writes a config; the same config always gives the same bytes.
    ///
    /// # Errors
    ///
    /// Corrupt if it has members that JSON cannot express.
    pub fn build(image: ImageConfig) -> Result<Self> {
        let raw = serde_json::to_vec(&image)
            .map_err(|source| Error::Json { at: Place::file("image config"), source })?;
        Ok(Self { digest: Digest::of(&raw), raw, image })
    }

    /// Makes the config that a root file system without one gets, when its diffIDs are known.
    ///
    /// It is a function of the diffIDs and the host's platform alone: importing the same tar twice
    /// gives the same image, so it has no date.
    ///
    /// # Errors
    ///
    /// As [`Config::build`].
    pub fn for_rootfs(diff_ids: &[DiffId]) -> Result<Self> {
        let host = Platform::host();
        let history = History {
            created_by: Some("import of a root file system".to_owned()),
            ..History::default()
        };
        Self::build(ImageConfig {
            architecture: host.arch().to_owned(),
            os: host.os().to_owned(),
            variant: host.variant().to_owned(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: diff_ids.to_vec() },
            history: vec![history; diff_ids.len()],
            ..ImageConfig::default()
        })
    }

    /// The bytes whose digest is the image's id.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The image's id.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the document says.
    pub fn image(&self) -> &ImageConfig {
        &self.image
    }
}

/// The image config (OCI image-spec, `config.md`, which Docker's is a superset of).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// The architecture, in Go's words.
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    /// The operating system, in Go's words.
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    /// The variant of the architecture.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// What a container of it runs.
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How each layer came to be, and steps that made none.
    #[serde(default, deserialize_with = "nullable")]
    pub history: Vec<History>,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl ImageConfig {
    /// The platform that the config names; Docker's oldest configs name no system but mean Linux.
    pub fn platform(&self) -> Platform {
        let os = if self.os.is_empty() { "linux" } else { &self.os };
        Platform::new(os, &self.architecture, &self.variant)
    }
}

/// The defaults of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user[:group]`, by name or number.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `PORT[/PROTOCOL]` as keys.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `K=V`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments, in front of `cmd`.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments, or program and arguments, that a command line replaces.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Paths that are volumes, as keys.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Value>,
    /// The working directory; empty is `/`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks a container to stop; empty is `SIGTERM`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Everything else (`Healthcheck`, `OnBuild`, `Shell`, ...).
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The diffIDs, bottom to top.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<DiffId>,
}

/// One step of a build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Reads `null` as the empty value, as Go does.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a list of strings that may be `null` or, in old configs, a single string.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    })
}

#[cfg(test)]
mod tests;
