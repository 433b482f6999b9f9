//! Connections, and what one client may take of the daemon.
//!
//! | bound | value |
//! | --- | --- |
//! | connections at once | 1,024; more wait in the socket's backlog |
//! | a connection's first request, and each HTTP/1 head | whole within 30 s |
//! | an HTTP/1 head | 64 KiB |
//! | an HTTP/2 header list | 16 KiB |
//! | requests at once on one HTTP/2 connection | 128 |
//! | a request's body | see `extract` |

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::listen::Listener;

const CONNECTIONS: usize = 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const HTTP1_HEAD: usize = 64 << 10;
const HTTP2_HEADERS: u32 = 16 << 10;
const HTTP2_STREAMS: u32 = 128;
/// After an accept(2) that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
pub(super) struct Connections {
    router: Router,
    builder: auto::Builder<TokioExecutor>,
    free: Arc<Semaphore>,
}

impl Connections {
    pub(super) fn new(router: Router) -> Self {
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
        Self { router, builder, free: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// Accepts connections for as long as it is polled; each is served by a task of its own.
    pub(super) async fn accept(&self, listener: &Listener, graceful: &GracefulShutdown) {
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&self.free).acquire_owned().await {
            match listener.accept().await {
                Ok(stream) => self.serve(stream, permit, graceful),
                Err(error) if is_clients_fault(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: UnixStream, permit: OwnedSemaphorePermit, graceful: &GracefulShutdown) {
        let peer = match stream.peer_cred() {
            Ok(peer) => peer,
            Err(error) => return tracing::warn!(%error, "a client without credentials"),
        };
        let heard = Arc::new(AtomicBool::new(false));
        let service = service(self.router.clone(), peer, Arc::clone(&heard));
        let connection = self
            .builder
            .serve_connection(TokioIo::new(stream), hyper::service::service_fn(service))
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _permit = permit;
            let ended = tokio::select! {
                ended = connection => ended,
                () = silence(&heard) => Err("no request came".into()),
            };
            if let Err(error) = ended {
                tracing::debug!(uid = peer.uid(), pid = peer.pid(), %error, "connection");
            }
        });
    }
}

/// The router behind a note of who asks: the socket's mode says who may.
fn service(
    router: Router,
    peer: UCred,
    heard: Arc<AtomicBool>,
) -> impl Fn(Request<Incoming>) -> Answer {
    let router = TowerToHyperService::new(router);
    move |request| {
        heard.store(true, Ordering::Relaxed);
        tracing::debug!(
            uid = peer.uid(),
            pid = peer.pid(),
            method = %request.method(),
            path = request.uri().path(),
            "request"
        );
        Box::pin(router.call(request))
    }
}

type Answer = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Ends when the first request is overdue; a connection that had one is under HTTP's own timeouts.
async fn silence(heard: &AtomicBool) {
    tokio::time::sleep(HEAD_TIMEOUT).await;
    if heard.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn is_clients_fault(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}
