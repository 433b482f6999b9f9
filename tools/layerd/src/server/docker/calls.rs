//! The calls that are JSON both ways.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use cow::change::{Change, ChangeKind};

use super::NAMESPACE;
use super::layers::{self, NewLayer};
use super::wire::{Capabilities, Failure, InitRequest, LayerRequest, Reply};
use crate::error::{Error, ErrorKind};
use crate::server::App;
use crate::server::extract::Json;

type Outcome = Result<Reply, Failure>;

pub(super) async fn activate() -> Reply {
    Reply { implements: vec!["GraphDriver"], ..Reply::default() }
}

/// Called at every start of dockerd; what was made before is simply there.
///
/// The driver and its options are the daemon's own; Docker's `--storage-opt`s for the plugin are
/// refused, since half of them would come too late.
pub(super) async fn init(State(app): State<App>, Json(request): Json<InitRequest>) -> Outcome {
    if let Some(option) = request.options.first() {
        let reason = "give storage options to layerd itself (layerd serve --storage-opt)";
        return Err(Error::refused("init", option, reason, ErrorKind::InvalidArgument).into());
    }
    let maps = request.uid_maps.iter().chain(&request.gid_maps);
    if maps.into_iter().any(|map| !map.is_identity()) {
        let reason = "userns-remap is not supported: start dockerd without it";
        return Err(Error::refused("init", request.home, reason, ErrorKind::Unsupported).into());
    }
    app.store(|store| store.driver(None).map(drop)).await?;
    tracing::info!(home = request.home, "a Docker daemon uses this store");
    Ok(Reply::default())
}

/// Layers are kept as files, and the tar that `Diff` writes of them is in layerd's own order.
pub(super) async fn capabilities() -> Reply {
    let capabilities = Some(Capabilities { reproduces_exact_diffs: false });
    Reply { capabilities, ..Reply::default() }
}

pub(super) async fn create(State(app): State<App>, Json(request): Json<LayerRequest>) -> Outcome {
    refuse_label(&request)?;
    let parent = Some(request.parent).filter(|parent| !parent.is_empty());
    let _parent = match &parent {
        Some(parent) => settle_parent(&app, parent).await?,
        None => None,
    };
    let layer = NewLayer { id: request.id, parent, options: request.storage_opt };
    app.store(|store| layers::create(store, layer)).await?;
    Ok(Reply::default())
}

/// A parent that this child will commit is held alone meanwhile; one that is committed is not held.
async fn settle_parent(app: &App, parent: &str) -> Result<Option<impl Sized + use<>>, Failure> {
    let id = parent.to_owned();
    if app.store(move |store| layers::is_committed(store, &id)).await? {
        return Ok(None);
    }
    let turn = Arc::clone(&app.commits).acquire_owned().await;
    Ok(Some((app.streams.locks.alone(parent).await, turn)))
}

pub(super) async fn remove(State(app): State<App>, Json(request): Json<LayerRequest>) -> Outcome {
    let _alone = app.streams.locks.alone(&request.id).await;
    app.store(move |store| layers::remove(store, &request.id)).await?;
    Ok(Reply::default())
}

pub(super) async fn get(State(app): State<App>, Json(request): Json<LayerRequest>) -> Outcome {
    refuse_label(&request)?;
    let _shared = app.streams.locks.shared(&request.id).await;
    let dir = app.store(move |store| store.mount_snapshot(NAMESPACE, &request.id)).await?;
    Ok(Reply { dir: dir.to_string_lossy().into_owned(), ..Reply::default() })
}

fn refuse_label(request: &LayerRequest) -> Result<(), Error> {
    if request.mount_label.is_empty() {
        return Ok(());
    }
    let reason =
        "SELinux labels of mounts are not supported: start dockerd without selinux-enabled";
    Err(Error::refused("mount layer", request.id.clone(), reason, ErrorKind::Unsupported))
}

pub(super) async fn put(State(app): State<App>, Json(request): Json<LayerRequest>) -> Outcome {
    app.store(move |store| store.unmount_snapshot(NAMESPACE, &request.id)).await?;
    Ok(Reply::default())
}

pub(super) async fn exists(State(app): State<App>, Json(request): Json<LayerRequest>) -> Outcome {
    let found = app
        .store(move |store| match store.stat_snapshot(NAMESPACE, &request.id) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
        .await?;
    Ok(Reply { exists: Some(found), ..Reply::default() })
}

pub(super) async fn status(State(app): State<App>) -> Outcome {
    let status = app
        .store(|store| {
            let driver = store.driver(None)?;
            let own = [
                ("Driver".to_owned(), driver.name().to_owned()),
                ("Root Dir".to_owned(), store.root().display().to_string()),
            ];
            Ok(own.into_iter().chain(driver.status()).map(|(key, value)| [key, value]).collect())
        })
        .await?;
    Ok(Reply { status, ..Reply::default() })
}

pub(super) async fn metadata(State(app): State<App>, Json(request): Json<LayerRequest>) -> Outcome {
    let metadata = app.store(move |store| store.snapshot_metadata(NAMESPACE, &request.id)).await?;
    Ok(Reply { metadata, ..Reply::default() })
}

/// dockerd ends, and has put what it got; mounts of containers that live on are not torn from them.
pub(super) async fn cleanup() -> Reply {
    Reply::default()
}

pub(super) async fn changes(State(app): State<App>, Json(request): Json<LayerRequest>) -> Outcome {
    let _shared = app.streams.locks.shared(&request.id).await;
    let changes = app
        .store(move |store| store.snapshot_changes(NAMESPACE, &request.id, base(&request.parent)))
        .await?;
    let changes = with_parents(changes.changes).into_iter().map(Into::into).collect();
    Ok(Reply { changes, ..Reply::default() })
}

/// Adds the directories that have a change somewhere inside, which Docker counts as changed too; those
/// that are new are there already.
fn with_parents(changes: Vec<Change>) -> Vec<Change> {
    let mut told: BTreeSet<PathBuf> = changes.iter().map(|change| change.path.clone()).collect();
    let mut all = Vec::with_capacity(changes.len());
    for change in changes {
        let first = all.len();
        for parent in change.path.ancestors().skip(1) {
            if parent.as_os_str().is_empty() || !told.insert(parent.to_owned()) {
                break;
            }
            let changed = Change { kind: ChangeKind::Modified, ..Change::deleted(parent) };
            all.insert(first, changed);
        }
        all.push(change);
    }
    all
}

pub(super) async fn diff_size(
    State(app): State<App>,
    Json(request): Json<LayerRequest>,
) -> Outcome {
    let _shared = app.streams.locks.shared(&request.id).await;
    let usage = app.store(move |store| store.snapshot_usage(NAMESPACE, &request.id)).await?;
    Ok(Reply { size: Some(size(usage.content)), ..Reply::default() })
}

/// An empty parent of the wire is none.
pub(super) fn base(parent: &str) -> Option<&str> {
    Some(parent).filter(|parent| !parent.is_empty())
}

/// A size as Go's `int64`.
pub(super) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_changes_are_changed() {
        let change = |path: &str, kind| Change { kind, ..Change::deleted(path) };
        let changes = vec![
            change("a/b/c/new", ChangeKind::Added),
            change("a/b/gone", ChangeKind::Deleted),
            change("d", ChangeKind::Added),
            change("d/new", ChangeKind::Added),
        ];
        let all = with_parents(changes);
        let told: Vec<_> = all.iter().map(|c| (c.path.to_str().expect("UTF-8"), c.kind)).collect();
        let expected = [
            ("a", ChangeKind::Modified),
            ("a/b", ChangeKind::Modified),
            ("a/b/c", ChangeKind::Modified),
            ("a/b/c/new", ChangeKind::Added),
            ("a/b/gone", ChangeKind::Deleted),
            ("d", ChangeKind::Added),
            ("d/new", ChangeKind::Added),
        ];
        assert_eq!(told, expected, "each directory once, before what is in it");
    }
}
