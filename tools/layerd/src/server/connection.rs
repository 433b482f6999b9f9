//! Connections, and what one client may take of the daemon.
//!
//! | bound | value |
//! | --- | --- |
//! | connections at once | 1,024, or what file descriptors are left for; see below |
//! | a connection's first request, and each HTTP/1 head | whole within 30 s |
//! | an HTTP/1 head | 64 KiB |
//! | an HTTP/2 header list | 16 KiB |
//! | requests at once on one HTTP/2 connection | 128 |
//! | a request's body | see `extract` and `leftover` |
//! | calls of the store at once | see `server` |
//! | layer tars at once | see `docker::streams` |
//!
//! A client that comes when all connections are taken gets the place of the one that has been idle the
//! longest, or waits while none is idle. The daemon raises its soft limit of file descriptors to the
//! hard one and keeps 256 for its own work; should the system refuse one to accept(2) all the same, 32
//! idle connections are closed and it is tried again.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service as _;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::crowd::{Crowd, Member, UnderWay};
use super::leftover;
use super::listen::Listener;

const CONNECTIONS: usize = 1024;
/// File descriptors that connections leave to the rest of the daemon.
const RESERVED: u64 = 256;
/// Connections that are served however few file descriptors there are.
const LEAST: usize = 16;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const HTTP1_HEAD: usize = 64 << 10;
const HTTP2_HEADERS: u32 = 16 << 10;
const HTTP2_STREAMS: u32 = 128;
/// After an accept(2) that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Idle connections that are closed then.
const ACCEPT_ROOM: usize = 32;
/// How often it is looked whether one of the connections has become idle, when there is no room.
const ROOM_PAUSE: Duration = Duration::from_millis(50);
/// How long an idle client may take to answer that it was told to go.
const FAREWELL: Duration = Duration::from_secs(2);

/// What all connections share.
pub(super) struct Connections {
    router: Router,
    builder: auto::Builder<TokioExecutor>,
    limit: usize,
    free: Arc<Semaphore>,
    crowd: Arc<Crowd>,
}

impl Connections {
    pub(super) fn new(crowd: Arc<Crowd>, router: Router) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HTTP1_HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS)
            .max_header_list_size(HTTP2_HEADERS);
        let limit = limit(raise_fd_limit());
        tracing::debug!(limit, "connections");
        let free = Arc::new(Semaphore::new(limit));
        Self { router, builder, limit, free, crowd }
    }

    /// Accepts connections for as long as it is polled; each is served by a task of its own.
    pub(super) async fn accept(&self, listener: &Listener) {
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    let permit = self.room().await;
                    self.serve(stream, permit);
                }
                Err(error) if is_clients_fault(&error) => {}
                Err(error) => {
                    let closed = self.crowd.dismiss_idle(ACCEPT_ROOM);
                    tracing::warn!(%error, closed, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Tells all connections to go, and returns when they have finished their requests.
    pub(super) async fn finish(&self) {
        self.crowd.dismiss_all();
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        drop(self.free.acquire_many(all).await);
    }

    /// Waits for room for one more connection. Of those that are idle one makes room.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        self.crowd.dismiss_idle(1);
        loop {
            tokio::select! {
                permit = Arc::clone(&self.free).acquire_owned() => return permit.ok(),
                () = tokio::time::sleep(ROOM_PAUSE) => drop(self.crowd.dismiss_idle(1)),
            }
        }
    }

    fn serve(&self, stream: UnixStream, permit: Option<OwnedSemaphorePermit>) {
        let peer = match stream.peer_cred() {
            Ok(peer) => peer,
            Err(error) => return tracing::warn!(%error, "a client without credentials"),
        };
        let membership = self.crowd.join();
        let service = service(self.router.clone(), peer, Arc::clone(&membership.member));
        let connection = self
            .builder
            .serve_connection(TokioIo::new(stream), hyper::service::service_fn(service))
            .into_owned();
        tokio::spawn(async move {
            let _permit = permit;
            let member = &membership.member;
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = silence(member) => Err("no request came".into()),
                () = member.told() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = farewell(member) => Err("it did not go when it was told to".into()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(uid = peer.uid(), pid = peer.pid(), %error, "connection");
            }
        });
    }
}

/// Raises the soft limit of file descriptors to the hard one, and gives what is then the limit.
fn raise_fd_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(errno) => tracing::debug!(%errno, "the limit of file descriptors stays"),
        }
    }
    limit.current
}

/// How many connections a limit of file descriptors has room for.
fn limit(fds: Option<u64>) -> usize {
    let room = fds.map_or(CONNECTIONS, |fds| {
        usize::try_from(fds.saturating_sub(RESERVED)).unwrap_or(CONNECTIONS)
    });
    room.clamp(LEAST, CONNECTIONS)
}

/// The router behind a note of who asks: the socket's mode says who may.
fn service(
    router: Router,
    peer: UCred,
    member: Arc<Member>,
) -> impl Fn(Request<Incoming>) -> Answer {
    let router = TowerToHyperService::new(router);
    move |request| {
        tracing::debug!(
            uid = peer.uid(),
            pid = peer.pid(),
            method = %request.method(),
            path = request.uri().path(),
            "request"
        );
        let under_way = member.request();
        let (request, leftover) = leftover::lend(request);
        let answer = router.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            if !leftover.read().await {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(until_sent(answer, under_way))
        })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Has a request be under way until its answer is sent, where that may take a while.
fn until_sent(answer: Response<Body>, under_way: UnderWay) -> Response<Body> {
    if answer.body().size_hint().exact().is_some() {
        return answer;
    }
    answer.map(|body| Body::new(Sent { body, _under_way: under_way }))
}

/// An answer's body with the note that it is not sent yet.
struct Sent {
    body: Body,
    _under_way: UnderWay,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Ends when the first request is overdue; a connection that had one is under HTTP's own timeouts.
async fn silence(member: &Member) {
    tokio::time::sleep(HEAD_TIMEOUT).await;
    if member.was_heard() {
        std::future::pending::<()>().await;
    }
}

/// Ends when a connection that was told to go has had its time, and has no request under way.
async fn farewell(member: &Member) {
    loop {
        tokio::time::sleep(FAREWELL).await;
        if member.is_quiet() {
            return;
        }
    }
}

fn is_clients_fault(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_file_descriptors_for_the_work() {
        for (fds, expected) in [
            (None, CONNECTIONS),
            (Some(1 << 20), CONNECTIONS),
            (Some(1024), 768),
            (Some(300), 44),
            (Some(100), LEAST),
            (Some(0), LEAST),
        ] {
            assert_eq!(limit(fds), expected, "{fds:?} descriptors");
        }
    }
}
