//! A blocking client of the `/v1/` API: one typed method a route.
//!
//! A [`Client`] is a socket path and a small pool of connections. Making one costs nothing and
//! touches nothing: the first request connects. It may be shared between threads, and every method
//! blocks until the daemon has answered, for as long as the work takes: no timeout is set, because
//! an import or a commit may rightly take minutes.

mod error;
mod stream;
mod unix;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

pub use error::{ClientError, Result};
pub use stream::JsonLines;

use crate::layers::{LayerFile, LayerList, LayerSummary, VerifiedLayer, VerifyList};
use crate::types::{
    AddDeviceRequest, ChangeList, CommitContainerRequest, CommitSnapshotRequest, Container,
    ContainerList, CreateContainerRequest, ErrorBody, EventLine, EventQuery, ImageDetails,
    ImageList, ImageSummary, ImportEvent, ImportRequest, Info, KeyRequest, Mount, MountList,
    PathChange, Pool, PoolList, PruneRequest, RemoveImageRequest, Removed, SnapshotInfo,
    SnapshotList, SnapshotRequest, SnapshotScope, StateRequest, TagRequest, Usage,
};

/// The longest answer that is one object: a list of some hundred thousand entries.
const MAX_ANSWER: u64 = 1 << 30;
/// The longest error body that is read.
const MAX_ERROR: u64 = 64 << 10;

/// What needs no escape in a path segment (RFC 3986, unreserved characters); `:` and `@` are
/// allowed there too and keep references readable.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@');

/// A client of one daemon's socket. See the [module](self).
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    socket: PathBuf,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the daemon that listens, or will listen, on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let socket = socket.into();
        Self { agent: unix::agent(&socket), socket }
    }

    /// The path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the daemon is and holds: `GET /v1/info`.
    pub fn info(&self) -> Result<Info> {
        self.get("/v1/info", &[])
    }

    /// The pools of the drivers that have one: `GET /v1/pool`.
    pub fn pools(&self) -> Result<Vec<Pool>> {
        Ok(self.get::<PoolList>("/v1/pool", &[])?.pools)
    }

    /// Gives a pool another device, and tells how it is then: `POST /v1/pool/devices`.
    pub fn add_device(&self, request: &AddDeviceRequest) -> Result<Pool> {
        self.post("/v1/pool/devices", request)
    }

    /// What the daemon does, as it does it, until it ends: `GET /v1/events`.
    pub fn events(&self, query: &EventQuery) -> Result<JsonLines<EventLine>> {
        let pairs = [("since", &query.since), ("until", &query.until), ("filter", &query.filter)];
        let given = pairs.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let request = self.agent.get(uri("/v1/events")).query_pairs(given);
        Ok(JsonLines::new(self.checked(request.call())?.into_body(), self.socket.clone()))
    }

    /// The daemon's figures in Prometheus's text format: `GET /metrics`.
    pub fn metrics(&self) -> Result<String> {
        let mut text = String::new();
        let mut reader =
            self.open("/metrics")?.into_body().into_with_config().limit(MAX_ANSWER).reader();
        reader
            .read_to_string(&mut text)
            .map_err(|e| ClientError::transport(&self.socket, ureq::Error::from(e)))?;
        Ok(text)
    }

    /// All images, those that came into the store last first: `GET /v1/images`.
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        Ok(self.get::<ImageList>("/v1/images", &[])?.images)
    }

    /// One image by name, id or id prefix, with its config: `GET /v1/images/{reference}`.
    pub fn image(&self, reference: &str) -> Result<ImageDetails> {
        self.get(&format!("/v1/images/{}", escape(reference)), &[])
    }

    /// Imports an archive or layout: `POST /v1/images/import`.
    ///
    /// The events come while the daemon works. Dropping the iterator early ends the connection,
    /// and the daemon then gives the import up.
    pub fn import(&self, request: &ImportRequest) -> Result<JsonLines<ImportEvent>> {
        let answer = self.send("/v1/images/import", request)?;
        Ok(JsonLines::new(answer.into_body(), self.socket.clone()))
    }

    /// All layers of images: `GET /v1/layers`.
    pub fn layers(&self) -> Result<Vec<LayerSummary>> {
        Ok(self.get::<LayerList>("/v1/layers", &[])?.layers)
    }

    /// The files of a layer: `GET /v1/layers/{chainID}/files`.
    pub fn layer_files(&self, chain_id: &str) -> Result<JsonLines<LayerFile>> {
        let answer = self.open(&format!("/v1/layers/{}/files", escape(chain_id)))?;
        Ok(JsonLines::new(answer.into_body(), self.socket.clone()))
    }

    /// A layer's uncompressed tar: `GET /v1/layers/{chainID}/tar`.
    pub fn layer_tar(&self, chain_id: &str) -> Result<impl Read + use<>> {
        let answer = self.open(&format!("/v1/layers/{}/tar", escape(chain_id)))?;
        Ok(answer.into_body().into_with_config().limit(u64::MAX).reader())
    }

    /// Holds a layer's content against its diffID: `POST /v1/layers/{chainID}/verify`.
    pub fn verify_layer(&self, chain_id: &str) -> Result<Vec<VerifiedLayer>> {
        let path = format!("/v1/layers/{}/verify", escape(chain_id));
        Ok(self.post::<VerifyList>(&path, &serde_json::Map::new())?.kept)
    }

    /// The space that a container's changes take: `GET /v1/containers/{id}/usage`.
    pub fn container_usage(&self, id: &str) -> Result<Usage> {
        self.get(&format!("/v1/containers/{}/usage", escape(id)), &[])
    }

    /// The files that a container changed: `GET /v1/containers/{id}/files`.
    pub fn container_files(&self, id: &str) -> Result<JsonLines<LayerFile>> {
        let answer = self.open(&format!("/v1/containers/{}/files", escape(id)))?;
        Ok(JsonLines::new(answer.into_body(), self.socket.clone()))
    }

    /// A container's changes as an uncompressed layer tar: `GET /v1/containers/{id}/tar`.
    pub fn container_tar(&self, id: &str) -> Result<impl Read + use<>> {
        let answer = self.open(&format!("/v1/containers/{}/tar", escape(id)))?;
        Ok(answer.into_body().into_with_config().limit(u64::MAX).reader())
    }

    /// Gives an image a name: `POST /v1/images/tag`.
    pub fn tag(&self, request: &TagRequest) -> Result<ImageSummary> {
        self.post("/v1/images/tag", request)
    }

    /// Takes away a name, or an image with all its names: `POST /v1/images/remove`.
    pub fn remove_image(&self, request: &RemoveImageRequest) -> Result<Removed> {
        self.post("/v1/images/remove", request)
    }

    /// Removes images that nothing uses: `POST /v1/prune`.
    pub fn prune(&self, request: &PruneRequest) -> Result<Removed> {
        self.post("/v1/prune", request)
    }

    /// Removes layers that nothing uses: `POST /v1/gc`.
    pub fn gc(&self) -> Result<Removed> {
        self.post("/v1/gc", &serde_json::Map::new())
    }

    /// Prepares an active snapshot or a view: `POST /v1/snapshots`.
    pub fn prepare(&self, request: &SnapshotRequest) -> Result<Vec<Mount>> {
        Ok(self.post::<MountList>("/v1/snapshots", request)?.mounts)
    }

    /// The snapshots of this dialect: `GET /v1/snapshots`.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        Ok(self.get::<SnapshotList>("/v1/snapshots", &[])?.snapshots)
    }

    /// The snapshots of some clients, each with its space: `GET /v1/snapshots?scope=&measure=true`.
    pub fn measured_snapshots(&self, scope: SnapshotScope) -> Result<Vec<SnapshotInfo>> {
        let query = [("scope", scope.as_str()), ("measure", "true")];
        Ok(self.get::<SnapshotList>("/v1/snapshots", &query)?.snapshots)
    }

    /// The mounts that show a snapshot: `GET /v1/snapshots/mounts?key=`.
    pub fn snapshot_mounts(&self, key: &str) -> Result<Vec<Mount>> {
        Ok(self.get::<MountList>("/v1/snapshots/mounts", &[("key", key)])?.mounts)
    }

    /// The space a snapshot takes: `GET /v1/snapshots/usage?key=`.
    pub fn snapshot_usage(&self, key: &str) -> Result<Usage> {
        self.get("/v1/snapshots/usage", &[("key", key)])
    }

    /// Commits an active snapshot under a name: `POST /v1/snapshots/commit`.
    pub fn commit_snapshot(&self, request: &CommitSnapshotRequest) -> Result<SnapshotInfo> {
        self.post("/v1/snapshots/commit", request)
    }

    /// Removes a snapshot: `POST /v1/snapshots/remove`.
    pub fn remove_snapshot(&self, key: &str) -> Result<()> {
        self.send("/v1/snapshots/remove", &KeyRequest { key: key.to_owned() })?;
        Ok(())
    }

    /// Makes a container and prepares its file system: `POST /v1/containers`.
    pub fn create_container(&self, request: &CreateContainerRequest) -> Result<Container> {
        self.post("/v1/containers", request)
    }

    /// Containers, newest first; only running ones unless `all`: `GET /v1/containers`.
    pub fn containers(&self, all: bool) -> Result<Vec<Container>> {
        let all = if all { "true" } else { "false" };
        Ok(self.get::<ContainerList>("/v1/containers", &[("all", all)])?.containers)
    }

    /// One container by name, id or id prefix: `GET /v1/containers/{id}`.
    pub fn container(&self, id: &str) -> Result<Container> {
        self.get(&format!("/v1/containers/{}", escape(id)), &[])
    }

    /// Reports what became of a container: `POST /v1/containers/{id}/state`.
    pub fn set_container_state(&self, id: &str, request: &StateRequest) -> Result<Container> {
        self.post(&format!("/v1/containers/{}/state", escape(id)), request)
    }

    /// Removes a container and its changes: `DELETE /v1/containers/{id}`.
    pub fn remove_container(&self, id: &str, force: bool) -> Result<()> {
        let uri = uri(&format!("/v1/containers/{}", escape(id)));
        let request = self.agent.delete(uri).query("force", if force { "true" } else { "false" });
        self.checked(request.call())?;
        Ok(())
    }

    /// Makes an image of a container's changes: `POST /v1/containers/{id}/commit`.
    pub fn commit_container(
        &self,
        id: &str,
        request: &CommitContainerRequest,
    ) -> Result<ImageSummary> {
        self.post(&format!("/v1/containers/{}/commit", escape(id)), request)
    }

    /// What a container changed, by path: `GET /v1/containers/{id}/changes`.
    pub fn container_changes(&self, id: &str) -> Result<Vec<PathChange>> {
        let path = format!("/v1/containers/{}/changes", escape(id));
        Ok(self.get::<ChangeList>(&path, &[])?.changes)
    }

    fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        let request = self.agent.get(uri(path)).query_pairs(query.iter().copied());
        self.object(self.checked(request.call())?)
    }

    fn open(&self, path: &str) -> Result<Response<Body>> {
        self.checked(self.agent.get(uri(path)).call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.object(self.send(path, body)?)
    }

    fn send(&self, path: &str, body: &impl Serialize) -> Result<Response<Body>> {
        let body = serde_json::to_vec(body).map_err(|source| self.unexpected("request", source))?;
        let request = self.agent.post(uri(path)).content_type("application/json");
        self.checked(request.send(&body[..]))
    }

    /// Turns a failed status into the daemon's own error.
    fn checked(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
        let answer = answer.map_err(|e| ClientError::transport(&self.socket, e))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(self.remote(status, answer))
    }

    fn remote(&self, status: StatusCode, answer: Response<Body>) -> ClientError {
        let body = answer.into_body().into_with_config().limit(MAX_ERROR).read_to_string();
        match body.as_deref().map(serde_json::from_str::<ErrorBody>) {
            Ok(Ok(body)) => ClientError::Remote { kind: body.kind, message: body.message },
            _ => ClientError::Unexpected {
                socket: self.socket.clone(),
                what: format!("status {status} without an error body"),
                source: None,
            },
        }
    }

    fn object<T: DeserializeOwned>(&self, answer: Response<Body>) -> Result<T> {
        let mut text = Vec::new();
        let mut reader = answer.into_body().into_with_config().limit(MAX_ANSWER).reader();
        reader
            .read_to_end(&mut text)
            .map_err(|e| ClientError::transport(&self.socket, ureq::Error::from(e)))?;
        serde_json::from_slice(&text).map_err(|source| self.unexpected("answer", source))
    }

    fn unexpected(&self, what: &str, source: serde_json::Error) -> ClientError {
        ClientError::Unexpected {
            socket: self.socket.clone(),
            what: what.to_owned(),
            source: Some(source),
        }
    }
}

/// The host is never looked up: every connection goes to the socket.
fn uri(path: &str) -> String {
    format!("http://layerd{path}")
}

fn escape(segment: &str) -> impl fmt::Display {
    utf8_percent_encode(segment, SEGMENT)
}

#[cfg(test)]
mod tests;
