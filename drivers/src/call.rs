//! Who is working on what: the context that every error of a driver carries.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind};
use crate::id::LayerId;

/// One call of the contract on one layer, for its errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// The driver's name.
    pub(crate) driver: &'static str,
    /// The operation of the contract.
    pub(crate) op: &'static str,
    /// The layer worked on.
    pub(crate) layer: &'a LayerId,
}

impl Call<'_> {
    /// A failed step of the layer mechanics.
    pub(crate) fn failed(&self, source: cow::Error) -> Error {
        Error::Layer { driver: self.driver, op: self.op, layer: self.layer.clone(), source }
    }

    /// A failed system call on `path` of the layer.
    pub(crate) fn sys(
        &self,
        step: &'static str,
        path: impl AsRef<Path>,
        source: impl Into<io::Error>,
    ) -> Error {
        self.failed(cow::Error::sys(step, path, source))
    }

    /// A refusal.
    pub(crate) fn refused(&self, kind: ErrorKind, reason: impl Into<Cow<'static, str>>) -> Error {
        Error::State {
            driver: self.driver,
            op: self.op,
            layer: self.layer.clone(),
            reason: reason.into(),
            kind,
        }
    }

    /// Refuses because no such layer exists.
    pub(crate) fn not_found(&self) -> Error {
        self.refused(ErrorKind::NotFound, "no such layer")
    }
}

/// One call on a driver as a whole, for its errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HomeCall {
    /// The driver's name.
    pub(crate) driver: &'static str,
    /// The operation.
    pub(crate) op: &'static str,
}

impl HomeCall {
    /// A failed step of the layer mechanics.
    pub(crate) fn failed(&self, source: cow::Error) -> Error {
        Error::Home { driver: self.driver, op: self.op, source }
    }

    /// A failed system call on `path` of the home.
    pub(crate) fn sys(
        &self,
        step: &'static str,
        path: impl AsRef<Path>,
        source: impl Into<io::Error>,
    ) -> Error {
        self.failed(cow::Error::sys(step, path, source))
    }

    /// A refusal.
    pub(crate) fn refused(&self, kind: ErrorKind, reason: impl Into<Cow<'static, str>>) -> Error {
        Error::Driver { driver: self.driver, op: self.op, reason: reason.into(), kind }
    }
}
