//! The drivers of a store: opened by name on first use, many side by side.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drivers::{Driver, NAMES};

use crate::error::{Error, ErrorKind, Result};
use crate::root::Root;

/// How a driver is opened: its name, its home, and the daemon's storage options.
pub type Opener = dyn Fn(&str, &Path, &[String]) -> drivers::Result<Arc<dyn Driver>> + Send + Sync;

/// The open drivers.
pub(crate) struct Backends {
    opener: Box<Opener>,
    open: Mutex<BTreeMap<String, Arc<dyn Driver>>>,
}

impl Backends {
    pub(crate) fn new(opener: Box<Opener>) -> Self {
        Self { opener, open: Mutex::default() }
    }

    /// The open drivers, for as long as the guard is held; opening one goes through it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<dyn Driver>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a driver anew and lets it clear away what a crash left.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no driver, else what the driver says.
    pub(crate) fn open(&self, root: &Root, name: &str, opts: &[String]) -> Result<Arc<dyn Driver>> {
        if !NAMES.contains(&name) {
            let reason = format!("no such driver; there are {}", NAMES.join(", "));
            let kind = ErrorKind::InvalidArgument;
            return Err(Error::refused("open driver", name, reason, kind));
        }
        let home = root.path().join(name);
        (self.opener)(name, &home, opts).map_err(|e| Error::driver("open driver", e))
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").field("open", &self.lock().keys()).finish_non_exhaustive()
    }
}

/// The drivers that have a home in the root.
pub(crate) fn with_state(root: &Root) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for name in NAMES {
        if root.has_home(name)? {
            found.push(name);
        }
    }
    Ok(found)
}

/// Which driver is meant where none is named: the configured one, the one that was it before, or
/// the only one with state. None leaves it to probing; nothing is ever guessed among several.
///
/// # Errors
/// `FailedPrecondition` when several drivers have state and nothing says which one is meant.
pub(crate) fn default_driver(root: &Root, configured: Option<&str>) -> Result<Option<String>> {
    if let Some(name) = configured.or(root.format().default_driver.as_deref()) {
        return Ok(Some(name.to_owned()));
    }
    match with_state(root)?.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some((*only).to_owned())),
        several => {
            let reason = format!(
                "{} all have layers here; say which is the default with --driver",
                several.join(", ")
            );
            let what = root.path().display().to_string();
            let kind = ErrorKind::FailedPrecondition;
            Err(Error::refused("choose driver", what, reason, kind))
        }
    }
}
