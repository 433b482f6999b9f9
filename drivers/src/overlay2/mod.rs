//! The overlay2 driver: layers merged by the kernel's overlayfs. See [`overlay`](crate::overlay) for
//! what is kept where.

mod options;
mod probe;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cow::whiteout::XattrSpace;

use crate::backend;
use crate::call::{Call, HomeCall};
use crate::driver::Mount;
use crate::error::{ErrorKind, Result};
use crate::home::{self, Home, fs};
use crate::overlay::{Overlay, Stack, Union, WORK};
use crate::private;
use options::{Features, Options};

/// The driver's name.
pub(crate) const NAME: &str = "overlay2";

/// How long a mount waits for directories that another mount has.
const PATIENCE: Duration = Duration::from_millis(500);

/// Opens a home, and finds out by trial mounts how layers are to be mounted in it.
pub(crate) fn open<S: AsRef<str>>(path: &Path, list: &[S]) -> Result<Overlay<Kernel>> {
    let call = HomeCall { driver: NAME, op: "open" };
    let options = Options::parse(call, list)?;
    let home = Home::open(NAME, path, &[probe::REDIRECT, probe::METACOPY])?;
    backend::refuse_size(call, &home, options.size)?;
    let union = probe::probe(call, &home, &options)?;
    if union.features.volatile {
        union.clear_volatile_of_all(&home)?;
    }
    Ok(Overlay { home, union })
}

/// Sees whether the driver works below `dir`, without leaving anything there.
pub(crate) fn probe(dir: &Path) -> Result<()> {
    let call = HomeCall { driver: NAME, op: "probe" };
    home::try_in(call, dir, |home| open::<&str>(home, &[]).map(drop))
}

/// The kernel's overlayfs, as it is mounted in one home.
#[derive(Debug)]
pub(crate) struct Kernel {
    features: Features,
    maps_ids: bool,
}

impl Kernel {
    /// The mount of a stack in the words of mount(8).
    fn describe(&self, stack: &Stack, escape: Escape) -> Mount {
        let writable = stack.upper.is_some();
        let mut options = self.features.mount_options(writable, escape == Escape::Single);
        let path = |name: &PathBuf| stack.base.join(name);
        let lowers: Vec<_> =
            stack.lowers.iter().map(|name| escape_lower(&path(name), escape)).collect();
        options.push(format!("lowerdir={}", lowers.join(":")));
        if let Some((upper, work)) = &stack.upper {
            options.push(format!("upperdir={}", escape_dir(&path(upper), escape)));
            options.push(format!("workdir={}", escape_dir(&path(work), escape)));
        }
        Mount { fstype: "overlay".to_owned(), source: "overlay".into(), options }
    }

    /// After a crash: clears every layer that was mounted then.
    fn clear_volatile_of_all(&self, home: &Home) -> Result<()> {
        for layer in home.layers() {
            if layer.state() == crate::driver::State::Active && layer.mounted().count == 0 {
                self.detached(home.call("open", &layer.id), home)?;
            }
        }
        Ok(())
    }
}

impl Union for Kernel {
    const CLIENT_MOUNTS: bool = true;

    fn marks(&self) -> XattrSpace {
        if self.features.userxattr { XattrSpace::User } else { XattrSpace::Trusted }
    }

    fn volatile(&self) -> bool {
        self.features.volatile
    }

    fn maps_ids(&self) -> bool {
        self.maps_ids
    }

    fn for_clients(&self, stack: &Stack) -> Option<Mount> {
        Some(self.describe(stack, Escape::Joined))
    }

    fn attach(&self, call: Call<'_>, _home: &Home, stack: &Stack, target: &OwnedFd) -> Result<()> {
        let mount = self.describe(stack, Escape::Single);
        let Mount { fstype, source, options } = &mount;
        cow_sys::mount::mount_patiently_at(fstype, source, options, target, PATIENCE)
            .map_err(|error| call.refused(ErrorKind::of_io(error.io()), error.to_string()))
    }

    fn private(&self, home: &Home, stack: &Stack) -> cow::Result<OwnedFd> {
        private::mount(home, &self.describe(stack, Escape::Single))
    }

    /// Removes the mark that a volatile mount leaves and that forbids the next mount. It warns that
    /// the upper directory may be incomplete after a power cut; so may every active layer.
    fn detached(&self, call: Call<'_>, home: &Home) -> Result<()> {
        if !self.features.volatile {
            return Ok(());
        }
        let inner = Path::new(WORK).join("work");
        let Some(name) = inner.to_str() else { return Ok(()) };
        match home.open_in_layer(call.layer, name) {
            Ok(work) => fs::remove_tree(&work, "incompat").map_err(|error| call.failed(error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(call.failed(error)),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![("Using metacopy", self.features.metacopy.to_string())]
    }
}

/// For whom paths are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    /// A client, with one option string for mount(2) that is cut at commas.
    Joined,
    /// The driver itself, with one value at a time.
    Single,
}

/// A path in `lowerdir=`, where a colon separates and a backslash escapes; a comma would end the
/// option (Documentation/filesystems/overlayfs.rst, "Multiple lower layers").
fn escape_lower(path: &Path, escape: Escape) -> String {
    let text = path.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
    if escape == Escape::Joined { text.replace(',', "\\,") } else { text }
}

/// A path in `upperdir=` or `workdir=`.
fn escape_dir(path: &Path, escape: Escape) -> String {
    let text = path.display().to_string();
    if escape == Escape::Joined { text.replace('\\', "\\\\").replace(',', "\\,") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_for_their_reader() {
        let path = Path::new("/a:b,c\\d");
        assert_eq!(escape_lower(path, Escape::Joined), "/a\\:b\\,c\\\\d");
        assert_eq!(escape_lower(path, Escape::Single), "/a\\:b,c\\\\d");
        assert_eq!(escape_dir(path, Escape::Joined), "/a:b\\,c\\\\d");
        assert_eq!(escape_dir(path, Escape::Single), "/a:b,c\\d");
    }
}
