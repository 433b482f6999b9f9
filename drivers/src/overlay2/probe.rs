//! What the kernel's overlay can do on this file system, found out by mounting it.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use cow::whiteout::XattrSpace;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::options::{Features, Options, Redirect};
use crate::call::HomeCall;
use crate::driver::Mount;
use crate::error::{ErrorKind, Result};
use crate::home::{Home, Scratch, fs};
use crate::{backing, private};

/// Feature flags of a home: once layers have been made with one of these, they cannot be read
/// without it.
pub(super) const REDIRECT: &str = "redirect_dir";
/// See [`REDIRECT`].
pub(super) const METACOPY: &str = "metacopy";

/// Decides how this home is mounted.
///
/// # Errors
/// `Unsupported` with the reason when overlay cannot be used here, or an option cannot be honoured.
pub(super) fn probe(call: HomeCall, home: &Home, options: &Options) -> Result<Features> {
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
    let mut features = Features {
        index: options.index.or_else(|| knows("index").then_some(false)),
        metacopy,
        redirect,
        userxattr,
        volatile: options.volatile,
        xino: options.xino.clone(),
        extra: options.extra.clone(),
    };
    let trial = Trial::new(home).map_err(|error| call.failed(error))?;
    let mut outcome = trial.run(&features);
    if outcome.is_err() && options.redirect.is_none() && !metacopy {
        // A kernel without renamed directories will do; those that exist must be followed.
        features.redirect = home.has_feature(REDIRECT).then_some(Redirect::Follow);
        outcome = trial.run(&features);
    }
    outcome.map_err(unsupported)?;
    if features.redirect == Some(Redirect::On) {
        home.add_feature(REDIRECT)?;
    }
    if features.metacopy {
        home.add_feature(METACOPY)?;
    }
    Ok(features)
}

/// Whether this process is root in a user namespace only, where `trusted.` xattrs are forbidden.
fn in_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    let mut words = map.split_whitespace();
    let whole = words.next() == Some("0")
        && words.next() == Some("0")
        && words.next().and_then(|count| count.parse::<u64>().ok()) >= Some(u64::from(u32::MAX));
    !whole
}

/// Whether the overlay module has a parameter of this name, and therefore the mount option.
fn knows(parameter: &str) -> bool {
    Path::new("/sys/module/overlay/parameters").join(parameter).exists()
}

/// Directories for a trial mount; dropping it removes them.
struct Trial<'a> {
    home: &'a Home,
    scratch: Scratch<'a>,
}

impl<'a> Trial<'a> {
    fn new(home: &'a Home) -> cow::Result<Self> {
        Ok(Self { home, scratch: home.scratch("probe")? })
    }

    /// Mounts two layers with these features and does what containers do, in a fresh directory.
    fn run(&self, features: &Features) -> std::result::Result<(), String> {
        let result = self.try_run(features);
        // The next trial starts anew.
        if let Ok(names) = fs::names(self.scratch.dir()) {
            for name in names {
                let _ = fs::remove_tree(self.scratch.dir(), name);
            }
        }
        result
    }

    fn try_run(&self, features: &Features) -> std::result::Result<(), String> {
        let dir = self.scratch.dir();
        let make = |name| fs::make_dir(dir, name, 0o755).map_err(|error| error.to_string());
        let (lower, upper) = (make("lower")?, make("upper")?);
        make("bottom")?;
        make("work")?;
        fs::write_file(&lower, "file", b"", fs::Durability::Later).map_err(|e| e.to_string())?;
        fs::make_dir(&lower, "dir", 0o755).map_err(|error| error.to_string())?;
        let path = |name: &str| self.short(name).display().to_string();
        let mut options = features.mount_options(true, true);
        options.push(format!("lowerdir={}:{}", path("lower"), path("bottom")));
        options.push(format!("upperdir={}", path("upper")));
        options.push(format!("workdir={}", path("work")));
        let mount = Mount { fstype: "overlay".into(), source: "overlay".into(), options };
        let mount = private::mount(self.home, &mount).map_err(|error| error.to_string())?;
        exercise(features, &mount, &upper)
    }

    /// A short path of something in the trial directory, without characters that need escapes.
    fn short(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.scratch.dir().as_raw_fd())).join(name)
    }
}

/// Removes and replaces what is in the lower layer, and looks for the marks in the upper one.
fn exercise(
    features: &Features,
    mount: &OwnedFd,
    upper: &OwnedFd,
) -> std::result::Result<(), String> {
    let step = |name: &'static str| move |errno: Errno| format!("overlay: {name}: {errno}");
    rustix::fs::unlinkat(mount, "file", AtFlags::empty()).map_err(step("unlink"))?;
    let stat = rustix::fs::statat(upper, "file", AtFlags::SYMLINK_NOFOLLOW)
        .map_err(step("stat of a whiteout"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != 0 {
        return Err("overlay: a removed file leaves no whiteout".to_owned());
    }
    if features.redirect == Some(Redirect::On) {
        rustix::fs::renameat(mount, "dir", mount, "moved").map_err(step("rename directory"))?;
        rustix::fs::renameat(mount, "moved", mount, "dir").map_err(step("rename directory"))?;
    }
    rustix::fs::unlinkat(mount, "dir", AtFlags::REMOVEDIR).map_err(step("rmdir"))?;
    rustix::fs::mkdirat(mount, "dir", Mode::from_raw_mode(0o755)).map_err(step("mkdir"))?;
    let space = if features.userxattr { XattrSpace::User } else { XattrSpace::Trusted };
    let made = fs::open_dir(upper, "dir").map_err(|error| error.to_string())?;
    let opaque =
        cow::whiteout::is_opaque(&made, "dir", space).map_err(|error| error.to_string())?;
    if !opaque {
        let name = space.opaque();
        return Err(format!("overlay: a replaced directory is not marked with {name}"));
    }
    Ok(())
}
