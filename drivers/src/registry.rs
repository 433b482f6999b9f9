//! Which drivers there are, and which of them works here.

use std::path::Path;

use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::{btrfs, devicemapper, fuse, overlay2, vfs};

/// All drivers.
pub const NAMES: [&str; 5] =
    [overlay2::NAME, btrfs::NAME, devicemapper::NAME, fuse::NAME, vfs::NAME];

/// The drivers that need nothing to be set up, in the order in which [`probe`] tries them: the one
/// that copies everything is last.
const PROBED: [&str; 4] = [overlay2::NAME, btrfs::NAME, fuse::NAME, vfs::NAME];

/// Opens a driver on its home, which is made if it is not there.
///
/// `options` are `name=value` as `--storage-opt` takes them; a name may have the driver's prefix
/// (`overlay2.size`). Options with another driver's prefix are passed over, so that one list serves
/// all drivers of a daemon. The caller runs [`Driver::repair`] before anything else.
///
/// # Errors
/// `InvalidArgument` for an unknown driver or option, by its name and with those that are known;
/// `Unsupported` with the reason when the driver does not work here; `InUse` when another process
/// has the home open.
pub fn open<S: AsRef<str>>(name: &str, home: &Path, options: &[S]) -> Result<Box<dyn Driver>> {
    match name {
        overlay2::NAME => Ok(Box::new(overlay2::open(home, options)?)),
        btrfs::NAME => Ok(Box::new(btrfs::Btrfs::open(home, options)?)),
        devicemapper::NAME => Ok(Box::new(devicemapper::DeviceMapper::open(home, options)?)),
        fuse::NAME => Ok(Box::new(fuse::open(home, options)?)),
        vfs::NAME => Ok(Box::new(vfs::Vfs::open(home, options)?)),
        _ => Err(Error::Driver {
            driver: "drivers",
            op: "open",
            reason: format!("unknown driver {name:?}; known drivers: {}", NAMES.join(", ")).into(),
            kind: ErrorKind::InvalidArgument,
        }),
    }
}

/// The driver to use when nobody chose one, for homes in `root`.
///
/// A driver that has a home in `root` already is preferred, so that its layers do not vanish; then
/// the first that works. It leaves nothing in `root`. devicemapper, which needs a pool, is used by
/// those who chose it once.
///
/// # Errors
/// When no driver works here, not even with full copies: the reason of the last one.
pub fn probe(root: &Path) -> Result<&'static str> {
    let mut order = PROBED.to_vec();
    order.sort_by_key(|name| !root.join(name).join("format.json").exists());
    let mut outcome = Ok(vfs::NAME);
    for name in order {
        let works = match name {
            overlay2::NAME => overlay2::probe(root),
            btrfs::NAME => btrfs::Btrfs::probe(root),
            fuse::NAME => fuse::probe(root),
            _ => vfs::Vfs::probe(root),
        };
        match works {
            Ok(()) => return Ok(name),
            Err(error) => {
                tracing::info!(driver = name, %error, "driver does not work here");
                outcome = Err(error);
            }
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_driver_is_refused_with_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let error = open::<&str>("aufs", dir.path(), &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        for name in NAMES {
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn probing_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let name = probe(dir.path()).unwrap();
        assert!(NAMES.contains(&name), "{name}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something is left");
    }

    #[test]
    fn a_driver_with_layers_is_preferred() {
        let dir = tempfile::tempdir().unwrap();
        drop(open::<&str>("vfs", &dir.path().join("vfs"), &[]).unwrap());
        assert_eq!(probe(dir.path()).unwrap(), "vfs");
    }
}
