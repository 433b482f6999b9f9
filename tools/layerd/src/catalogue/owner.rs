//! What a layer's own metadata file tells of what the layer is for.
//!
//! It is one label of [`drivers::LayerRecord::labels`], from the creation of the layer on, and it is
//! all that is needed to find the layer's row again after the catalogue was lost.

use std::collections::BTreeMap;

use cow::digest::ChainId;
use drivers::{LayerInfo, State};
use serde::{Deserialize, Serialize};

use super::records::{Container, Labels, Snapshot, SnapshotKind};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// The label that holds the owner as JSON.
const LABEL: &str = "layerd.owner";

/// What a layer is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Owner {
    /// A layer of images. While it is active, an import is at work on it.
    Image {
        /// Bytes of file content in it.
        content_size: u64,
        /// The snapshots that share it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sharers: Vec<Told>,
    },
    /// A snapshot of a client.
    Snapshot {
        /// The snapshot.
        #[serde(flatten)]
        told: Told,
        /// The container whose changes it holds, as it was created.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<Box<Container>>,
    },
}

/// What a metadata file tells of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The client's namespace.
    pub(crate) namespace: String,
    /// The key, or the name once it is committed.
    pub(crate) key: String,
    /// The parent as the client names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    /// The client's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: Labels,
    /// When it was prepared, or committed.
    created: Timestamp,
    /// When its labels changed, if they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated: Option<Timestamp>,
}

impl Told {
    fn of(namespace: &str, snapshot: &Snapshot) -> Self {
        Self {
            namespace: namespace.to_owned(),
            key: snapshot.key.clone(),
            parent: snapshot.parent.clone(),
            labels: snapshot.labels.clone(),
            created: snapshot.created,
            updated: Some(snapshot.updated).filter(|updated| *updated != snapshot.created),
        }
    }

    fn is(&self, namespace: &str, key: &str) -> bool {
        self.namespace == namespace && self.key == key
    }

    /// Whether it is a snapshot of a namespace on the one of some key.
    pub(crate) fn is_on(&self, namespace: &str, key: &str) -> bool {
        self.namespace == namespace && self.parent.as_deref() == Some(key)
    }

    /// The row of it.
    fn row(self, info: &LayerInfo, driver: &str, shared: Option<ChainId>) -> (String, Snapshot) {
        let snapshot = Snapshot {
            key: self.key,
            parent: self.parent,
            kind: info.state.into(),
            labels: self.labels,
            created: self.created,
            updated: self.updated.unwrap_or(self.created),
            driver: driver.to_owned(),
            layer: info.id.clone(),
            usage: info.usage,
            shared,
        };
        (self.namespace, snapshot)
    }
}

impl Owner {
    /// The owner of a layer of images that nobody shares.
    pub(crate) fn of_image(content_size: u64) -> Self {
        Self::Image { content_size, sharers: Vec::new() }
    }

    /// The owner of a snapshot's layer.
    pub(crate) fn of_snapshot(
        namespace: &str,
        snapshot: &Snapshot,
        container: Option<&Container>,
    ) -> Self {
        let container = container.cloned().map(Box::new);
        Self::Snapshot { told: Told::of(namespace, snapshot), container }
    }

    /// Notes how a snapshot is now: it has other labels, or begins to share a layer of images.
    pub(crate) fn note(&mut self, namespace: &str, snapshot: &Snapshot) {
        let now = Told::of(namespace, snapshot);
        match self {
            Self::Snapshot { told, .. } => *told = now,
            Self::Image { sharers, .. } => {
                sharers.retain(|told| !told.is(namespace, &snapshot.key));
                sharers.push(now);
            }
        }
    }

    /// Forgets a snapshot that shared a layer of images.
    pub(crate) fn forget(&mut self, namespace: &str, key: &str) {
        if let Self::Image { sharers, .. } = self {
            sharers.retain(|told| !told.is(namespace, key));
        }
    }

    /// The labels for the layer's metadata file.
    pub(crate) fn to_labels(&self) -> Result<BTreeMap<String, String>> {
        let text = serde_json::to_string(self).map_err(|e| {
            Error::refused("encode", LABEL, e.to_string(), ErrorKind::InvalidArgument)
        })?;
        Ok(BTreeMap::from([(LABEL.to_owned(), text)]))
    }

    /// The owner that a metadata file tells; none if it has no such label or one that cannot be
    /// understood.
    pub(crate) fn of_info(info: &LayerInfo) -> Option<Self> {
        let text = info.record.labels.get(LABEL)?;
        serde_json::from_str(text)
            .inspect_err(|error| tracing::warn!(layer = %info.id, %error, "unreadable owner"))
            .ok()
    }

    /// The rows of snapshots that a metadata file tells, with their namespaces.
    pub(crate) fn snapshots_of(info: &LayerInfo, driver: &str) -> Vec<(String, Snapshot)> {
        let (told, shared) = match (Self::of_info(info), info.record.chain_id) {
            (Some(Self::Snapshot { told, .. }), _) => (vec![told], None),
            (Some(Self::Image { sharers, .. }), Some(chain)) => (sharers, Some(chain)),
            _ => return Vec::new(),
        };
        told.into_iter().map(|told| told.row(info, driver, shared)).collect()
    }
}

impl From<State> for SnapshotKind {
    fn from(state: State) -> Self {
        match state {
            State::Active => Self::Active,
            State::View => Self::View,
            State::Committed => Self::Committed,
        }
    }
}
