//! Whether a union does here what containers do to it, found out by mounting it.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use cow::whiteout::XattrSpace;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::{Stack, Union};
use crate::home::{self, Home, Scratch, fs};
use crate::id_map::IdMaps;

/// Whether this process is root in a user namespace only, where `trusted.` xattrs are forbidden.
pub(crate) fn in_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    let mut words = map.split_whitespace();
    let whole = words.next() == Some("0")
        && words.next() == Some("0")
        && words.next().and_then(|count| count.parse::<u64>().ok()) >= Some(u64::from(u32::MAX));
    !whole
}

/// Directories for a trial mount; dropping it removes them.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    home: &'a Home,
    scratch: Scratch<'a>,
}

impl<'a> Trial<'a> {
    /// Makes them in the home.
    pub(crate) fn new(home: &'a Home) -> cow::Result<Self> {
        Ok(Self { home, scratch: home.scratch("probe")? })
    }

    /// Mounts two layers and does what containers do, in a fresh directory; with `renames`, renaming
    /// directories of lower layers too.
    pub(crate) fn run(&self, union: &impl Union, renames: bool) -> Result<(), String> {
        self.run_through(union, renames, None)
    }

    /// Does the same to layers that are seen through an id-mapped mount.
    pub(crate) fn run_mapped(&self, union: &impl Union) -> Result<(), String> {
        let maps = IdMaps::trial().map_err(|error| error.to_string())?;
        let mapped =
            home::map_directory(self.scratch.dir(), &maps).map_err(|error| error.to_string())?;
        self.run_through(union, false, Some(&mapped))
    }

    fn run_through(
        &self,
        union: &impl Union,
        renames: bool,
        mapped: Option<&OwnedFd>,
    ) -> Result<(), String> {
        let result = self.try_run(union, renames, mapped);
        // The next trial starts anew.
        if let Ok(names) = fs::names(self.scratch.dir()) {
            for name in names {
                let _ = fs::remove_tree(self.scratch.dir(), name);
            }
        }
        result
    }

    fn try_run(
        &self,
        union: &impl Union,
        renames: bool,
        mapped: Option<&OwnedFd>,
    ) -> Result<(), String> {
        let dir = self.scratch.dir();
        let make = |name| fs::make_dir(dir, name, 0o755).map_err(|error| error.to_string());
        let (lower, upper) = (make("lower")?, make("upper")?);
        make("bottom")?;
        make("work")?;
        fs::write_file(&lower, "file", b"", fs::Durability::Later).map_err(|e| e.to_string())?;
        fs::make_dir(&lower, "dir", 0o755).map_err(|error| error.to_string())?;
        let stack = Stack {
            // A short path without characters that need escapes.
            base: PathBuf::from(format!(
                "/proc/self/fd/{}",
                mapped.map_or(dir.as_raw_fd(), |mapped| mapped.as_raw_fd())
            )),
            lowers: ["lower", "bottom"].map(PathBuf::from).to_vec(),
            upper: Some(("upper".into(), "work".into())),
        };
        let mount = union.private(self.home, &stack).map_err(|error| error.to_string())?;
        exercise(union.marks(), renames, &mount, &upper)
    }
}

/// Removes and replaces what is in the lower layer, and looks for the marks in the upper one.
fn exercise(
    space: XattrSpace,
    renames: bool,
    mount: &OwnedFd,
    upper: &OwnedFd,
) -> Result<(), String> {
    let step = |name: &'static str| move |errno: Errno| format!("overlay: {name}: {errno}");
    rustix::fs::unlinkat(mount, "file", AtFlags::empty()).map_err(step("unlink"))?;
    let stat = rustix::fs::statat(upper, "file", AtFlags::SYMLINK_NOFOLLOW)
        .map_err(step("stat of a whiteout"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != 0 {
        return Err("overlay: a removed file leaves no whiteout".to_owned());
    }
    if renames {
        rustix::fs::renameat(mount, "dir", mount, "moved").map_err(step("rename directory"))?;
        rustix::fs::renameat(mount, "moved", mount, "dir").map_err(step("rename directory"))?;
    }
    rustix::fs::unlinkat(mount, "dir", AtFlags::REMOVEDIR).map_err(step("rmdir"))?;
    rustix::fs::mkdirat(mount, "dir", Mode::from_raw_mode(0o755)).map_err(step("mkdir"))?;
    let made = fs::open_dir(upper, "dir").map_err(|error| error.to_string())?;
    let opaque =
        cow::whiteout::is_opaque(&made, "dir", space).map_err(|error| error.to_string())?;
    if !opaque {
        let name = space.opaque();
        return Err(format!("overlay: a replaced directory is not marked with {name}"));
    }
    Ok(())
}
