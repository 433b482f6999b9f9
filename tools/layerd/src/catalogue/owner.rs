//! What a layer's own metadata file tells of what the layer is for.
//!
//! It is one label of [`drivers::LayerRecord::labels`], from the creation of the layer on, and it is
//! all that is needed to find the layer's row again after the catalogue was lost.

use std::collections::BTreeMap;

use drivers::LayerInfo;
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
    },
    /// A snapshot of a client.
    Snapshot {
        /// The client's namespace.
        namespace: String,
        /// The key, or the name once it is committed.
        key: String,
        /// The parent as the client names it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
        /// The client's labels at creation or commit.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: Labels,
        /// When it was prepared, or committed.
        created: Timestamp,
        /// The container whose changes it holds, as it was created.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<Box<Container>>,
    },
}

impl Owner {
    /// The owner of a snapshot's layer.
    pub(crate) fn of_snapshot(
        namespace: &str,
        snapshot: &Snapshot,
        container: Option<&Container>,
    ) -> Self {
        Self::Snapshot {
            namespace: namespace.to_owned(),
            key: snapshot.key.clone(),
            parent: snapshot.parent.clone(),
            labels: snapshot.labels.clone(),
            created: snapshot.created,
            container: container.cloned().map(Box::new),
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

    /// The snapshot row that a metadata file tells, with its namespace.
    pub(crate) fn snapshot_of(info: &LayerInfo, driver: &str) -> Option<(String, Snapshot)> {
        let Some(Self::Snapshot { namespace, key, parent, labels, created, .. }) =
            Self::of_info(info)
        else {
            return None;
        };
        let kind = match info.state {
            drivers::State::Active => SnapshotKind::Active,
            drivers::State::View => SnapshotKind::View,
            drivers::State::Committed => SnapshotKind::Committed,
        };
        let snapshot = Snapshot {
            key,
            parent,
            kind,
            labels,
            created,
            updated: created,
            driver: driver.to_owned(),
            layer: info.id.clone(),
            usage: info.usage,
        };
        Some((namespace, snapshot))
    }
}
