//! Where on the disk a layer is written.
//!
//! ext4 without a journal, as small virtual machines have it, passes over inodes that were freed in the
//! last minutes one by one whenever it looks for a new one (fs/ext4/ialloc.c, `recently_deleted`). In a
//! block group from which a large layer was just removed, each new file then costs a hundred times what
//! it costs elsewhere. Directories in the home's `tmp` are spread over the groups
//! (`fs::spread_children`), so a layer that is about to be written is moved, while it is empty, until
//! its group is a quick one.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cow::Error;
use rustix::fs::{AtFlags, Dir, Gid, Mode, RenameFlags, Uid};

use super::{DIFF, Overlay, Union};
use crate::home::fs;
use crate::id::LayerId;

/// The directory that is made to see how long it takes; the layer is empty, so the name is free.
const PROBE: &str = ".settle";
/// What making a directory may take in a quick group; a slow one takes several times as much.
const QUICK: Duration = Duration::from_micros(40);
/// How many groups are tried.
const TRIES: usize = 12;

impl<U: Union> Overlay<U> {
    /// Moves an empty layer to where new files are made quickly, if it is not there.
    pub(super) fn settle(&self, id: &LayerId) -> cow::Result<()> {
        self.settle_by(id, probe)
    }

    /// The same by another measure of a directory's place.
    fn settle_by(
        &self,
        id: &LayerId,
        mut probe: impl FnMut(&OwnedFd) -> cow::Result<Duration>,
    ) -> cow::Result<()> {
        let layer = self.home.open_in_layer(id, ".")?;
        let diff = self.home.open_in_layer(id, DIFF)?;
        // What is exchanged for another directory is deleted.
        if !is_empty(&diff)? || probe(&diff)? <= QUICK {
            return Ok(());
        }
        let of_root = rustix::fs::fstat(&diff).map_err(|errno| Error::sys("fstat", DIFF, errno))?;
        for _ in 0..TRIES {
            let scratch = self.home.scratch(id.as_str())?;
            let mode = Mode::from_raw_mode(of_root.st_mode);
            rustix::fs::mkdirat(scratch.dir(), DIFF, mode)
                .map_err(|errno| Error::sys("mkdir", DIFF, errno))?;
            let other = fs::open_dir(scratch.dir(), DIFF)?;
            if probe(&other)? > QUICK {
                continue;
            }
            let owner = (Uid::from_raw(of_root.st_uid), Gid::from_raw(of_root.st_gid));
            rustix::fs::fchown(&other, Some(owner.0), Some(owner.1))
                .and_then(|()| rustix::fs::fchmod(&other, mode))
                .and_then(|()| {
                    let flags = RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(scratch.dir(), DIFF, &layer, DIFF, flags)
                })
                .map_err(|errno| Error::sys("move", DIFF, errno))?;
            return Ok(());
        }
        tracing::debug!(%id, "no quick place was found");
        Ok(())
    }
}

fn is_empty(dir: impl AsFd) -> cow::Result<bool> {
    let entries = Dir::read_from(dir).map_err(|errno| Error::sys("read directory", DIFF, errno))?;
    for entry in entries {
        let entry = entry.map_err(|errno| Error::sys("read directory", DIFF, errno))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The least time of three that making a directory takes; one alone may have been interrupted.
fn probe(dir: &OwnedFd) -> cow::Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        rustix::fs::mkdirat(dir, PROBE, Mode::RWXU)
            .map_err(|errno| Error::sys("mkdir", PROBE, errno))?;
        least = least.min(start.elapsed());
        rustix::fs::unlinkat(dir, PROBE, AtFlags::REMOVEDIR)
            .map_err(|errno| Error::sys("rmdir", PROBE, errno))?;
    }
    tracing::debug!(?least, "making a directory takes");
    Ok(least)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::driver::{CreateOptions, Driver as _};

    #[test]
    fn an_empty_layer_moves_and_keeps_its_owner_and_mode() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let driver = crate::overlay2::open::<&str>(dir.path(), &[]).unwrap();
        let id: LayerId = "1".parse().unwrap();
        driver.create(&id, None, &CreateOptions::active()).unwrap();
        let diff = dir.path().join("layers/1/diff");
        std::fs::set_permissions(&diff, std::fs::Permissions::from_mode(0o1751)).unwrap();
        std::os::unix::fs::chown(&diff, Some(12), Some(34)).unwrap();
        let before = std::fs::metadata(&diff).unwrap();

        let mut times = [QUICK * 2, QUICK * 3, QUICK].into_iter();
        driver.settle_by(&id, |_| Ok(times.next().expect("no more places are tried"))).unwrap();
        let after = std::fs::metadata(&diff).unwrap();
        assert_ne!(before.ino(), after.ino(), "the layer stays where it is slow");
        let of = |meta: &std::fs::Metadata| (meta.mode(), meta.uid(), meta.gid());
        assert_eq!(of(&before), of(&after), "owner and mode are lost");
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "a try is left");

        std::fs::write(diff.join("file"), "content").unwrap();
        driver.settle_by(&id, |_| panic!("a layer with files is measured")).unwrap();
        assert_eq!(std::fs::read(diff.join("file")).unwrap(), b"content", "a file is lost");
    }
}
