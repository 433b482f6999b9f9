//! Layers with other ids than those on the disk.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cow_sys::mount_attr;

use super::Home;
use crate::error::ErrorKind;
use crate::id_map::IdMaps;

impl Home {
    /// Whether the file system of the home can be mounted with mapped ids.
    pub(crate) fn maps_ids(&self) -> bool {
        *self.maps_ids.get_or_init(|| {
            IdMaps::trial().and_then(|maps| map_directory(&self.layers, &maps)).is_ok()
        })
    }

    /// All layers as a mount that is attached nowhere shows them, with their ids mapped.
    pub(crate) fn mapped_layers(&self, maps: &IdMaps) -> cow::Result<OwnedFd> {
        map_directory(&self.layers, maps)
    }
}

/// A directory as a mount that is attached nowhere shows it, with mapped ids.
pub(crate) fn map_directory(dir: impl AsFd, maps: &IdMaps) -> cow::Result<OwnedFd> {
    let mount = cow_sys::mount::bind(dir, Path::new(""), false).map_err(|error| {
        cow::Error::refused("mount", "", error.to_string(), ErrorKind::of_io(error.io()))
    })?;
    map_mount(&mount, maps)?;
    Ok(mount)
}

/// Maps the ids of a mount that was never attached.
pub(crate) fn map_mount(mount: impl AsFd, maps: &IdMaps) -> cow::Result<()> {
    let namespace = maps.namespace().map_err(|source| cow::Error::sys("map ids", "", source))?;
    let change =
        mount_attr::Change { id_map: Some(namespace.as_fd()), ..mount_attr::Change::NOTHING };
    mount_attr::set(mount, &change, false)
        .map_err(|errno| cow::Error::sys("mount_setattr", "", errno))
}
