//! What can go wrong before a mount serves: everything later is an errno to the caller.

use std::io;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a mount could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or the combination of options makes no sense.
    #[error("option {reason}")]
    Option {
        /// What is wrong with it.
        reason: String,
    },
    /// An option is not known.
    #[error("unknown option {name}; known are:\n{known}")]
    UnknownOption {
        /// What was typed.
        name: String,
        /// Every option with its meaning, one a line.
        known: String,
    },
    /// A system call on a layer, the work directory or the mount point failed.
    #[error("{op} {}: {source}", path.display())]
    Sys {
        /// The operation in the words of the manual.
        op: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something on disk or in the kernel is not as a mount needs it.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// What was refused.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// Refuses an option.
    pub fn option(reason: impl Into<String>) -> Self {
        Self::Option { reason: reason.into() }
    }

    /// Refuses an option that is not known, and lists those that are.
    pub fn unknown_option(name: &str) -> Self {
        let lines = crate::options::KNOWN.iter();
        let lines: Vec<_> = lines.map(|(name, what)| format!("  {name:<36} {what}")).collect();
        Self::UnknownOption { name: name.to_owned(), known: lines.join("\n") }
    }

    /// Wraps a failed system call.
    pub fn sys(op: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self::Sys { op, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Refuses what was found.
    pub fn refused(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Refused { path: path.as_ref().to_owned(), reason: reason.into() }
    }
}
