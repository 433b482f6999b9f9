//! A pool of two sparse files on loop devices.
//!
//! The lengths of the files are the sizes of the pool. They grow when a start asks for more, files
//! before loop devices before the pool, so that a start after a crash finds what is to be done by the
//! files alone.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cow::error::{Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::dm::{Dm, SECTOR, Use};
use super::options::Options;
use super::pool::mib;
use super::setup::Setup;
use super::tool;
use crate::home::fs;

/// Where the files are.
const DIR: &str = "loop";
const DATA: &str = "data";
const METADATA: &str = "metadata";

/// The sizes that a new pool has when no others are asked for.
const DATA_SIZE: u64 = 100 << 30;
const METADATA_SIZE: u64 = 2 << 30;

fn open(dir: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| Error::sys("open", name, errno))
}

/// Makes sparse files for data and metadata.
pub(super) fn make(home: BorrowedFd<'_>, options: &Options) -> Result<Setup> {
    let dir = fs::ensure_dir(home, DIR, 0o700)?;
    for (name, size) in [
        (DATA, options.loop_data_size.unwrap_or(DATA_SIZE)),
        (METADATA, options.loop_metadata_size.unwrap_or(METADATA_SIZE)),
    ] {
        let file = open(&dir, name, OFlags::CREATE)?;
        // A pool that a crash kept from its first layer begins anew: zeros are an empty one.
        rustix::fs::ftruncate(&file, 0)
            .and_then(|()| rustix::fs::ftruncate(&file, size))
            .map_err(|errno| Error::sys("truncate", name, errno))?;
    }
    let stat = rustix::fs::fstat(&dir).map_err(|errno| Error::sys("stat", DIR, errno))?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let name = format!("layerd-{major}.{minor}-{}-pool", stat.st_ino);
    Ok(Setup::Loop { name, block_size: options.block_size })
}

/// Lets the files have the sizes that are asked for; whether any size is asked for.
///
/// # Errors
/// `InvalidArgument` for less than a file has.
pub(super) fn grow(home: BorrowedFd<'_>, options: &Options) -> Result<bool> {
    let sizes = [
        (DATA, "loopdatasize", options.loop_data_size),
        (METADATA, "loopmetadatasize", options.loop_metadata_size),
    ];
    let dir = fs::open_dir(home, DIR)?;
    for (name, option, wanted) in sizes {
        let Some(wanted) = wanted else { continue };
        let has = length(&dir, name)?;
        if wanted < has {
            let (wanted, has) = (mib(wanted), mib(has));
            let reason = format!("option {option}: {wanted} is less than the {has} there are");
            return Err(Error::invalid("open pool", name, reason));
        }
        if wanted > has {
            rustix::fs::ftruncate(open(&dir, name, OFlags::empty())?, wanted)
                .map_err(|errno| Error::sys("truncate", name, errno))?;
            tracing::info!(name, of = mib(has), to = mib(wanted), "file of the pool enlarged");
        }
    }
    Ok(sizes.iter().any(|(_, _, size)| size.is_some()))
}

/// The length of a file of the pool.
fn length(dir: &OwnedFd, name: &str) -> Result<u64> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Error::sys("stat", name, errno))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// How many sectors the pool has.
fn sectors(home: BorrowedFd<'_>, block_size: u64) -> Result<u64> {
    let sectors = length(&fs::open_dir(home, DIR)?, DATA)? / SECTOR;
    let block = (block_size / SECTOR).max(1);
    Ok(sectors / block * block)
}

/// Attaches the files and makes the pool of them.
pub(super) fn activate(
    dm: &Dm,
    home: BorrowedFd<'_>,
    path: &Path,
    name: &str,
    block_size: u64,
) -> Result<()> {
    let mut devices = Vec::new();
    for file in [METADATA, DATA] {
        let path = path_of(path, file);
        let device = match attached(&path)? {
            Some(device) => {
                set_capacity(&device)?;
                device
            }
            None => {
                let words = ["--find", "--show"].map(AsRef::as_ref);
                let words = [&words[..], &[path.as_os_str()]].concat();
                tool::run("losetup", &words)?.trim().to_owned()
            }
        };
        devices.push(device);
    }
    let block = block_size / SECTOR;
    let params = format!("{} {} {block} 0 1 error_if_no_space", devices[0], devices[1]);
    let table = [(0, sectors(home, block_size)?, "thin-pool".to_owned(), params)];
    dm.make(name, &table, Use::Write)
}

/// Lets a pool that is in use have all of its files.
pub(super) fn enlarge(
    dm: &Dm,
    home: BorrowedFd<'_>,
    path: &Path,
    name: &str,
    block_size: u64,
) -> Result<()> {
    for file in [METADATA, DATA] {
        if let Some(device) = attached(&path_of(path, file))? {
            set_capacity(&device)?;
        }
    }
    // The kernel looks at the size of the metadata whenever the pool is resumed.
    let (_, target, params) = dm.table(name)?;
    dm.reload(name, &[(0, sectors(home, block_size)?, target, params)])
}

/// Detaches the files of a pool that is gone.
pub(super) fn detach(path: &Path) {
    for file in [DATA, METADATA] {
        if let Ok(Some(device)) = attached(&path_of(path, file)) {
            let _ = tool::run("losetup", &["--detach", &device]);
        }
    }
}

fn path_of(home: &Path, file: &str) -> PathBuf {
    home.join(DIR).join(file)
}

/// The loop device of a file, if it has one.
fn attached(file: &Path) -> Result<Option<String>> {
    let words = ["--noheadings", "--output", "NAME", "--associated"].map(AsRef::as_ref);
    let text = tool::run("losetup", &[&words[..], &[file.as_os_str()]].concat())?;
    Ok(text.split_whitespace().next().map(str::to_owned))
}

/// Has a loop device look at the length of its file again.
fn set_capacity(device: &str) -> Result<()> {
    tool::run("losetup", &["--set-capacity", device]).map(drop)
}
