//! Limits on the size of a layer.

use std::os::fd::AsFd;
use std::path::Path;

use crate::backing;
use crate::mountinfo;

/// Sees that a layer can be limited here; otherwise says why not.
///
/// A limit is a project quota, which ext4 and xfs keep when they are mounted with `prjquota`.
pub(crate) fn refuse(dir: impl AsFd, path: &Path) -> Result<(), String> {
    let fs = backing::name(dir);
    if !["extfs", "xfs"].contains(&fs) {
        return Err(format!("{fs} keeps no project quotas; a limit needs ext4 or xfs"));
    }
    let options = mountinfo::read()
        .ok()
        .and_then(|table| {
            let holds = |entry: &&mountinfo::MountEntry| path.starts_with(&entry.mount_point);
            let entry = table.iter().filter(holds).max_by_key(|e| e.mount_point.as_os_str().len());
            entry.map(|entry| entry.super_options.clone())
        })
        .unwrap_or_default();
    if !options.split(',').any(|option| option == "prjquota" || option == "pquota") {
        return Err("the home's file system is not mounted with prjquota".to_owned());
    }
    Err("project quotas cannot be set by this version".to_owned())
}
