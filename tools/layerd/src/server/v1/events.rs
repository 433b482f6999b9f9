//! `GET /v1/events`: what the store does, as it does it, one JSON object a line.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use layerd_api::{EventLine, EventQuery, Lost};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::App;
use super::super::error::{ApiError, ApiResult};
use super::super::extract::Params;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::events::{Batch, Events, Filter, Reader};
use crate::store::Store;

/// Streams at once; more wait.
pub(in crate::server) const LISTENERS: usize = 128;
/// Chunks that wait for a client; its place in the ring is kept for it, not more.
const DEPTH: usize = 1;
/// Events of one chunk.
const CHUNK: usize = 64;
/// Where a client says which event it has had last, as those of server-sent events do.
const LAST: &str = "last-event-id";

type Chunk = Result<Bytes, serde_json::Error>;

pub(super) async fn stream(
    State(app): State<App>,
    Params(query): Params<EventQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let filter = Filter::parse(&query)?;
    let after = last(&headers)?;
    let place = Arc::clone(&app.listeners).acquire_owned().await;
    // Before the answer begins: what happens from then on is told.
    let reader = app.store.events.reader(filter.since, after);
    let (sender, chunks) = mpsc::channel(DEPTH);
    let store = Arc::clone(&app.store);
    tokio::spawn(async move {
        let _place = place;
        feed(&store, &filter, reader, &sender).await;
    });
    let body = Body::from_stream(ReceiverStream::new(chunks));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn last(headers: &HeaderMap) -> ApiResult<Option<u64>> {
    let Some(value) = headers.get(LAST) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        let message = format!("the header {LAST} is the number of an event, not {value:?}");
        ApiError::new(ErrorKind::InvalidArgument, message)
    })
}

/// Sends events until the client is gone, the time is up or the daemon ends.
async fn feed(store: &Store, filter: &Filter, mut reader: Reader, out: &mpsc::Sender<Chunk>) {
    let up = async {
        match filter.until {
            Some(until) => tokio::time::sleep(left(until)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(up);
    loop {
        if !send_all(&store.events, &mut reader, filter, out).await {
            return;
        }
        tokio::select! {
            more = reader.wait() => if !more { return },
            () = &mut up => {
                // What was told up to now, and nothing of what comes while it is sent.
                send_all(&store.events, &mut reader, filter, out).await;
                return;
            }
            () = out.closed() => return,
        }
    }
}

/// Sends what there is; false when nothing more is wanted.
async fn send_all(
    events: &Events,
    reader: &mut Reader,
    filter: &Filter,
    out: &mpsc::Sender<Chunk>,
) -> bool {
    loop {
        let batch = reader.take(events, CHUNK);
        if batch.events.is_empty() && batch.lost == 0 {
            return true;
        }
        let is_over = batch.events.iter().any(|told| is_after(told.at, filter.until));
        let chunk = lines(batch, filter);
        let failed = chunk.is_err();
        let empty = chunk.as_ref().is_ok_and(Bytes::is_empty);
        if (!empty && out.send(chunk).await.is_err()) || failed || is_over {
            return false;
        }
    }
}

fn lines(batch: Batch, filter: &Filter) -> Chunk {
    let mut lines = Vec::new();
    let mut push = |line: &EventLine| -> Result<(), serde_json::Error> {
        serde_json::to_writer(&mut lines, line)?;
        lines.push(b'\n');
        Ok(())
    };
    if batch.lost > 0 {
        push(&EventLine::Lost(Lost::new(batch.lost)))?;
    }
    for told in batch.events {
        if filter.fits(&told.event) && !is_after(told.at, filter.until) {
            push(&EventLine::Event(told.event.clone()))?;
        }
    }
    Ok(lines.into())
}

fn is_after(at: Timestamp, until: Option<Timestamp>) -> bool {
    until.is_some_and(|until| at > until)
}

/// How long it is until a time.
fn left(until: Timestamp) -> Duration {
    let nanos = until.as_nanos().saturating_sub(Timestamp::now().as_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}
