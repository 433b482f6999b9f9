//! A gRPC client of the snapshots service: one HTTP/2 connection, calls that block.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tonic::{Code, Status};

#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    tonic::include_proto!("containerd.services.snapshots.v1");
}

use generated::snapshots_client::SnapshotsClient;
pub use generated::*;

/// A client with a connection and an event loop of its own.
pub struct Grpc {
    client: SnapshotsClient<Connection>,
    runtime: Runtime,
    snapshotter: String,
}

impl Grpc {
    /// Connects to a daemon, as the proxy snapshotter of this name.
    ///
    /// # Errors
    /// `Unavailable` when nobody listens.
    pub fn connect(socket: &Path, snapshotter: &str) -> Result<Self, Status> {
        let failed = |error: &dyn fmt::Display| Status::unavailable(error.to_string());
        let runtime = Builder::new_current_thread().enable_io().build().map_err(|e| failed(&e))?;
        let connection = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await.map_err(|e| failed(&e))?;
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (sender, connection) = handshake.map_err(|e| failed(&e))?;
            tokio::spawn(connection);
            Ok::<_, Status>(Connection(sender))
        })?;
        let origin = Uri::from_static("http://layerd");
        let client = SnapshotsClient::with_origin(connection, origin);
        Ok(Self { client, runtime, snapshotter: snapshotter.to_owned() })
    }

    /// Makes a writable snapshot.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn prepare(&mut self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        let answer = self.runtime.block_on(self.client.prepare(request))?;
        Ok(answer.into_inner().mounts)
    }

    /// The mounts of a snapshot.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn mounts(&mut self, key: &str) -> Result<Vec<Mount>, Status> {
        let request = MountsRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let answer = self.runtime.block_on(self.client.mounts(request))?;
        Ok(answer.into_inner().mounts)
    }

    /// Commits a snapshot under a name.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn commit(&mut self, key: &str, name: &str) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            ..Default::default()
        };
        self.runtime.block_on(self.client.commit(request)).map(drop)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn remove(&mut self, key: &str) -> Result<(), Status> {
        let request =
            RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        self.runtime.block_on(self.client.remove(request)).map(drop)
    }

    /// Whether a snapshot is there.
    ///
    /// # Errors
    /// What the daemon says, other than that it is not.
    pub fn exists(&mut self, key: &str) -> Result<bool, Status> {
        let request =
            StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        match self.runtime.block_on(self.client.stat(request)) {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Has the daemon collect what nothing refers to.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn cleanup(&mut self) -> Result<(), Status> {
        let request = CleanupRequest { snapshotter: self.snapshotter.clone() };
        self.runtime.block_on(self.client.cleanup(request)).map(drop)
    }
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc").field("snapshotter", &self.snapshotter).finish_non_exhaustive()
    }
}

/// The connection as tonic wants it.
struct Connection(SendRequest<Body>);

impl tower_service::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
