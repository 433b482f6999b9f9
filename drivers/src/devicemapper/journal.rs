//! Journals that the kernel has given up, and that are needed all the same.
//!
//! An unmount of an ext4 that finds no space to put the journal's content in place gives the journal up
//! ("Couldn't clean up the journal"), marks the file system as damaged, and clears `needs_recovery`
//! nevertheless (seen in Linux 6.1, `ext4_put_super`). The next mount would wipe the journal, and with it
//! what was synced. So the mark is set again before that mount, which then puts in place what is there; a
//! journal that holds nothing does no harm with it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cow::error::{Error, ErrorKind, Result};

use super::tool;

/// Where the superblock is, and the parts of it that are read (the kernel's documentation of ext4,
/// "Super Block"): bytes from its beginning.
const SUPERBLOCK: u64 = 1024;
const LENGTH: usize = 0x64;
const MAGIC: usize = 0x38;
const STATE: usize = 0x3a;
const COMPATIBLE: usize = 0x5c;
const INCOMPATIBLE: usize = 0x60;

/// What they hold.
const EXT4: u16 = 0xef53;
const HAS_ERRORS: u16 = 2;
const HAS_JOURNAL: u32 = 4;
const NEEDS_RECOVERY: u32 = 4;

/// Whether a file system is an ext4 with errors whose journal the next mount would wipe.
fn is_given_up(superblock: &[u8; LENGTH]) -> bool {
    let short = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    let long = |at: usize| u32::from(short(at)) | u32::from(short(at + 2)) << 16;
    short(MAGIC) == EXT4
        && short(STATE) & HAS_ERRORS != 0
        && long(COMPATIBLE) & HAS_JOURNAL != 0
        && long(INCOMPATIBLE) & NEEDS_RECOVERY == 0
}

/// Sees that the next mount of a file system puts in place what its journal holds. One that is mounted
/// writable has the mark, and is left alone.
///
/// # Errors
/// When the mark cannot be set; a mount would lose what was synced then.
pub(super) fn keep(device: &Path) -> Result<()> {
    let read = || {
        let mut superblock = [0; LENGTH];
        File::open(device)?.read_exact_at(&mut superblock, SUPERBLOCK)?;
        Ok(is_given_up(&superblock))
    };
    match read() {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => {
            // The mount says so.
            let error: std::io::Error = error;
            tracing::debug!(device = %device.display(), %error, "the superblock is not read");
            return Ok(());
        }
    }
    // Checksums of what the journal has newer are not minded (-n).
    let words = ["-n", "-w", "-R", "feature needs_recovery"].map(<_ as AsRef<OsStr>>::as_ref);
    let ran = tool::run_any("debugfs", &[&words[..], &[device.as_os_str()]].concat())?;
    // The program tells of no failure by its exit code.
    if read().map_err(|error| Error::sys("read", device, error))? {
        let said = ran.stderr.trim().lines().collect::<Vec<_>>().join("; ");
        let reason = format!(
            "an unmount has given its journal up, and the mark that it is needed cannot be set: debugfs: {said}"
        );
        return Err(Error::refused("mount", device, reason, ErrorKind::Io));
    }
    tracing::warn!(device = %device.display(), "its journal was given up by an unmount: it is put in place");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `dumpe2fs` says of a file system.
    fn facts(image: &Path) -> String {
        tool::run("dumpe2fs", &["-h".as_ref(), image.as_os_str()]).expect("dumpe2fs")
    }

    fn debugfs(image: &Path, request: &str) {
        let words = ["-w".as_ref(), "-R".as_ref(), request.as_ref(), image.as_os_str()];
        tool::run("debugfs", &words).expect("debugfs");
    }

    #[test]
    fn only_a_journal_that_was_given_up_is_marked_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("a file");
        tool::run("mkfs.ext4", &["-q".as_ref(), image.as_os_str()]).expect("mkfs.ext4");
        for (requests, marked) in [
            (&[][..], false),
            (&["set_super_value state 3"], true),
            (&["feature -needs_recovery", "set_super_value state 1"], false),
            (&["feature needs_recovery"], true),
        ] {
            for request in requests {
                debugfs(&image, request);
            }
            keep(&image).expect("it can be marked");
            let facts = facts(&image);
            assert_eq!(facts.contains("needs_recovery"), marked, "after {requests:?}:\n{facts}");
        }
        let checked = tool::run_any("e2fsck", &["-p".as_ref(), image.as_os_str()]).expect("e2fsck");
        assert!(matches!(checked.code, Some(0 | 1)), "{checked:?}");
    }

    #[test]
    fn what_is_no_ext4_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("image");
        for size in [0, 100, 1 << 20] {
            std::fs::write(&image, vec![0xff; size]).expect("a file");
            keep(&image).expect("nothing to do");
            let found = std::fs::read(&image).expect("the file");
            assert!(found.len() == size && found.iter().all(|byte| *byte == 0xff), "{size} bytes");
        }
    }
}
