//! What can go wrong between a client and its daemon.

use std::io;
use std::path::{Path, PathBuf};

use crate::client::unix::ConnectFailure;

/// A result of the client.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why a request has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The daemon refused or failed the request.
    #[error("{message}")]
    Remote {
        /// The kind as [`crate::ErrorBody::kind`] spells it.
        kind: String,
        /// What failed, for a person.
        message: String,
    },
    /// Nothing listens on the socket, or there is none.
    #[error("no layerd listens on {}: {source}", socket.display())]
    NotRunning {
        /// The socket's path.
        socket: PathBuf,
        /// `ENOENT` or `ECONNREFUSED`.
        source: io::Error,
    },
    /// The socket cannot be connected to for another reason, most often permission.
    #[error("connect to layerd on {}: {source}", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or what came over it is not HTTP.
    #[error("talk to layerd on {}: {source}", socket.display())]
    Transport {
        /// The socket's path.
        socket: PathBuf,
        /// What broke.
        source: Box<ureq::Error>,
    },
    /// The answer is not what the route promises, as from a daemon of another kind.
    #[error(
        "unexpected {what} of layerd on {}{}",
        socket.display(),
        source.as_ref().map(|e| format!(": {e}")).unwrap_or_default()
    )]
    Unexpected {
        /// The socket's path.
        socket: PathBuf,
        /// What was unexpected.
        what: String,
        /// Why it could not be read.
        source: Option<serde_json::Error>,
    },
}

impl ClientError {
    /// The kind of an error that the daemon answered with, as [`crate::ErrorBody::kind`] spells it.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Remote { kind, .. } => Some(kind),
            _ => None,
        }
    }

    /// Whether the daemon said that what was named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == Some("not_found")
    }

    /// Whether no daemon listens.
    pub fn is_not_running(&self) -> bool {
        matches!(self, Self::NotRunning { .. })
    }

    pub(super) fn transport(socket: &Path, error: ureq::Error) -> Self {
        let socket = socket.to_owned();
        match error {
            ureq::Error::Other(inner) => match inner.downcast::<ConnectFailure>() {
                Ok(failure) => Self::connect(socket, failure.0),
                Err(inner) => {
                    Self::Transport { socket, source: Box::new(ureq::Error::Other(inner)) }
                }
            },
            error => Self::Transport { socket, source: Box::new(error) },
        }
    }

    fn connect(socket: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Self::NotRunning { socket, source }
            }
            _ => Self::Connect { socket, source },
        }
    }
}
