//! `/v1/containers`.

use std::collections::BTreeMap;

use axum::extract::State;
use cow::change::ChangeKind;
use layerd_api::{
    ChangeList, CommitContainerRequest, Container, ContainerList, CreateContainerRequest,
    ImageSummary, Mount, PathChange, StateRequest,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::App;
use super::super::error::{ApiError, ApiResult};
use super::super::extract::{Json, Name, Params};
use super::images::summary;
use super::snapshots::mount_list;
use crate::catalogue::{self, Status};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{CommitContainer, NewContainer, Report, Store};

/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

pub(super) async fn create(
    State(app): State<App>,
    Json(request): Json<CreateContainerRequest>,
) -> ApiResult<Json<Container>> {
    let container = app.store(move |store| {
        let new = NewContainer {
            image: request.image,
            name: request.name,
            driver: request.driver,
            auto_remove: request.auto_remove,
            options: request.storage_opt,
            entrypoint: request.entrypoint,
            command: request.command,
            spec: request.spec,
        };
        with_mounts(store, &store.create_container(&new)?)
    });
    Ok(Json(container.await?))
}

/// Lists without mounts, which are a matter of the one container that is to be run.
pub(super) async fn list(
    State(app): State<App>,
    Params(query): Params<ListQuery>,
) -> ApiResult<Json<ContainerList>> {
    let mut containers = app.store(|store| store.containers()).await?;
    containers.retain(|c| query.all || matches!(c.status, Status::Running { .. }));
    let containers = containers.iter().map(|c| container(c, Vec::new())).collect();
    Ok(Json(ContainerList { containers }))
}

pub(super) async fn inspect(State(app): State<App>, Name(id): Name) -> ApiResult<Json<Container>> {
    let container = app.store(move |store| {
        let found = store.container(&id)?;
        // Without it the rest is still worth knowing.
        let driver_data = store.container_metadata(&found.id).unwrap_or_default();
        Ok(Container { driver_data, ..with_mounts(store, &found)? })
    });
    Ok(Json(container.await?))
}

pub(super) async fn report(
    State(app): State<App>,
    Name(id): Name,
    Json(request): Json<StateRequest>,
) -> ApiResult<Json<Container>> {
    let report = parse_report(&request)?;
    let found = app.store(move |store| store.report_container(&id, report)).await?;
    Ok(Json(container(&found, Vec::new())))
}

fn parse_report(request: &StateRequest) -> ApiResult<Report> {
    let missing = |field| {
        let message = format!("the state {:?} needs the field {field}", request.state);
        ApiError::new(ErrorKind::InvalidArgument, message)
    };
    match request.state.as_str() {
        "running" => {
            let pid = request.pid.ok_or_else(|| missing("pid"))?;
            Ok(Report::Running { pid })
        }
        "exited" => {
            let code = request.exit_code.ok_or_else(|| missing("exit_code"))?;
            Ok(Report::Exited { code })
        }
        other => {
            let message = format!("the field state is running or exited, not {other:?}");
            Err(ApiError::new(ErrorKind::InvalidArgument, message))
        }
    }
}

pub(super) async fn remove(
    State(app): State<App>,
    Name(id): Name,
    Params(query): Params<RemoveQuery>,
) -> ApiResult<Json<Map<String, Value>>> {
    app.store(move |store| match query.force {
        true => remove_forced(store, &id),
        false => store.remove_container(&id).map(drop),
    })
    .await?;
    Ok(Json(Map::new()))
}

/// Removes a container whose init, if there is one, is killed first.
fn remove_forced(store: &Store, reference: &str) -> Result<()> {
    let id = store.container(reference)?.id;
    let remove = || {
        let is_killed = kill(store, &id)?;
        match store.remove_container(&id) {
            // Its runtime has only now said that it runs.
            Err(error) if error.kind() == ErrorKind::InUse && !is_killed => {
                kill(store, &id)?;
                store.remove_container(&id)
            }
            outcome => outcome,
        }
    };
    match remove() {
        // Its runtime was to remove it at its end, and has.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Kills a container's init and waits for its end; whether there was one.
fn kill(store: &Store, id: &str) -> Result<bool> {
    let found = store.container(id)?;
    let Status::Running { pid, .. } = found.status else { return Ok(false) };
    let Some(pid) = Pid::from_raw(pid) else { return Ok(false) };
    let sys = |op, errno: Errno| Error::sys(op, format!("container {}", found.name), errno);
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(false),
        Err(errno) => return Err(sys("pidfd_open", errno)),
    };
    // Only now is it certain that the number has not gone to another process.
    if store.container(&found.id)?.status != found.status {
        return Ok(false);
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(sys("pidfd_send_signal", errno)),
    }
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    loop {
        match poll(&mut ended, Some(&KILL_TIMEOUT)) {
            Err(Errno::INTR) => {}
            answer => return answer.map(|_| true).map_err(|errno| sys("poll", errno)),
        }
    }
}

pub(super) async fn commit(
    State(app): State<App>,
    Name(id): Name,
    Json(request): Json<CommitContainerRequest>,
) -> ApiResult<Json<ImageSummary>> {
    let commit =
        CommitContainer { name: request.name, comment: request.comment, author: request.author };
    let image = app.store(move |store| store.commit_container(&id, &commit)).await?;
    Ok(Json(summary(&image)))
}

pub(super) async fn changes(State(app): State<App>, Name(id): Name) -> ApiResult<Json<ChangeList>> {
    let changes = app.store(move |store| store.container_changes(&id)).await?;
    let changes = changes
        .into_iter()
        .map(|change| PathChange { path: change.path, kind: letter(change.kind).to_owned() });
    Ok(Json(ChangeList { changes: changes.collect() }))
}

fn letter(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "A",
        ChangeKind::Modified => "C",
        ChangeKind::Deleted => "D",
    }
}

fn with_mounts(store: &Store, found: &catalogue::Container) -> Result<Container> {
    Ok(container(found, mount_list(store.container_mounts(&found.id)?).mounts))
}

fn container(found: &catalogue::Container, mounts: Vec<Mount>) -> Container {
    let (state, exit_code, pid) = match found.status {
        Status::Created => ("created", None, None),
        Status::Running { pid, .. } => ("running", None, Some(pid)),
        Status::Exited { code } => ("exited", code, None),
    };
    Container {
        id: found.id.clone(),
        name: found.name.clone(),
        image: found.image.to_string(),
        image_name: found.image_name.clone(),
        state: state.to_owned(),
        exit_code,
        pid,
        created: found.created.to_string(),
        started: found.started.map(|time| time.to_string()),
        finished: found.finished.map(|time| time.to_string()),
        auto_remove: found.auto_remove,
        spec: found.spec.clone(),
        mounts,
        snapshot: found.id.clone(),
        driver: found.driver.clone(),
        driver_data: BTreeMap::new(),
    }
}
