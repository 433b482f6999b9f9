//! `/v1/snapshots`.

use std::ops::ControlFlow;

use axum::extract::State;
use drivers::{IdMap, IdMaps};
use layerd_api::{
    CommitSnapshotRequest, KeyRequest, Mount, MountList, SnapshotInfo, SnapshotList,
    SnapshotRequest, SnapshotScope, Usage,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::App;
use super::super::error::ApiResult;
use super::super::extract::{Json, Params};
use crate::catalogue::Snapshot;
use crate::error::{Error, ErrorKind};
use crate::store::{CONTAINERS, NewSnapshot, Store};

/// The space of names of this dialect's snapshots.
const NAMESPACE: &str = "v1";

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    scope: SnapshotScope,
    /// Whether the trees of those that can change are walked for their space.
    #[serde(default)]
    measure: bool,
}

pub(super) async fn list(
    State(app): State<App>,
    Params(query): Params<ListQuery>,
) -> ApiResult<Json<SnapshotList>> {
    let snapshots = app.store(move |store| {
        let listed = snapshots_of(store, query.scope)?;
        let shown = listed.into_iter().filter_map(|(namespace, snapshot)| {
            if query.measure && snapshot.usage.is_none() {
                measured(store, &namespace, snapshot)
            } else {
                Some(info(&namespace, &snapshot))
            }
        });
        Ok(shown.collect())
    });
    Ok(Json(SnapshotList { snapshots: snapshots.await? }))
}

fn snapshots_of(store: &Store, scope: SnapshotScope) -> Result<Vec<(String, Snapshot)>, Error> {
    let namespaces = match scope {
        SnapshotScope::All => return store.snapshots(),
        SnapshotScope::Own => &[CONTAINERS, NAMESPACE][..],
        SnapshotScope::V1 => &[NAMESPACE],
    };
    let mut found = Vec::new();
    for namespace in namespaces {
        store.walk_snapshots(namespace, &mut |snapshot| {
            found.push(((*namespace).to_owned(), snapshot.clone()));
            ControlFlow::Continue(())
        })?;
    }
    Ok(found)
}

/// A snapshot with the space that it takes now; none if it is gone meanwhile. One that cannot be
/// measured, as of a driver that does not work any more, is no reason not to show the others.
fn measured(store: &Store, namespace: &str, mut snapshot: Snapshot) -> Option<SnapshotInfo> {
    match store.snapshot_usage(namespace, &snapshot.key) {
        Ok(usage) => snapshot.usage = Some(usage),
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => tracing::warn!(namespace, key = snapshot.key, %error, "not measured"),
    }
    Some(info(namespace, &snapshot))
}

pub(super) async fn prepare(
    State(app): State<App>,
    Json(request): Json<SnapshotRequest>,
) -> ApiResult<Json<MountList>> {
    let id_map = id_map(&request)?;
    let mounts = app.store(move |store| {
        let new = NewSnapshot {
            id_map,
            key: request.key,
            parent: request.parent,
            view: request.view,
            driver: request.driver,
            labels: request.labels,
            ..NewSnapshot::default()
        };
        store.prepare_mounts(NAMESPACE, &new)
    });
    Ok(Json(mount_list(mounts.await?)))
}

pub(super) async fn mounts(
    State(app): State<App>,
    Params(request): Params<KeyRequest>,
) -> ApiResult<Json<MountList>> {
    let mounts = app.store(move |store| store.snapshot_mounts(NAMESPACE, &request.key));
    Ok(Json(mount_list(mounts.await?)))
}

pub(super) async fn usage(
    State(app): State<App>,
    Params(request): Params<KeyRequest>,
) -> ApiResult<Json<Usage>> {
    let usage = app.store(move |store| store.snapshot_usage(NAMESPACE, &request.key)).await?;
    Ok(Json(wire_usage(usage)))
}

pub(super) async fn commit(
    State(app): State<App>,
    Json(request): Json<CommitSnapshotRequest>,
) -> ApiResult<Json<SnapshotInfo>> {
    let _turn = app.commits.acquire().await;
    let snapshot = app.store(move |store| {
        store.commit_snapshot(NAMESPACE, &request.key, &request.name, request.labels, None)
    });
    Ok(Json(info(NAMESPACE, &snapshot.await?)))
}

pub(super) async fn remove(
    State(app): State<App>,
    Json(request): Json<KeyRequest>,
) -> ApiResult<Json<Map<String, Value>>> {
    app.store(move |store| store.remove_snapshot(NAMESPACE, &request.key)).await?;
    Ok(Json(Map::new()))
}

/// The maps that a request asks for; one does not come without the other.
fn id_map(request: &SnapshotRequest) -> Result<Option<IdMaps>, Error> {
    let refused = |reason: String| {
        Error::refused("prepare snapshot", &*request.key, reason, ErrorKind::InvalidArgument)
    };
    let parse = |text: &str| text.parse::<IdMap>().map_err(|error| refused(error.to_string()));
    match (&request.uid_map, &request.gid_map) {
        (None, None) => Ok(None),
        (Some(uids), Some(gids)) => Ok(Some(IdMaps { uids: parse(uids)?, gids: parse(gids)? })),
        _ => Err(refused("uid_map and gid_map come together".to_owned())),
    }
}

/// Mounts as the wire has them.
pub(super) fn mount_list(mounts: Vec<drivers::Mount>) -> MountList {
    let mounts = mounts.into_iter().map(|mount| Mount {
        fstype: mount.fstype,
        source: mount.source.to_string_lossy().into_owned(),
        options: mount.options,
    });
    MountList { mounts: mounts.collect() }
}

fn info(namespace: &str, snapshot: &Snapshot) -> SnapshotInfo {
    SnapshotInfo {
        namespace: namespace.to_owned(),
        key: snapshot.key.clone(),
        parent: snapshot.parent.clone(),
        kind: snapshot.kind.as_str().to_owned(),
        driver: snapshot.driver.clone(),
        created: snapshot.created.to_string(),
        updated: snapshot.updated.to_string(),
        labels: snapshot.labels.clone(),
        usage: snapshot.usage.map(wire_usage),
    }
}

fn wire_usage(usage: drivers::Usage) -> Usage {
    Usage { bytes: usage.bytes, inodes: usage.inodes }
}
