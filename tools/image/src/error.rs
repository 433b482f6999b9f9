//! One error type for the crate: what failed, in which file, at which entry, blob or layer.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cow::ErrorKind;
use cow::digest::Digest;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where in the input something is: a file, and an entry, blob or layer inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The archive or layout directory, as the caller named it.
    pub file: PathBuf,
    /// The entry, blob or layer; empty for the file as a whole.
    pub inner: String,
}

impl Place {
    /// The file as a whole.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self { file: path.as_ref().to_owned(), inner: String::new() }
    }

    /// Something inside the file.
    pub fn inside(path: impl AsRef<Path>, inner: impl Into<String>) -> Self {
        Self { file: path.as_ref().to_owned(), inner: inner.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.display().fmt(f)?;
        if self.inner.is_empty() { Ok(()) } else { write!(f, ": {}", self.inner) }
    }
}

/// An error of reading an image: the operation, the place, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{op} {at}: {source}")]
    Sys {
        /// The operation in the words of the manual ("openat2", "pread").
        op: &'static str,
        /// What was worked on.
        at: Place,
        /// What the system said.
        source: io::Error,
    },
    /// The input was refused: damaged, hostile, or of a kind that is not supported.
    #[error("{op} {at}: {reason}")]
    Refused {
        /// The operation that refused.
        op: &'static str,
        /// What was worked on.
        at: Place,
        /// Why, for a person.
        reason: Cow<'static, str>,
        /// Which kind this counts as.
        kind: ErrorKind,
    },
    /// A JSON document is damaged or lacks what it must have.
    #[error("parse {at}: {source}")]
    Json {
        /// Which document.
        at: Place,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A digest is not the one that was promised.
    #[error("{at}: the {what} should be {expected} but is {found}")]
    DigestMismatch {
        /// What was read.
        at: Place,
        /// Which digest ("blob digest", "diffID").
        what: &'static str,
        /// The promised digest.
        expected: Digest,
        /// The digest of what was read.
        found: Digest,
    },
    /// A string is not a reference of the docker grammar.
    #[error("invalid image name {name:?}: {reason}")]
    Reference {
        /// The string.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A string is not a platform `os/arch[/variant]`.
    #[error("invalid platform {text:?}: {reason}")]
    Platform {
        /// The string.
        text: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

impl Error {
    /// Wraps a failed system call, or hands back the crate's own error that a reader carried.
    pub(crate) fn sys(op: &'static str, at: Place, source: impl Into<io::Error>) -> Self {
        match source.into().downcast::<Self>() {
            Ok(own) => own,
            Err(source) => Self::Sys { op, at, source },
        }
    }

    /// Reports damaged data.
    pub(crate) fn corrupt(
        op: &'static str,
        at: Place,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Refused { op, at, reason: reason.into(), kind: ErrorKind::Corrupt }
    }

    /// Refuses what is well-formed but of a kind that is not supported.
    pub(crate) fn unsupported(
        op: &'static str,
        at: Place,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Refused { op, at, reason: reason.into(), kind: ErrorKind::Unsupported }
    }

    /// Reports that something named does not exist.
    pub(crate) fn missing(
        op: &'static str,
        at: Place,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Refused { op, at, reason: reason.into(), kind: ErrorKind::NotFound }
    }

    /// The kind that an edge maps.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sys { source, .. } => ErrorKind::of_io(source),
            Self::Refused { kind, .. } => *kind,
            Self::Json { .. } | Self::DigestMismatch { .. } => ErrorKind::Corrupt,
            Self::Reference { .. } | Self::Platform { .. } => ErrorKind::InvalidArgument,
        }
    }
}

/// Carries an [`Error`] through [`io::Read`]; [`ErrorKind::of_io`] gives the same kind again.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_survives_a_passage_through_io_error() {
        let at = || Place::inside("a.tar", "layer 3");
        for error in [
            Error::corrupt("read", at(), "cut off"),
            Error::unsupported("read", at(), "xz"),
            Error::missing("read", at(), "no such blob"),
        ] {
            let (kind, text) = (error.kind(), error.to_string());
            let carried = io::Error::from(error);
            assert_eq!(ErrorKind::of_io(&carried), kind, "{text}");
            let back = Error::sys("pread", Place::file("b"), carried);
            assert_eq!(back.to_string(), text, "the inner error is handed back whole");
        }
    }

    #[test]
    fn message_names_operation_file_and_entry() {
        let error = Error::corrupt("read tar", Place::inside("a.tar", "x/layer.tar"), "cut off");
        assert_eq!(error.to_string(), "read tar a.tar: x/layer.tar: cut off");
    }
}
