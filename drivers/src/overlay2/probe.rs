//! What the kernel's overlay can do on this file system, found out by mounting it.

use std::path::Path;

use super::Kernel;
use super::options::{Features, Options, Redirect};
use crate::backing;
use crate::call::HomeCall;
use crate::error::{ErrorKind, Result};
use crate::home::Home;
use crate::overlay::{Trial, in_user_namespace};

/// Feature flags of a home: once layers have been made with one of these, they cannot be read
/// without it.
pub(super) const REDIRECT: &str = "redirect_dir";
/// See [`REDIRECT`].
pub(super) const METACOPY: &str = "metacopy";

/// Decides how this home is mounted.
///
/// # Errors
/// `Unsupported` with the reason when overlay cannot be used here, or an option cannot be honoured.
pub(super) fn probe(call: HomeCall, home: &Home, options: &Options) -> Result<Kernel> {
    let unsupported = |reason: String| call.refused(ErrorKind::Unsupported, reason);
    backing::check_upper(home.root()).map_err(unsupported)?;
    if !backing::has_file_types(home.root()).map_err(|error| call.failed(error))? {
        let fs = backing::name(home.root());
        return Err(unsupported(format!("{fs} gives no file types in directories (d_type)")));
    }
    let userxattr = options.userxattr.unwrap_or_else(in_user_namespace);
    // Layers that were made with it can only be read with it.
    let metacopy = options.metacopy.unwrap_or(false) || home.has_feature(METACOPY);
    let redirect = match options.redirect {
        // The kernel takes metacopy with renamed directories only.
        _ if metacopy => Some(Redirect::On),
        Some(Redirect::Off) if home.has_feature(REDIRECT) => Some(Redirect::Follow),
        Some(redirect) => Some(redirect),
        // The kernel refuses both under userxattr.
        None if userxattr => None,
        None => Some(Redirect::On),
    };
    let features = Features {
        index: options.index.or_else(|| knows("index").then_some(false)),
        metacopy,
        redirect,
        userxattr,
        volatile: options.volatile,
        xino: options.xino.clone(),
        extra: options.extra.clone(),
    };
    let trial = Trial::new(home).map_err(|error| call.failed(error))?;
    let mut kernel = Kernel { features, maps_ids: false };
    let mut outcome = kernel.try_in(&trial);
    if outcome.is_err() && options.redirect.is_none() && !metacopy {
        // A kernel without renamed directories will do; those that exist must be followed.
        kernel.features.redirect = home.has_feature(REDIRECT).then_some(Redirect::Follow);
        outcome = kernel.try_in(&trial);
    }
    outcome.map_err(unsupported)?;
    // Linux 6.15 merges what is seen through a mount that is attached nowhere.
    kernel.maps_ids = match trial.run_mapped(&kernel.volatile()) {
        Ok(()) => true,
        Err(reason) => {
            tracing::debug!(reason, "ids cannot be mapped here");
            false
        }
    };
    let features = &kernel.features;
    if features.redirect == Some(Redirect::On) {
        home.add_feature(REDIRECT)?;
    }
    if features.metacopy {
        home.add_feature(METACOPY)?;
    }
    Ok(kernel)
}

/// Whether the overlay module has a parameter of this name, and therefore the mount option.
fn knows(parameter: &str) -> bool {
    Path::new("/sys/module/overlay/parameters").join(parameter).exists()
}

impl Kernel {
    /// Tries the features, at first as a volatile mount where the kernel has them (Linux 5.10): the end
    /// of any other one waits until all that is written below is on the disk, and every start of a
    /// private daemon would.
    fn try_in(&self, trial: &Trial<'_>) -> std::result::Result<(), String> {
        let renames = self.features.redirect == Some(Redirect::On);
        trial.run(&self.volatile(), renames).or_else(|_| trial.run(self, renames))
    }

    /// The same without a sync at the end of its mounts.
    fn volatile(&self) -> Self {
        let features = Features { volatile: true, ..self.features.clone() };
        Self { features, maps_ids: false }
    }
}
