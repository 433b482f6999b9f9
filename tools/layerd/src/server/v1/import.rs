//! `POST /v1/images/import`: a stream of events, one JSON object a line.
//!
//! The status waits for the first event, so that a source which is no archive is a plain error.
//! An import never waits for its client: events that say how far a layer has come are dropped when
//! the client does not read them, and an import whose client has gone away is finished.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;
use layerd_api::{ImportEvent, ImportRequest};
use tokio::sync::mpsc;

use super::super::App;
use super::super::error::{ApiError, ApiResult};
use super::super::extract::Json;
use super::images::summary;
use crate::error::ErrorKind;
use crate::import::{ImportOptions, ImportProgress, LayerState};
use crate::store::Store;

/// Progress that may wait for the client; what is more is dropped.
const PROGRESS: usize = 64;

pub(super) async fn import(
    State(app): State<App>,
    Json(request): Json<ImportRequest>,
) -> ApiResult<Response> {
    let path = PathBuf::from(&request.path);
    if !path.is_absolute() {
        let message = format!("the field path is not absolute: {:?}", request.path);
        return Err(ApiError::new(ErrorKind::InvalidArgument, message));
    }
    let permit = Arc::clone(&app.imports).acquire_owned().await;
    let (events, mut receiver) = Events::new();
    let store = Arc::clone(&app.store);
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work(&store, &path, request, &events);
    });
    let Some(first) = receiver.next().await else {
        // The task ended without a word: it panicked.
        let outcome = work.await;
        tracing::error!(?outcome, "an import failed");
        return Err(ApiError::new(ErrorKind::Io, "the import failed: see the daemon's log"));
    };
    if let Event::Failed(error) = first {
        return Err(error);
    }
    let body = Body::new(Lines { first: Some(first), receiver });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn work(store: &Store, path: &std::path::Path, request: ImportRequest, events: &Events) {
    let options =
        ImportOptions { name: request.name, driver: request.driver, platform: request.platform };
    match store.import(path, &options, &|progress| events.progress(progress)) {
        Ok(images) => {
            for imported in images {
                let image = summary(&imported.image);
                events.last(Event::Line(ImportEvent::Done {
                    image,
                    new_layers: imported.new_layers,
                }));
            }
        }
        Err(error) => events.last(Event::Failed(error.into())),
    }
}

enum Event {
    Line(ImportEvent),
    Failed(ApiError),
}

/// The import's end of the stream: progress with a bound, and the outcome, which is short and
/// always kept.
struct Events {
    progress: mpsc::Sender<ImportEvent>,
    outcome: mpsc::UnboundedSender<Event>,
}

/// The client's end.
struct Receiver {
    progress: mpsc::Receiver<ImportEvent>,
    outcome: mpsc::UnboundedReceiver<Event>,
}

impl Events {
    fn new() -> (Self, Receiver) {
        let (progress, progress_receiver) = mpsc::channel(PROGRESS);
        let (outcome, outcome_receiver) = mpsc::unbounded_channel();
        let receiver = Receiver { progress: progress_receiver, outcome: outcome_receiver };
        (Self { progress, outcome }, receiver)
    }

    fn progress(&self, progress: ImportProgress) {
        // Full or closed: the client does not read, or is gone.
        drop(self.progress.try_send(event(progress)));
    }

    fn last(&self, event: Event) {
        // Closed: the client is gone.
        drop(self.outcome.send(event));
    }
}

impl Receiver {
    async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Progress first: the outcome comes after all of it.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Poll::Ready(Some(event)) = self.progress.poll_recv(context) {
            return Poll::Ready(Some(Event::Line(event)));
        }
        self.outcome.poll_recv(context)
    }
}

/// The answer's body.
struct Lines {
    first: Option<Event>,
    receiver: Receiver,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, serde_json::Error>>> {
        let event = match self.first.take() {
            Some(event) => Some(event),
            None => match self.receiver.poll_next(context) {
                Poll::Ready(event) => event,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(event.map(|event| line(event).map(Frame::data)))
    }
}

fn line(event: Event) -> Result<Bytes, serde_json::Error> {
    let event = match event {
        Event::Line(event) => event,
        Event::Failed(error) => ImportEvent::Error(error.into_body()),
    };
    let mut line = serde_json::to_vec(&event)?;
    line.push(b'\n');
    Ok(line.into())
}

fn event(progress: ImportProgress) -> ImportEvent {
    match progress {
        ImportProgress::Image { id, names, layers } => {
            ImportEvent::Image { id: id.to_string(), names, layers }
        }
        ImportProgress::Layer { index, diff_id, read, total, state } => ImportEvent::Layer {
            index,
            diff_id: diff_id.map(|diff_id| diff_id.to_string()),
            read,
            total,
            state: match state {
                LayerState::Exists => "exists",
                LayerState::Applying => "applying",
                LayerState::Done => "done",
            }
            .to_owned(),
        },
    }
}
