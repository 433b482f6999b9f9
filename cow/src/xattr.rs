//! Extended attributes of a name below a directory fd.
//!
//! As in [`at`](crate::at), a name is one component, an empty name is the fd's own file, and no
//! symbolic link is followed. A file system without attributes is one on which no file has any.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::{Errno, Result};

use crate::meta::Xattrs;

/// All attributes of a name.
pub fn read_at(dir: impl AsFd, name: &OsStr) -> Result<Xattrs> {
    let dir = dir.as_fd();
    let mut xattrs = Xattrs::new();
    for attr in names_at(dir, name)? {
        if let Some(value) = get_at(dir, name, &attr)? {
            xattrs.insert(attr, value);
        }
    }
    Ok(xattrs)
}

/// Attributes by which btrfs shows its own properties of a file, such as how it is compressed. They
/// are no part of the file: elsewhere nobody could set them.
const PROPERTIES: &[u8] = b"btrfs.";

/// The names of all attributes of a name, in the file system's order.
pub fn names_at(dir: impl AsFd, name: &OsStr) -> Result<Vec<OsString>> {
    match cow_sys::xattr::list(dir, name) {
        Ok(list) => Ok(list
            .split(|byte| *byte == 0)
            .filter(|attr| !attr.is_empty() && !attr.starts_with(PROPERTIES))
            .map(|attr| OsStr::from_bytes(attr).to_owned())
            .collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// One attribute of a name; none if it has no such attribute.
pub fn get_at(dir: impl AsFd, name: &OsStr, attr: &OsStr) -> Result<Option<Vec<u8>>> {
    match cow_sys::xattr::get(dir, name, attr) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one attribute of a name.
pub fn set_at(dir: impl AsFd, name: &OsStr, attr: &OsStr, value: &[u8]) -> Result<()> {
    cow_sys::xattr::set(dir, name, attr, value)
}

/// Removes one attribute of a name; one that is not there is no error.
pub fn remove_at(dir: impl AsFd, name: &OsStr, attr: &OsStr) -> Result<()> {
    match cow_sys::xattr::remove(dir, name, attr) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error),
    }
}
