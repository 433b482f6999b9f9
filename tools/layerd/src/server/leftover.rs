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

/// How much is read, in bytes. Who sends more may lose its answer.
const MOST: u64 = 16 << 20;
/// How long is waited for more of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long is waited for all of it.
const LONGEST: Duration = Duration::from_secs(30);

/// A request's body that comes back when its reader is done with it.
pub(super) struct Lent {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
    /// Somebody sends it, unasked or since it was asked for.
    comes: bool,
}

/// Where a body comes back to.
pub(super) struct Leftover(Option<oneshot::Receiver<Incoming>>);

/// Has the rest of a request's body come back. Over HTTP/2 it is no matter: a request ends by itself.
pub(super) fn lend(request: Request<Incoming>) -> (Request<Lent>, Leftover) {
    let matters = request.version() < Version::HTTP_2 && !request.body().is_end_stream();
    let (back, leftover) = matters.then(oneshot::channel).unzip();
    let comes = !request.headers().contains_key(EXPECT);
    (request.map(|body| Lent { body: Some(body), back, comes }), Leftover(leftover))
}

impl Leftover {
    /// Reads what came back, and says whether the connection can be kept. Nothing comes back while
    /// somebody still reads.
    pub(super) async fn read(self) -> bool {
        let Some(mut back) = self.0 else { return true };
        let Ok(body) = back.try_recv() else { return true };
        let read = tokio::time::timeout(LONGEST, read_to_the_end(body)).await;
        read.unwrap_or(false)
    }
}

async fn read_to_the_end(mut body: Incoming) -> bool {
    let mut left = MOST;
    while body.size_hint().lower() <= left {
        match tokio::time::timeout(PATIENCE, next(&mut body)).await {
            Ok(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                left = left.saturating_sub(u64::try_from(length).unwrap_or(left));
            }
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
    false
}

async fn next(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

impl Drop for Lent {
    fn drop(&mut self) {
        let back = self.back.take().filter(|_| self.comes);
        if let (Some(body), Some(back)) = (self.body.take(), back) {
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
        // hyper asks a client that waits for it.
        self.comes = true;
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
