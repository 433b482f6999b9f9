//! One error type for the crate, and the small set of kinds that every edge of layerd maps once.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an error is, for callers that act on it.
///
/// Each edge maps a kind once: to an errno (layerfs), an HTTP status (the plugin and `/v1/`
/// dialects), a gRPC status (the snapshots dialect) or an exit code (the programs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was named does not exist.
    NotFound,
    /// What was to be made exists already.
    AlreadyExists,
    /// The thing is held by a user: mounted, a parent, locked.
    InUse,
    /// The request makes no sense, whatever the state of the store.
    InvalidArgument,
    /// The request makes sense, but not in the present state (a view cannot be committed).
    FailedPrecondition,
    /// This kernel, file system or driver cannot do it.
    Unsupported,
    /// No space, no inodes or no quota is left.
    NoSpace,
    /// Data read from disk or from a client is damaged, cut off, or not what its digest says.
    Corrupt,
    /// The process lacks the privilege.
    PermissionDenied,
    /// Any other input/output failure.
    Io,
}

impl ErrorKind {
    /// Sorts an operating-system error into a kind.
    pub fn of_io(error: &io::Error) -> Self {
        use rustix::io::Errno;
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT) => Self::NotFound,
            Some(Errno::EXIST) => Self::AlreadyExists,
            Some(Errno::BUSY | Errno::TXTBSY) => Self::InUse,
            Some(
                Errno::INVAL
                | Errno::NAMETOOLONG
                | Errno::LOOP
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::XDEV,
            ) => Self::InvalidArgument,
            Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => Self::Unsupported,
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace,
            Some(Errno::PERM | Errno::ACCESS) => Self::PermissionDenied,
            Some(Errno::UCLEAN | Errno::BADMSG) => Self::Corrupt,
            Some(_) => Self::Io,
            None => match error.kind() {
                io::ErrorKind::NotFound => Self::NotFound,
                io::ErrorKind::AlreadyExists => Self::AlreadyExists,
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Self::Corrupt,
                io::ErrorKind::InvalidInput => Self::InvalidArgument,
                io::ErrorKind::PermissionDenied => Self::PermissionDenied,
                io::ErrorKind::Unsupported => Self::Unsupported,
                _ => Self::Io,
            },
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::InUse => "in use",
            Self::InvalidArgument => "invalid argument",
            Self::FailedPrecondition => "failed precondition",
            Self::Unsupported => "unsupported",
            Self::NoSpace => "no space left",
            Self::Corrupt => "corrupt",
            Self::PermissionDenied => "permission denied",
            Self::Io => "input/output error",
        })
    }
}

/// An error of the layer mechanics: which operation, on which path, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call, or reading or writing a stream, failed.
    #[error("{op} {}: {source}", path.display())]
    Sys {
        /// The operation in the words of the manual ("openat2", "read tar header").
        op: &'static str,
        /// The path below the root that was worked on; empty for the root or a stream.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Input was refused: malformed, hostile, or not possible on this target.
    #[error("{op} {}: {reason}", path.display())]
    Refused {
        /// The operation that refused.
        op: &'static str,
        /// The path, as the input named it.
        path: PathBuf,
        /// Why, for a person.
        reason: Cow<'static, str>,
        /// Which kind this counts as.
        kind: ErrorKind,
    },
    /// What an entry needs is not in this layer, and no lower layer was given to look in: the target
    /// of a hard link, what an opaque root hides, or where a symbolic link on the way leads.
    ///
    /// A caller that applied a layer apart from its parents applies it again on top of them.
    #[error("apply {}: {} is in a lower layer", path.display(), target.display())]
    NeedsLower {
        /// The entry's own path.
        path: PathBuf,
        /// The path that it needs.
        target: PathBuf,
    },
    /// A digest is not the one that was promised.
    #[error("{what}: expected {expected}, found {found}")]
    DigestMismatch {
        /// What was read ("layer diffID", "blob").
        what: Cow<'static, str>,
        /// The promised digest.
        expected: crate::digest::Digest,
        /// The digest of what was read.
        found: crate::digest::Digest,
    },
}

impl Error {
    /// Wraps a failed system call or stream operation.
    pub fn sys(op: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Sys { op, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Refuses input as [`ErrorKind::InvalidArgument`].
    pub fn invalid(
        op: &'static str,
        path: impl AsRef<Path>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::refused(op, path, reason, ErrorKind::InvalidArgument)
    }

    /// Reports damaged data as [`ErrorKind::Corrupt`].
    pub fn corrupt(
        op: &'static str,
        path: impl AsRef<Path>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::refused(op, path, reason, ErrorKind::Corrupt)
    }

    /// Refuses input with a kind of the caller's choice.
    pub fn refused(
        op: &'static str,
        path: impl AsRef<Path>,
        reason: impl Into<Cow<'static, str>>,
        kind: ErrorKind,
    ) -> Self {
        Self::Refused { op, path: path.as_ref().to_owned(), reason: reason.into(), kind }
    }

    /// The kind that an edge maps.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sys { source, .. } => match source.get_ref().and_then(|e| e.downcast_ref()) {
                Some(inner) => Self::kind(inner),
                None => ErrorKind::of_io(source),
            },
            Self::Refused { kind, .. } => *kind,
            Self::NeedsLower { .. } => ErrorKind::FailedPrecondition,
            Self::DigestMismatch { .. } => ErrorKind::Corrupt,
        }
    }
}

/// Carries an [`Error`] through an interface that speaks [`io::Error`], such as [`io::Read`].
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_survives_a_passage_through_io_error() {
        let inner = Error::corrupt("read tar header", "a/b", "bad checksum");
        let outer = Error::sys("read layer", "", io::Error::from(inner));
        assert_eq!(outer.kind(), ErrorKind::Corrupt, "{outer}");
    }

    #[test]
    fn message_names_operation_and_path() {
        let error = Error::sys("mkdirat", "usr/lib", rustix::io::Errno::NOSPC);
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().starts_with("mkdirat usr/lib: "), "{error}");
    }
}
