//! Files that the kernel reads and writes without us (`FUSE_PASSTHROUGH`, Linux 6.9).

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::union::lock;

/// The files of a mount that are registered with the kernel.
#[derive(Debug)]
pub struct Registry {
    device: Arc<OwnedFd>,
    live: Mutex<HashSet<u32>>,
}

impl Registry {
    /// An empty registry of the mount behind `device`.
    pub fn new(device: Arc<OwnedFd>) -> Arc<Self> {
        Arc::new(Self { device, live: Mutex::default() })
    }

    /// Registers a file.
    ///
    /// # Errors
    /// What the kernel says: no privilege, no passthrough, or a file on a stack of file systems.
    pub fn register(self: &Arc<Self>, file: impl AsFd, upper: bool) -> Result<Backing, Errno> {
        let id = cow_sys::fuse::open_backing(&self.device, file)?;
        lock(&self.live).insert(id);
        Ok(Backing { registry: Arc::clone(self), id, upper })
    }

    /// Gives everything back at once when the mount is gone.
    ///
    /// Left to itself the kernel does so some time after the last channel is closed, and until then
    /// the layers' file systems cannot be unmounted.
    pub fn close_all(&self) {
        for id in lock(&self.live).drain() {
            let _ = cow_sys::fuse::close_backing(&self.device, id);
        }
    }
}

/// A file registered with the kernel, given back when nobody uses it.
#[derive(Debug)]
pub struct Backing {
    registry: Arc<Registry>,
    /// The kernel's number for it.
    pub id: u32,
    /// Whether it is a file of the upper layer.
    pub upper: bool,
}

impl Drop for Backing {
    fn drop(&mut self) {
        if lock(&self.registry.live).remove(&self.id) {
            // Fails only when the mount is gone, and its backing files with it.
            let _ = cow_sys::fuse::close_backing(&self.registry.device, self.id);
        }
    }
}
