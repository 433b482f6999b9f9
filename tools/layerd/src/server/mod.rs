//! The socket: one unix socket, HTTP/1.1 and HTTP/2 side by side, every dialect on one router.
//!
//! A request goes `socket -> dialect (wire types end here) -> Store`. The store blocks, so its
//! methods run on a bounded pool of threads; nothing else of a request does, so that a client which
//! stalls in the middle of one holds a connection and nothing more. See `connection` for the bounds.

mod connection;
mod crowd;
mod docker;
mod error;
mod extract;
mod grpc;
mod leftover;
mod listen;
mod observe;
mod plugin;
mod stop;
mod v1;
mod work;
mod written;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::events::{Note, pools};
use crate::store::Store;
use connection::Connections;
use crowd::Crowd;
use listen::Listener;
use plugin::PluginLink;
use stop::Stop;

/// Threads that run the daemon's side of connections; they never block.
const WORKERS: usize = 2;
/// Calls of the store that run at once; more wait their turn. An import has threads of its own, and so
/// have layer tars that a client sends or takes.
const STORE_THREADS: usize = 224;
/// Commits among them, which wait for the disk: together, since one sync serves all who wait for one,
/// and leaving threads to the calls that need no disk.
const COMMITS: usize = 192;
/// How long requests may go on after the daemon was asked to end.
const GRACE: Duration = Duration::from_secs(10);
/// The same for calls of the store, whoever is in a hurry.
const LEAST_GRACE: Duration = Duration::from_secs(1);

/// How the socket is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The path of the unix socket.
    pub socket: PathBuf,
    /// Serve one client process: say `ready` on standard output, and end when standard input does.
    pub private: bool,
    /// Make the socket discoverable by dockerd (see `plugin`).
    pub docker_plugin: bool,
}

/// What every request sees.
#[derive(Clone, Debug)]
pub(crate) struct App {
    store: Arc<Store>,
    /// Imports that run at once.
    imports: Arc<Semaphore>,
    /// Commits that run at once.
    commits: Arc<Semaphore>,
    streams: Arc<docker::Streams>,
    /// Streams of events at once.
    listeners: Arc<Semaphore>,
    crowd: Arc<Crowd>,
}

impl App {
    fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            imports: Arc::new(Semaphore::new(v1::IMPORTS)),
            commits: Arc::new(Semaphore::new(COMMITS)),
            streams: Arc::default(),
            listeners: Arc::new(Semaphore::new(v1::LISTENERS)),
            crowd: Arc::default(),
        }
    }
}

/// Serves the store until SIGTERM or SIGINT, then lets requests finish for a while.
///
/// Removes the socket before it returns. What was not finished by then is like after a crash: the
/// next start clears it away.
///
/// # Errors
/// `InUse` when a daemon listens on the socket already; else what the system said.
pub fn run(store: Arc<Store>, options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(STORE_THREADS)
        .thread_name("layerd")
        .enable_all()
        .build()
        .map_err(|e| Error::sys("start threads", "", e))?;
    let outcome = runtime.block_on(serve(Arc::clone(&store), options));
    // Calls of the store whose clients have gone away may still run. Short ones always end: who has the
    // store last closes it, and would be cut off in the middle of freeing what was removed.
    runtime.shutdown_timeout(outcome.as_ref().copied().unwrap_or_default().max(LEAST_GRACE));
    drop(store);
    outcome.map(drop)
}

/// Serves until the end, and says for how long calls of the store may still go on.
async fn serve(store: Arc<Store>, options: &Options) -> Result<Duration> {
    let mut stop = Stop::new(options.private)?;
    let listener = Listener::bind(&options.socket)?;
    let plugin = options.docker_plugin.then(|| PluginLink::make(&options.socket)).transpose()?;
    tracing::info!(socket = %options.socket.display(), "listening");
    if options.private {
        announce().map_err(|e| Error::sys("write", "standard output", e))?;
    }
    let app = App::new(Arc::clone(&store));
    let connections = Connections::new(Arc::clone(&app.crowd), router(app));
    tokio::select! {
        () = connections.accept(&listener) => {}
        () = pools::watch(Arc::clone(&store)) => {}
        reason = stop.requested() => tracing::info!(reason, "ending"),
    }
    drop(plugin);
    drop(listener);
    store.events.tell(Note::new("daemon", "stop", env!("CARGO_PKG_VERSION")));
    store.events.end();
    let deadline = Instant::now() + GRACE;
    tokio::select! {
        () = connections.finish() => {}
        () = tokio::time::sleep_until(deadline) => tracing::warn!("requests were cut off"),
        reason = stop.requested() => {
            tracing::warn!(reason, "requests were cut off");
            return Ok(Duration::ZERO);
        }
    }
    // A private daemon's one client is gone, and the next one waits for the store.
    Ok(if options.private { Duration::ZERO } else { deadline - Instant::now() })
}

fn announce() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(b"ready\n")?;
    out.flush()
}

fn router(app: App) -> Router {
    Router::new()
        .merge(v1::router())
        .merge(docker::router())
        .merge(grpc::router(&app))
        .fallback(error::unknown_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}
