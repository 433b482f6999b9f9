//! The generated types of the service, and how ours become them.

use std::collections::HashMap;

use prost_types::Timestamp as ProtoTime;

use super::filter::Fields;
use crate::catalogue::{Labels, Snapshot, SnapshotKind};
use crate::clock::Timestamp;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    tonic::include_proto!("containerd.services.snapshots.v1");
}

pub(super) use generated::*;

impl From<drivers::Mount> for Mount {
    fn from(mount: drivers::Mount) -> Self {
        Self {
            r#type: mount.fstype,
            source: mount.source.to_string_lossy().into_owned(),
            target: String::new(),
            options: mount.options,
        }
    }
}

impl From<Snapshot> for Info {
    fn from(snapshot: Snapshot) -> Self {
        let kind = match snapshot.kind {
            SnapshotKind::Active => Kind::Active,
            SnapshotKind::View => Kind::View,
            SnapshotKind::Committed => Kind::Committed,
        };
        Self {
            name: snapshot.key,
            parent: snapshot.parent.unwrap_or_default(),
            kind: kind.into(),
            created_at: Some(time(snapshot.created)),
            updated_at: Some(time(snapshot.updated)),
            labels: snapshot.labels.into_iter().collect(),
        }
    }
}

fn time(time: Timestamp) -> ProtoTime {
    let (seconds, nanos) = time.parts();
    ProtoTime { seconds, nanos: nanos.cast_signed() }
}

/// Labels as the store keeps them.
pub(super) fn labels(labels: HashMap<String, String>) -> Labels {
    labels.into_iter().collect()
}

/// An empty string of the wire is an absent value.
pub(super) fn present(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl Fields for Snapshot {
    fn field(&self, path: &[String]) -> Option<&str> {
        let (first, rest) = path.split_first()?;
        match (first.as_str(), rest) {
            ("name", []) => Some(&self.key),
            // Always present: containerd asks for snapshots without a parent by an empty one.
            ("parent", []) => Some(self.parent.as_deref().unwrap_or_default()),
            ("kind", []) => Some(self.kind.as_str()),
            ("labels", [_, ..]) => self.labels.get(&rest.join(".")).map(String::as_str),
            _ => None,
        }
    }
}
