//! A driver that keeps its layers in memory and fails when it is told to.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::UNIX_EPOCH;

use cow::change::{Change, ChangeKind, Changeset, Location};
use drivers::{
    Access, Applied, Capabilities, CreateOptions, Driver, Error, Finding, LayerId, LayerInfo,
    LayerRecord, Mount, Result, State, Usage,
};

use crate::error::ErrorKind;

/// A file content that makes a layer depend on its parent.
pub(crate) const NEEDS_LOWER: &str = "needs-lower";

#[derive(Clone, Debug)]
struct Entry {
    info: LayerInfo,
    tar: Vec<u8>,
}

/// What survives a restart of the driver.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    layers: Mutex<BTreeMap<LayerId, Entry>>,
    /// The operation that fails, after how many calls, and how.
    fault: Mutex<Option<(&'static str, usize, ErrorKind)>>,
    /// How many layers were ever applied.
    applied: Mutex<usize>,
    /// Whether the driver cannot give a layer its parent later.
    pub(crate) in_order: std::sync::atomic::AtomicBool,
}

impl Disk {
    /// Makes the call number `nth` (0 is the next) of `op` fail, once.
    pub(crate) fn fail(&self, op: &'static str, nth: usize, kind: ErrorKind) {
        *self.fault.lock().unwrap() = Some((op, nth, kind));
    }

    /// Whether the fault has not come about.
    pub(crate) fn fault_pending(&self) -> bool {
        self.fault.lock().unwrap().take().is_some()
    }

    pub(crate) fn applied(&self) -> usize {
        *self.applied.lock().unwrap()
    }

    /// How many layers there are, of any state.
    pub(crate) fn len(&self) -> usize {
        self.layers.lock().unwrap().len()
    }

    /// Takes a layer away as damage does.
    pub(crate) fn lose(&self, id: &LayerId) {
        self.layers.lock().unwrap().remove(id).unwrap();
    }

    /// Forgets a layer's labels.
    pub(crate) fn forget_owner(&self, id: &LayerId) {
        self.layers.lock().unwrap().get_mut(id).unwrap().info.record.labels.clear();
    }

    fn fault(&self, op: &'static str, id: &LayerId) -> Result<()> {
        let mut fault = self.fault.lock().unwrap();
        match &mut *fault {
            Some((failing, 0, kind)) if *failing == op => {
                let error = state(op, id, "told to fail", *kind);
                *fault = None;
                Err(error)
            }
            Some((failing, left, _)) if *failing == op => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn state(op: &'static str, layer: &LayerId, reason: &'static str, kind: ErrorKind) -> Error {
    Error::State { driver: "memory", op, layer: layer.clone(), reason: reason.into(), kind }
}

/// The driver over a [`Disk`].
#[derive(Debug)]
pub(crate) struct Memory {
    name: &'static str,
    disk: Arc<Disk>,
}

impl Memory {
    pub(crate) fn new(name: &'static str, disk: &Arc<Disk>) -> Self {
        Self { name, disk: Arc::clone(disk) }
    }

    fn layers(&self) -> MutexGuard<'_, BTreeMap<LayerId, Entry>> {
        self.disk.layers.lock().unwrap()
    }

    fn get(&self, op: &'static str, id: &LayerId) -> Result<Entry> {
        let entry = self.layers().get(id).cloned();
        entry.ok_or_else(|| state(op, id, "no such layer", ErrorKind::NotFound))
    }
}

impl Driver for Memory {
    fn name(&self) -> &'static str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        let rebase = !self.disk.in_order.load(std::sync::atomic::Ordering::Relaxed);
        Capabilities { rebase, client_mounts: true, ..Capabilities::default() }
    }

    fn create(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        options: &CreateOptions,
    ) -> Result<()> {
        self.disk.fault("create", id)?;
        if let Some(parent) = parent
            && self.get("create", parent)?.info.state != State::Committed
        {
            return Err(state("create", id, "parent", ErrorKind::FailedPrecondition));
        }
        let labels = options.labels.clone();
        let info = LayerInfo {
            id: id.clone(),
            parent: parent.cloned(),
            state: options.state,
            created: UNIX_EPOCH,
            usage: None,
            id_map: options.id_map.clone(),
            record: LayerRecord { labels, ..LayerRecord::default() },
        };
        let entry = Entry { info, tar: Vec::new() };
        match self.layers().insert(id.clone(), entry) {
            None => Ok(()),
            Some(_) => Err(state("create", id, "exists", ErrorKind::AlreadyExists)),
        }
    }

    fn apply(&self, id: &LayerId, tar: &mut dyn Read) -> Result<Applied> {
        let mut bytes = Vec::new();
        let read = tar.read_to_end(&mut bytes);
        let failed =
            |source| Error::Layer { driver: "memory", op: "apply", layer: id.clone(), source };
        read.map_err(|e| failed(cow::Error::sys("read", "", e)))?;
        self.disk.fault("apply", id)?;
        let needs = bytes.windows(NEEDS_LOWER.len()).any(|w| w == NEEDS_LOWER.as_bytes());
        let mut layers = self.layers();
        let entry = layers
            .get_mut(id)
            .ok_or_else(|| state("apply", id, "no such layer", ErrorKind::NotFound))?;
        if needs && entry.info.parent.is_none() {
            let (path, target) = ("link".into(), "lower".into());
            return Err(failed(cow::Error::NeedsLower { path, target }));
        }
        let applied = Applied {
            tar_size: bytes.len() as u64,
            content_size: bytes.len() as u64 / 2,
            entries: 1,
        };
        entry.tar = bytes;
        *self.disk.applied.lock().unwrap() += 1;
        Ok(applied)
    }

    fn commit(&self, id: &LayerId, record: &LayerRecord) -> Result<LayerInfo> {
        self.disk.fault("commit", id)?;
        let parent = record.parent.as_ref().map(|parent| self.get("commit", parent)).transpose()?;
        let mut layers = self.layers();
        let entry = layers
            .get_mut(id)
            .ok_or_else(|| state("commit", id, "no such layer", ErrorKind::NotFound))?;
        if entry.info.state != State::Active {
            return Err(state("commit", id, "not active", ErrorKind::FailedPrecondition));
        }
        if let Some(parent) = parent {
            if entry.info.parent.is_some() || parent.info.state != State::Committed {
                return Err(state("commit", id, "parent", ErrorKind::FailedPrecondition));
            }
            entry.info.parent = Some(parent.info.id);
        }
        entry.info.state = State::Committed;
        entry.info.usage = Some(Usage { bytes: entry.tar.len() as u64, inodes: 1, content: 0 });
        entry.info.record = LayerRecord { parent: None, ..record.clone() };
        Ok(entry.info.clone())
    }

    fn relabel(&self, id: &LayerId, labels: &BTreeMap<String, String>) -> Result<()> {
        self.disk.fault("relabel", id)?;
        let mut layers = self.layers();
        let entry = layers
            .get_mut(id)
            .ok_or_else(|| state("relabel", id, "no such layer", ErrorKind::NotFound))?;
        entry.info.record.labels.clone_from(labels);
        Ok(())
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.disk.fault("remove", id)?;
        let mut layers = self.layers();
        if layers.values().any(|entry| entry.info.parent.as_ref() == Some(id)) {
            return Err(state("remove", id, "has children", ErrorKind::InUse));
        }
        match layers.remove(id) {
            Some(_) => Ok(()),
            None => Err(state("remove", id, "no such layer", ErrorKind::NotFound)),
        }
    }

    fn info(&self, id: &LayerId) -> Result<LayerInfo> {
        self.get("info", id).map(|entry| entry.info)
    }

    fn list(&self) -> Result<Vec<LayerInfo>> {
        Ok(self.layers().values().map(|entry| entry.info.clone()).collect())
    }

    fn mounts(&self, id: &LayerId, _: Access) -> Result<Vec<Mount>> {
        let info = self.info(id)?;
        let access = if info.state == State::Active { "rw" } else { "ro" };
        let options = vec!["rbind".to_owned(), access.to_owned()];
        Ok(vec![Mount { fstype: "bind".into(), source: id.as_str().into(), options }])
    }

    fn mount(&self, id: &LayerId, _: Access) -> Result<PathBuf> {
        self.info(id).map(|info| info.id.as_str().into())
    }

    fn unmount(&self, _: &LayerId) -> Result<()> {
        Ok(())
    }

    fn changes(&self, id: &LayerId, _: Option<&LayerId>) -> Result<Changeset> {
        let tar = self.get("changes", id)?.tar;
        let mut changes = vec![Change::deleted("gone")];
        for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
            let path = entry.unwrap().path().unwrap().into_owned();
            let place = Location { root: 0, path: path.clone() };
            let (meta, data) = (Some(place.clone()), Some(place));
            changes.push(Change { path, kind: ChangeKind::Added, meta, data });
        }
        Ok(Changeset { changes })
    }

    fn diff(&self, id: &LayerId, _: Option<&LayerId>, out: &mut dyn Write) -> Result<u64> {
        self.disk.fault("diff", id)?;
        let tar = self.get("diff", id)?.tar;
        out.write_all(&tar).map_err(|e| Error::Layer {
            driver: "memory",
            op: "diff",
            layer: id.clone(),
            source: cow::Error::sys("write", "", e),
        })?;
        Ok(tar.len() as u64)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let entry = self.get("usage", id)?;
        Ok(entry.info.usage.unwrap_or(Usage {
            bytes: entry.tar.len() as u64,
            inodes: 1,
            content: 0,
        }))
    }

    fn metadata(&self, _: &LayerId) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    fn status(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn check(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    fn repair(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    fn cleanup(&self) -> Result<()> {
        Ok(())
    }
}
