//! The error of the store: which operation, on what, and why.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

pub use cow::ErrorKind;
use cow::digest::DiffId;

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A driver failed.
    #[error("{op}: {source}")]
    Driver {
        /// The operation of the store, with what it worked on ("prepare snapshot foo").
        op: Cow<'static, str>,
        /// What the driver said: its operation, layer and path.
        source: drivers::Error,
    },
    /// The catalogue's database failed.
    #[error("catalogue: {source}")]
    Catalogue {
        /// What the database said.
        source: Box<redb::Error>,
    },
    /// A system call on the store's own files failed.
    #[error("{op} {}: {source}", path.display())]
    Sys {
        /// The operation in the words of the manual.
        op: &'static str,
        /// The path, below the root where it is in the root.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A request was refused, or the store's own data is not as it must be.
    #[error("{op} {what}: {reason}")]
    Refused {
        /// The operation ("remove image", "prepare snapshot").
        op: &'static str,
        /// What it was asked to work on, as the client named it.
        what: String,
        /// Why, for a person.
        reason: Cow<'static, str>,
        /// Which kind this counts as.
        kind: ErrorKind,
    },
    /// One layer of an import failed.
    #[error("import {}: layer {index}{}: {source}", file.display(), shown(diff_id.as_ref()))]
    ImportLayer {
        /// The archive or layout directory.
        file: PathBuf,
        /// The layer's place in the image, 0 at the bottom.
        index: usize,
        /// The layer's promised diffID, where there is one.
        diff_id: Option<DiffId>,
        /// What failed.
        source: Box<Error>,
    },
    /// An archive or layout could not be read.
    #[error("{op}: {source}")]
    Image {
        /// The operation of the store.
        op: &'static str,
        /// What was read, with its file, and why it failed.
        source: image::Error,
    },
}

impl Error {
    /// Wraps a failed system call on the store's own files.
    pub fn sys(op: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Sys { op, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Wraps a driver's error with the store's operation.
    pub fn driver(op: impl Into<Cow<'static, str>>, source: drivers::Error) -> Self {
        Self::Driver { op: op.into(), source }
    }

    /// Refuses a request.
    pub fn refused(
        op: &'static str,
        what: impl Into<String>,
        reason: impl Into<Cow<'static, str>>,
        kind: ErrorKind,
    ) -> Self {
        Self::Refused { op, what: what.into(), reason: reason.into(), kind }
    }

    /// Refuses a request for something that does not exist.
    pub fn not_found(op: &'static str, what: impl Into<String>) -> Self {
        Self::refused(op, what, "not found", ErrorKind::NotFound)
    }

    /// The kind that an edge maps.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Driver { source, .. } => source.kind(),
            Self::Catalogue { source } => match &**source {
                redb::Error::Corrupted(_) => ErrorKind::Corrupt,
                redb::Error::Io(error) => ErrorKind::of_io(error),
                redb::Error::DatabaseAlreadyOpen => ErrorKind::InUse,
                _ => ErrorKind::Io,
            },
            Self::Sys { source, .. } => ErrorKind::of_io(source),
            Self::Refused { kind, .. } => *kind,
            Self::ImportLayer { source, .. } => source.kind(),
            Self::Image { source, .. } => source.kind(),
        }
    }
}

fn shown(diff_id: Option<&DiffId>) -> String {
    diff_id.map(|diff_id| format!(" ({diff_id})")).unwrap_or_default()
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Error {
            fn from(error: redb::$error) -> Self {
                Self::Catalogue { source: Box::new(error.into()) }
            }
        }
    )*};
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);
