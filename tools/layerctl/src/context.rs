//! What every command works with: the client and how to print.

use std::cell::OnceCell;
use std::io::{self, BufWriter, StdoutLock};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use layerd_api::{Client, DEFAULT_SOCKET};

use crate::private::PrivateDaemon;

/// The daemon's client, and the private daemon behind it if one had to be started.
#[derive(Debug)]
pub(crate) struct Context {
    /// Speaks to the daemon.
    pub(crate) client: Client,
    /// Whether reports are printed as JSON.
    pub(crate) json: bool,
    /// Ends with the command.
    pub(crate) private: Option<PrivateDaemon>,
}

impl Context {
    /// Chooses the daemon: the one on `socket`; without `socket` the one on the default socket, or
    /// a private one when nothing listens there.
    pub(crate) fn open(socket: Option<PathBuf>, json: bool) -> anyhow::Result<Self> {
        if let Some(socket) = socket {
            return Ok(Self { client: Client::new(socket), json, private: None });
        }
        if listens(Path::new(DEFAULT_SOCKET))? {
            return Ok(Self { client: Client::new(DEFAULT_SOCKET), json, private: None });
        }
        let daemon = PrivateDaemon::start().context("start a private layerd")?;
        Ok(Self { client: Client::new(daemon.socket()), json, private: Some(daemon) })
    }

    /// Standard output, buffered: to be flushed by whoever takes it.
    pub(crate) fn out(&self) -> BufWriter<StdoutLock<'static>> {
        BufWriter::new(io::stdout().lock())
    }
}

/// A command line before it is known whether it needs a daemon: what looks into a file does not.
#[derive(Debug)]
pub(crate) struct Session {
    socket: Option<PathBuf>,
    /// Whether reports are printed as JSON.
    pub(crate) json: bool,
    context: OnceCell<Context>,
}

impl Session {
    /// Notes what was asked for.
    pub(crate) fn new(socket: Option<PathBuf>, json: bool) -> Self {
        Self { socket, json, context: OnceCell::new() }
    }

    /// Another session for another thread; if it is to have a daemon, the one of this session, which
    /// has to outlive it.
    pub(crate) fn for_thread(&self, daemon: bool) -> anyhow::Result<Self> {
        let other = Self::new(self.socket.clone(), self.json);
        if daemon {
            let client = self.context()?.client.clone();
            drop(other.context.set(Context { client, json: self.json, private: None }));
        }
        Ok(other)
    }

    /// The context, which finds or starts the daemon when it is first asked for.
    pub(crate) fn context(&self) -> anyhow::Result<&Context> {
        if self.context.get().is_none() {
            let context = Context::open(self.socket.clone(), self.json)?;
            // Nobody else can have set it meanwhile.
            drop(self.context.set(context));
        }
        self.context.get().context("the daemon's context is not there")
    }

    /// A client of the daemon on the socket, whether it runs or not; none is started.
    pub(crate) fn client_of_daemon(&self) -> Client {
        Client::new(self.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into()))
    }

    /// Standard output, buffered: to be flushed by whoever takes it.
    pub(crate) fn out(&self) -> BufWriter<StdoutLock<'static>> {
        BufWriter::new(io::stdout().lock())
    }
}

fn listens(socket: &Path) -> anyhow::Result<bool> {
    match UnixStream::connect(socket) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(false),
            _ => Err(error).with_context(|| format!("connect to layerd on {}", socket.display())),
        },
    }
}
