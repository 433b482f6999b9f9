//! Answers that are written as they are made.
//!
//! The writing runs on a thread of its own, not in the pool of the other calls: its pace is the
//! client's, and a client that stalls must not hold what others need. One that takes nothing for too
//! long is given up.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::Frame;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::error::{Error, Result};

/// How long a client may neither send nor take a byte.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes that become one chunk.
const CHUNK: usize = 64 << 10;
/// Chunks on their way to the network.
const DEPTH: usize = 2;

/// A body of what `work` writes.
///
/// Waits for the first chunk, so that an error before it is an error; after it the connection is
/// broken off, which clients take for one.
pub(super) async fn body(
    thread: &str,
    work: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static,
) -> Result<Body> {
    let (sender, mut chunks) = mpsc::channel(DEPTH);
    let runtime = Handle::current();
    let run = move || {
        let mut out = Chunks { sender, buffer: Vec::with_capacity(CHUNK), runtime };
        let outcome = work(&mut out)
            .and_then(|()| out.end().map_err(|error| Error::sys("send answer", "", error)));
        if let Err(error) = outcome {
            // Full or closed: the client stalls or is gone, and what it has had does not end well.
            drop(out.sender.try_send(Err(error)));
        }
    };
    let started = std::thread::Builder::new().name(thread.to_owned()).spawn(run);
    started.map_err(|error| Error::sys("start a thread", "", error))?;
    let first = chunks.recv().await.unwrap_or_else(|| Err(broken_off()))?;
    Ok(Body::new(Written { first: Some(first), chunks }))
}

/// A writer whose chunks go to the client.
struct Chunks {
    sender: mpsc::Sender<Result<Bytes>>,
    buffer: Vec<u8>,
    runtime: Handle,
}

impl Chunks {
    /// Sends what is left, and an empty chunk: without one the answer has not come to its end.
    fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        self.send(Ok(Bytes::new()))
    }

    /// Waits until the client has taken what is before this chunk, but not for ever.
    fn send(&self, chunk: Result<Bytes>) -> io::Result<()> {
        let chunk = match self.sender.try_send(chunk) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(gone()),
            Err(TrySendError::Full(chunk)) => chunk,
        };
        let sent = async { tokio::time::timeout(PATIENCE, self.sender.send(chunk)).await };
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(stalls()),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")
}

fn broken_off() -> Error {
    Error::sys("send answer", "", io::Error::from(io::ErrorKind::UnexpectedEof))
}

/// The error of a client that neither sends nor takes anything.
pub(super) fn stalls() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client stalls")
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.send(Ok(chunk.into()))
    }
}

struct Written {
    first: Option<Bytes>,
    chunks: mpsc::Receiver<Result<Bytes>>,
}

impl hyper::body::Body for Written {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let chunk = match self.first.take() {
            Some(first) => Ok(first),
            None => match self.chunks.poll_recv(context) {
                Poll::Ready(chunk) => chunk.unwrap_or_else(|| Err(broken_off())),
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(match chunk {
            Ok(end) if end.is_empty() => None,
            other => Some(other.map(Frame::data)),
        })
    }
}
