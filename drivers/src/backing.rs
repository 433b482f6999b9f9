//! The file system that holds a home.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode};

/// File systems by the magic number of statfs(2) (`linux/magic.h`), with the names that Docker
/// shows, and whether overlayfs can keep an upper directory on them.
const KNOWN: [(u32, &str, bool); 14] = [
    (0x0000_ef53, "extfs", true),
    (0x5846_5342, "xfs", true),
    (0x9123_683e, "btrfs", true),
    (0x0102_1994, "tmpfs", true),
    (0xf2f5_2010, "f2fs", true),
    (0xca45_1a4e, "bcachefs", true),
    (0x2fc1_2fc1, "zfs", true),
    (0x794c_7630, "overlayfs", false),
    (0x6573_5546, "fuse", true),
    (0x0000_6969, "nfs", false),
    (0xff53_4d42, "cifs", false),
    (0x0000_f15f, "ecryptfs", false),
    (0x6174_6573, "aufs", false),
    (0x0000_4d44, "vfat", false),
];

/// The magic number of the file system that holds `dir`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // magics have 32 bits
fn magic(dir: impl AsFd) -> u32 {
    rustix::fs::fstatfs(dir).map_or(0, |stat| stat.f_type as u32)
}

/// The name of the file system that holds `dir`, as Docker's "Backing Filesystem" shows it.
pub(crate) fn name(dir: impl AsFd) -> &'static str {
    let magic = magic(dir);
    KNOWN.iter().find(|known| known.0 == magic).map_or("<unknown>", |known| known.1)
}

/// Sees that overlayfs can keep an upper directory here; otherwise says why not.
pub(crate) fn check_upper(dir: impl AsFd) -> Result<(), String> {
    let magic = magic(dir);
    match KNOWN.iter().find(|known| known.0 == magic) {
        Some((_, name, false)) => Err(format!(
            "the home lies on {name}, on which overlay cannot keep layers; \
             give it a root directory on ext4, xfs, btrfs or tmpfs"
        )),
        _ => Ok(()),
    }
}

/// Whether directories here tell the types of their entries. An old xfs (`ftype=0`) does not, and
/// overlayfs then shows its whiteouts.
pub(crate) fn has_file_types(dir: impl AsFd) -> cow::Result<bool> {
    let dir = dir.as_fd();
    const NAME: &str = ".d_type";
    let failed = |step| move |errno| cow::Error::sys(step, NAME, errno);
    match rustix::fs::mkdirat(dir, NAME, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(failed("mkdir")(errno)),
    }
    let mut known = false;
    let entries = rustix::fs::Dir::read_from(dir).map_err(failed("read directory"))?;
    for entry in entries {
        let entry = entry.map_err(failed("read directory"))?;
        if entry.file_name().to_bytes() == NAME.as_bytes() {
            known = entry.file_type() == FileType::Directory;
        }
    }
    rustix::fs::unlinkat(dir, NAME, AtFlags::REMOVEDIR).map_err(failed("rmdir"))?;
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temporary_directory_has_file_types() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        assert!(has_file_types(&fd).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the probe left something");
    }

    #[test]
    fn proc_is_not_known() {
        let fd = std::fs::File::open("/proc").unwrap();
        assert_eq!(name(&fd), "<unknown>");
    }
}
