//! The two calls whose body is a tar: `Diff` sends one, `ApplyDiff` takes one.
//!
//! Each runs on a thread of its own, not in the pool of the other calls: its pace is the client's, and
//! a client that stalls must not hold what others need.
//!
//! | bound | value |
//! | --- | --- |
//! | tars at once, either way | 256; more wait their turn |
//! | bytes of one tar in memory | 256 KiB on the way out, besides the connection's own buffers |
//! | how long a client may neither send nor take a byte | 300 s, then its tar is given up |

use std::io::{self, Read};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use hyper::header::CONTENT_TYPE;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::StreamExt as _;

use super::locks::Locks;
use super::wire::{Failure, LayerRequest, MEDIA_TYPE, Reply};
use super::{NAMESPACE, calls, layers};
use crate::error::{Error, ErrorKind, Result};
use crate::server::App;
use crate::server::extract::Json;
use crate::server::written::{self, PATIENCE, stalls};
use crate::store::Store;

/// Tars that are sent or taken at once: each has a thread and buffers.
const TARS: usize = 256;
/// Chunks on their way between the network and the store.
const DEPTH: usize = 2;

/// The tars that are under way.
#[derive(Debug)]
pub(in crate::server) struct Streams {
    places: Arc<Semaphore>,
    pub(super) locks: Arc<Locks>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(TARS)), locks: Arc::default() }
    }
}

impl Streams {
    /// Waits for a place.
    pub(in crate::server) async fn place(&self) -> impl Sized + Send + use<> {
        // The semaphore is never closed.
        Arc::clone(&self.places).acquire_owned().await
    }
}

/// `GraphDriver.Diff`: the layer tar as it is made.
///
/// The status waits for the first chunk, so that an error before it is an error; after it the
/// connection is broken off, which Docker takes for one.
pub(super) async fn diff(
    State(app): State<App>,
    Json(request): Json<LayerRequest>,
) -> std::result::Result<Response, Failure> {
    let held = app.streams.locks.shared(&request.id).await;
    let held = (app.streams.place().await, held);
    let store = Arc::clone(&app.store);
    let body = written::body("docker-diff", move |out| {
        let _held = held;
        let base = calls::base(&request.parent);
        let outcome = store.snapshot_diff(NAMESPACE, &request.id, base, out).map(drop);
        outcome.inspect_err(|error| tracing::warn!(id = request.id, %error, "a diff failed"))
    });
    let body = body.await?;
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], body).into_response())
}

/// `GraphDriver.ApplyDiff`: the layer and its parent are in the query, the body is the tar.
pub(super) async fn apply(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    body: Body,
) -> std::result::Result<Reply, Failure> {
    let id = layer_of(&query.unwrap_or_default())?.to_owned();
    let held = app.streams.locks.alone(&id).await;
    let held = (app.streams.place().await, held);
    let (sender, chunks) = mpsc::channel(DEPTH);
    let (answer, answered) = oneshot::channel();
    let store = Arc::clone(&app.store);
    on_a_thread("apply", move || {
        let outcome = apply_from(&store, &id, chunks);
        // Before the answer: the client's next call need not wait.
        drop(held);
        // Dropped: the client is gone.
        drop(answer.send(outcome));
    })?;
    let feed = feed(body, sender);
    tokio::pin!(feed);
    tokio::pin!(answered);
    // An apply that fails early answers while the client still sends.
    let outcome = tokio::select! {
        outcome = &mut answered => outcome,
        () = &mut feed => answered.await,
    };
    let size = outcome.map_err(|_| "the request failed: see the daemon's log".to_owned())??;
    Ok(Reply { size: Some(calls::size(size)), ..Reply::default() })
}

/// Hands the body's chunks on; a body that breaks off or stalls becomes an error of the reader.
async fn feed(body: Body, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut chunks = body.into_data_stream();
    loop {
        let chunk = match tokio::time::timeout(PATIENCE, chunks.next()).await {
            Ok(None) => return,
            Ok(Some(Ok(chunk))) => Ok(chunk),
            Ok(Some(Err(error))) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
            Err(_) => Err(stalls()),
        };
        let last = chunk.is_err();
        if sender.send(chunk).await.is_err() || last {
            return;
        }
    }
}

fn apply_from(store: &Store, id: &str, chunks: mpsc::Receiver<io::Result<Bytes>>) -> Result<u64> {
    let mut tar = Tar { chunks, rest: Bytes::new() };
    // A client that tried again may have spent its body on the first try.
    if tar.fill().map_err(|error| Error::sys("read tar of layer", id, error))?.is_empty() {
        let reason = "the body is empty, not a tar";
        return Err(Error::refused("apply to layer", id, reason, ErrorKind::InvalidArgument));
    }
    layers::apply(store, id, &mut tar).map(|usage| usage.content)
}

/// A reader of what the client sends.
struct Tar {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Tar {
    /// What can be read now; empty at the end.
    fn fill(&mut self) -> io::Result<&Bytes> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => break,
            }
        }
        Ok(&self.rest)
    }
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.fill()?.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.rest.split_to(taken));
        Ok(taken)
    }
}

/// The layer's id in `id=ID&parent=PARENT`, which Docker does not escape; the layer knows its parent.
fn layer_of(query: &str) -> Result<&str> {
    let rest = query.strip_prefix("id=").unwrap_or_default();
    match rest.split_once("&parent=").map_or(rest, |(id, _)| id) {
        "" => {
            let reason = "no id in the query";
            Err(Error::refused("apply to layer", query, reason, ErrorKind::InvalidArgument))
        }
        id => Ok(id),
    }
}

fn on_a_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> std::result::Result<(), Failure> {
    std::thread::Builder::new()
        .name(format!("docker-{name}"))
        .spawn(work)
        .map(drop)
        .map_err(|error| Error::sys("start a thread", "", error).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_taken_as_it_is() {
        let cases = [
            ("id=a&parent=b", "a"),
            ("id=a&parent=", "a"),
            ("id=a", "a"),
            ("id=a%2Fb/c&parent=d%20e", "a%2Fb/c"),
        ];
        for (query, id) in cases {
            assert_eq!(layer_of(query).expect(query), id, "{query}");
        }
        for query in ["", "id=", "parent=b", "id=&parent=b", "ID=a"] {
            assert!(layer_of(query).is_err(), "{query:?} was accepted");
        }
    }
}
