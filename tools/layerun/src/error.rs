//! What can go wrong, and which exit code it becomes.

use std::io;
use std::path::PathBuf;

use layerd_api::client::ClientError;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The exit code when the runtime itself failed (docker's, and those below too).
pub const EXIT_RUNTIME: i32 = 125;
/// The exit code when the program is there but cannot be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// The exit code when the program does not exist.
pub const EXIT_NOT_FOUND: i32 = 127;

/// Why a container could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the container asks for something that is malformed or not offered.
    #[error("container {field} {value:?}: {reason}")]
    Invalid {
        /// The field of the container's description.
        field: &'static str,
        /// Its value.
        value: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A user or group is not in the container's own files.
    #[error("unable to find {kind} {name}: no matching entries in {file} file")]
    NoSuchUser {
        /// `user` or `group`.
        kind: &'static str,
        /// The name that was looked up.
        name: String,
        /// `passwd` or `group`.
        file: &'static str,
    },
    /// A system call on a path failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A system call that concerns no path failed.
    #[error("{operation}: {source}")]
    System {
        /// What was done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The root file system could not be mounted.
    #[error("mount {fstype} from {origin:?} on {}: {reason}", target.display())]
    Mount {
        /// The file system's type.
        fstype: String,
        /// The source.
        origin: String,
        /// The mount point.
        target: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// A resource limit was asked for on a machine that cannot set it.
    #[error("cannot limit {resource}: {reason}")]
    NoLimit {
        /// `memory`, `cpus` or `pids`.
        resource: &'static str,
        /// What is missing.
        reason: String,
    },
    /// A container of this id runs already.
    #[error("container {id} is already running")]
    Running {
        /// The container.
        id: String,
    },
    /// The program does not exist, or cannot be executed; the message is docker's.
    #[error("{message}")]
    Exec {
        /// [`EXIT_NOT_FOUND`] or [`EXIT_NOT_EXECUTABLE`].
        code: i32,
        /// What is wrong with the program.
        message: String,
    },
    /// A runtime description could not be written or read.
    #[error("{operation} {}: {source}", path.display())]
    Json {
        /// What was done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The OCI description could not be built: a defect of this crate.
    #[error("build the runtime description: {0}")]
    Spec(#[from] oci_spec::OciSpecError),
    /// The container library failed.
    #[error("{operation} container {id}: {reason}")]
    Container {
        /// `create` or `start`.
        operation: &'static str,
        /// The container.
        id: String,
        /// The library's whole chain of reasons.
        reason: String,
    },
    /// The daemon refused, or cannot be talked to.
    #[error(transparent)]
    Daemon(#[from] ClientError),
}

impl Error {
    /// The exit code that tells a caller of this failure.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exec { code, .. } => *code,
            _ => EXIT_RUNTIME,
        }
    }

    pub(crate) fn invalid(
        field: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Invalid { field, value: value.into(), reason: reason.into() }
    }

    /// For `map_err`: wraps what the system said about `path`.
    pub(crate) fn io<E: Into<io::Error>>(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source: source.into() }
    }

    /// For `map_err`: wraps what the system said.
    pub(crate) fn system<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { operation, source: source.into() }
    }
}
