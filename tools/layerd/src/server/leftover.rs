//! What a handler leaves unread of a request's body.
//!
//! hyper closes an HTTP/1 connection once its request is answered with a part of the body unread. A
//! client that sends head and body by two writes, as ureq does, then finds a broken pipe where the answer
//! is, and one that keeps the connection has to make another. So the rest is read and dropped before
//! the answer goes out, within reason: RFC 9112 section 9.3 has a server read the whole body or close.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::{Request, Version};
use tokio::sync::oneshot;

/// How much is read, in bytes. Who sends more loses its answer.
const MOST: usize = 16 << 20;
/// How long is waited for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request's body that comes back when its reader is done with it.
pub(super) struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// Where a body comes back to.
pub(super) struct Leftover(Option<oneshot::Receiver<Incoming>>);

/// Has the rest of a request's body come back. A client that waits to be asked for the body has sent
/// none, and HTTP/2 ends a request by itself.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Lent>, Leftover) {
    let alone = request.version() < Version::HTTP_2;
    let comes = !request.body().is_end_stream() && !request.headers().contains_key(EXPECT);
    let (back, leftover) = (alone && comes).then(oneshot::channel).unzip();
    (request.map(|body| Lent { body: Some(body), back }), Leftover(leftover))
}

impl Leftover {
    /// Reads what came back to its end. Nothing comes back while somebody still reads.
    pub(super) async fn read(self) {
        let Some(mut back) = self.0 else { return };
        let Ok(mut body) = back.try_recv() else { return };
        let to_the_end = async {
            let mut length = 0;
            while let Some(Ok(frame)) = next(&mut body).await {
                length += frame.data_ref().map_or(0, Bytes::len);
                if length > MOST {
                    break;
                }
            }
        };
        // Out of patience: the connection closes with the answer.
        drop(tokio::time::timeout(PATIENCE, to_the_end).await);
    }
}

async fn next(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits: the connection is gone.
            drop(back.send(body));
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}
