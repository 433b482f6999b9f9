//! `/v1/snapshots`.

use std::ops::ControlFlow;

use axum::extract::State;
use drivers::{IdMap, IdMaps};
use layerd_api::{
    CommitSnapshotRequest, KeyRequest, Mount, MountList, SnapshotInfo, SnapshotList,
    SnapshotRequest, Usage,
};
use serde_json::{Map, Value};

use super::super::App;
use super::super::error::ApiResult;
use super::super::extract::{Json, Params};
use crate::catalogue::Snapshot;
use crate::error::{Error, ErrorKind};
use crate::store::NewSnapshot;

/// The space of names of this dialect's snapshots.
const NAMESPACE: &str = "v1";

pub(super) async fn list(State(app): State<App>) -> ApiResult<Json<SnapshotList>> {
    let snapshots = app.store(|store| {
        let mut snapshots = Vec::new();
        store.walk_snapshots(NAMESPACE, &mut |snapshot| {
            snapshots.push(info(snapshot));
            ControlFlow::Continue(())
        })?;
        Ok(snapshots)
    });
    Ok(Json(SnapshotList { snapshots: snapshots.await? }))
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
    Ok(Json(Usage { bytes: usage.bytes, inodes: usage.inodes }))
}

pub(super) async fn commit(
    State(app): State<App>,
    Json(request): Json<CommitSnapshotRequest>,
) -> ApiResult<Json<SnapshotInfo>> {
    let _turn = app.commits.acquire().await;
    let snapshot = app.store(move |store| {
        store.commit_snapshot(NAMESPACE, &request.key, &request.name, request.labels, None)
    });
    Ok(Json(info(&snapshot.await?)))
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

fn info(snapshot: &Snapshot) -> SnapshotInfo {
    SnapshotInfo {
        key: snapshot.key.clone(),
        parent: snapshot.parent.clone(),
        kind: snapshot.kind.as_str().to_owned(),
        driver: snapshot.driver.clone(),
        created: snapshot.created.to_string(),
        updated: snapshot.updated.to_string(),
        labels: snapshot.labels.clone(),
    }
}
