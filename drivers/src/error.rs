//! The error of the drivers: which driver, which operation, which layer, and why.

use std::borrow::Cow;

pub use cow::ErrorKind;

use crate::id::LayerId;

/// A result of a driver.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in a driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The layer mechanics failed on a layer's files.
    #[error("{driver}: {op} layer {layer}: {source}")]
    Layer {
        /// The driver's name.
        driver: &'static str,
        /// The operation of the contract ("create", "apply", "diff").
        op: &'static str,
        /// The layer worked on.
        layer: LayerId,
        /// The failed step, with its path.
        source: cow::Error,
    },
    /// The request was refused because of a layer's state.
    #[error("{driver}: {op} layer {layer}: {reason}")]
    State {
        /// The driver's name.
        driver: &'static str,
        /// The operation of the contract.
        op: &'static str,
        /// The layer worked on.
        layer: LayerId,
        /// Why, for a person.
        reason: Cow<'static, str>,
        /// Which kind this counts as.
        kind: ErrorKind,
    },
    /// The driver as a whole cannot do it: probing, options, its home.
    #[error("{driver}: {op}: {reason}")]
    Driver {
        /// The driver's name.
        driver: &'static str,
        /// The operation ("open", "parse option").
        op: &'static str,
        /// Why, for a person.
        reason: Cow<'static, str>,
        /// Which kind this counts as.
        kind: ErrorKind,
    },
    /// The layer mechanics failed on the driver's home.
    #[error("{driver}: {op}: {source}")]
    Home {
        /// The driver's name.
        driver: &'static str,
        /// The operation.
        op: &'static str,
        /// The failed step, with its path.
        source: cow::Error,
    },
}

impl Error {
    /// The kind that an edge maps.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Layer { source, .. } | Self::Home { source, .. } => source.kind(),
            Self::State { kind, .. } | Self::Driver { kind, .. } => *kind,
        }
    }

    /// Whether the layer must be applied again on top of its parents (see [`cow::Error::NeedsLower`]).
    pub fn needs_lower(&self) -> bool {
        matches!(self, Self::Layer { source: cow::Error::NeedsLower { .. }, .. })
    }
}
