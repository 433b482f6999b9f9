//! All layers of a home by id, and how many children each has.
//!
//! The index is loaded once, when the home is opened, and makes every later call independent of how
//! many layers there are. Its lock is held for look-ups only, never across input or output: a call
//! first takes what it needs out of the index (an id, one more child of the parent), works, and then
//! confirms or gives back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layer::Layer;
use crate::call::Call;
use crate::driver::State;
use crate::error::{ErrorKind, Result};
use crate::id::LayerId;

/// What an id stands for.
#[derive(Debug)]
enum Slot {
    /// Taken by a layer that is being made.
    Making,
    /// A layer.
    Live(Arc<Layer>),
    /// A directory whose metadata cannot be read, and why.
    Broken(String),
}

/// The slots, and the number of children of each parent that has any.
#[derive(Debug, Default)]
struct Table {
    slots: HashMap<LayerId, Slot>,
    children: HashMap<LayerId, u32>,
}

impl Table {
    fn gain_child(&mut self, parent: &LayerId) {
        *self.children.entry(parent.clone()).or_default() += 1;
    }

    fn lose_child(&mut self, parent: &LayerId) {
        if let Some(count) = self.children.get_mut(parent) {
            *count -= 1;
            if *count == 0 {
                self.children.remove(parent);
            }
        }
    }

    /// Sees that `parent` is a committed layer.
    fn check_parent(&self, call: Call<'_>, parent: &LayerId) -> Result<()> {
        match self.slots.get(parent) {
            Some(Slot::Live(layer)) if layer.state() == State::Committed => Ok(()),
            Some(Slot::Live(_) | Slot::Making) => {
                let reason = format!("parent {parent} is not committed");
                Err(call.refused(ErrorKind::FailedPrecondition, reason))
            }
            Some(Slot::Broken(why)) => {
                Err(call.refused(ErrorKind::Corrupt, format!("parent {parent}: {why}")))
            }
            None => {
                Err(call.refused(ErrorKind::NotFound, format!("parent {parent} does not exist")))
            }
        }
    }
}

/// The index of a home.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<Table>);

impl Index {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a layer found on disk.
    pub(crate) fn load(&self, layer: Layer) {
        let mut table = self.table();
        if let Some(parent) = &layer.meta().parent {
            table.gain_child(parent);
        }
        table.slots.insert(layer.id.clone(), Slot::Live(Arc::new(layer)));
    }

    /// Adds a directory found on disk whose metadata cannot be read.
    pub(crate) fn load_broken(&self, id: LayerId, reason: String) {
        self.table().slots.insert(id, Slot::Broken(reason));
    }

    /// The layer of an id.
    ///
    /// # Errors
    /// `NotFound`, or `Corrupt` for a layer whose metadata cannot be read.
    pub(crate) fn get(&self, call: Call<'_>) -> Result<Arc<Layer>> {
        match self.table().slots.get(call.layer) {
            Some(Slot::Live(layer)) => Ok(Arc::clone(layer)),
            Some(Slot::Broken(why)) => Err(call.refused(ErrorKind::Corrupt, why.clone())),
            Some(Slot::Making) | None => Err(call.not_found()),
        }
    }

    /// All sound layers.
    pub(crate) fn all(&self) -> Vec<Arc<Layer>> {
        let table = self.table();
        let live = table.slots.values().filter_map(|slot| match slot {
            Slot::Live(layer) => Some(Arc::clone(layer)),
            Slot::Making | Slot::Broken(_) => None,
        });
        live.collect()
    }

    /// The ids whose metadata cannot be read, and why.
    pub(crate) fn broken(&self) -> Vec<(LayerId, String)> {
        let table = self.table();
        let broken = table.slots.iter().filter_map(|(id, slot)| match slot {
            Slot::Broken(why) => Some((id.clone(), why.clone())),
            Slot::Making | Slot::Live(_) => None,
        });
        broken.collect()
    }

    /// Takes an id for a layer that is to be made on `parent`, which cannot be removed from now on.
    ///
    /// # Errors
    /// As [`Driver::create`](crate::Driver::create) says.
    pub(crate) fn reserve<'a>(
        &'a self,
        call: Call<'_>,
        parent: Option<&LayerId>,
    ) -> Result<Reservation<'a>> {
        let mut table = self.table();
        if table.slots.contains_key(call.layer) {
            return Err(call.refused(ErrorKind::AlreadyExists, "the layer exists"));
        }
        if let Some(parent) = parent {
            table.check_parent(call, parent)?;
            table.gain_child(parent);
        }
        table.slots.insert(call.layer.clone(), Slot::Making);
        Ok(Reservation { index: self, id: call.layer.clone(), parent: parent.cloned() })
    }

    /// Claims a parent for a layer that has none, for the time of a commit; the parent cannot be
    /// removed from now on. A parent among `batch`, the layers committed right before this one, need
    /// not be committed yet.
    ///
    /// # Errors
    /// As [`Driver::commit`](crate::Driver::commit) says.
    pub(crate) fn adopt<'a>(
        &'a self,
        call: Call<'_>,
        parent: &LayerId,
        batch: &[Arc<Layer>],
    ) -> Result<Adoption<'a>> {
        let mut table = self.table();
        if !batch.iter().any(|layer| layer.id == *parent) {
            table.check_parent(call, parent)?;
        }
        table.gain_child(parent);
        Ok(Adoption { index: self, parent: Some(parent.clone()) })
    }

    /// Forgets a layer that has been moved aside although others stand on it.
    pub(crate) fn forget(&self, id: &LayerId) {
        self.table().slots.remove(id);
    }

    /// Takes an id out of use, when nothing stands on it.
    ///
    /// # Errors
    /// `InUse` when the layer has children.
    pub(crate) fn take_out<'a>(&'a self, call: Call<'_>) -> Result<Removal<'a>> {
        let mut table = self.table();
        if let Some(count) = table.children.get(call.layer) {
            let reason = format!("cannot remove: {count} layers stand on it");
            return Err(call.refused(ErrorKind::InUse, reason));
        }
        match table.slots.get_mut(call.layer) {
            Some(slot @ (Slot::Live(_) | Slot::Broken(_))) => {
                // The id stays taken until the directory is out of its place.
                let slot = std::mem::replace(slot, Slot::Making);
                Ok(Removal { index: self, id: call.layer.clone(), slot: Some(slot) })
            }
            Some(Slot::Making) | None => Err(call.not_found()),
        }
    }
}

/// A layer that is being removed. Dropping it makes the layer known again.
#[derive(Debug)]
#[must_use]
pub(crate) struct Removal<'a> {
    index: &'a Index,
    id: LayerId,
    slot: Option<Slot>,
}

impl Removal<'_> {
    /// Forgets the layer: its directory is out of its place.
    pub(crate) fn confirm(mut self) {
        let slot = self.slot.take();
        let mut table = self.index.table();
        table.slots.remove(&self.id);
        if let Some(Slot::Live(layer)) = slot
            && let Some(parent) = &layer.meta().parent
        {
            table.lose_child(parent);
        }
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.index.table().slots.insert(self.id.clone(), slot);
        }
    }
}

/// An id that is taken, and a child's claim on its parent. Dropping it gives both back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation<'a> {
    index: &'a Index,
    id: LayerId,
    parent: Option<LayerId>,
}

impl Reservation<'_> {
    /// Makes the layer known: it lies in its place.
    pub(crate) fn confirm(mut self, layer: Layer) {
        // The claim on the parent is now the layer's own.
        self.parent = None;
        self.index.table().slots.insert(self.id.clone(), Slot::Live(Arc::new(layer)));
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut table = self.index.table();
        if let Some(Slot::Making) = table.slots.get(&self.id) {
            table.slots.remove(&self.id);
        }
        if let Some(parent) = &self.parent {
            table.lose_child(parent);
        }
    }
}

/// A claim on a new parent. Dropping it gives the claim back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Adoption<'a> {
    index: &'a Index,
    parent: Option<LayerId>,
}

impl Adoption<'_> {
    /// Keeps the claim: the layer's file names the parent.
    pub(crate) fn confirm(mut self) {
        self.parent = None;
    }
}

impl Drop for Adoption<'_> {
    fn drop(&mut self) {
        if let Some(parent) = &self.parent {
            self.index.table().lose_child(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::meta::Meta;

    fn id(text: &str) -> LayerId {
        text.parse().unwrap()
    }

    fn layer(name: &str, parent: Option<&str>, state: State) -> Layer {
        Layer::new(Meta::new(id(name), parent.map(id), state))
    }

    fn call(layer: &LayerId) -> Call<'_> {
        Call { driver: "test", op: "test", layer }
    }

    fn index() -> Index {
        let index = Index::default();
        index.load(layer("base", None, State::Committed));
        index.load(layer("open", None, State::Active));
        index.load_broken(id("broken"), "unreadable".into());
        index
    }

    #[test]
    fn reserving_checks_id_and_parent() {
        let index = index();
        let cases = [
            ("base", None, Some(ErrorKind::AlreadyExists)),
            ("broken", None, Some(ErrorKind::AlreadyExists)),
            ("new", Some("nobody"), Some(ErrorKind::NotFound)),
            ("new", Some("open"), Some(ErrorKind::FailedPrecondition)),
            ("new", Some("broken"), Some(ErrorKind::Corrupt)),
            ("new", Some("base"), None),
        ];
        for (name, parent, expected) in cases {
            let name = id(name);
            let got = index.reserve(call(&name), parent.map(id).as_ref());
            assert_eq!(got.err().map(|e| e.kind()), expected, "{name} on {parent:?}");
        }
    }

    #[test]
    fn a_dropped_reservation_frees_id_and_parent() {
        let index = index();
        let (base, new) = (id("base"), id("new"));
        let held = index.reserve(call(&new), Some(&base)).unwrap();
        assert!(index.reserve(call(&new), None).is_err(), "the id was given twice");
        assert_eq!(index.take_out(call(&base)).unwrap_err().kind(), ErrorKind::InUse);
        drop(held);
        assert_eq!(index.get(call(&new)).unwrap_err().kind(), ErrorKind::NotFound);
        drop(index.take_out(call(&base)).unwrap());
        assert!(index.get(call(&base)).is_ok(), "a removal that failed lost the layer");
        index.take_out(call(&base)).unwrap().confirm();
    }

    #[test]
    fn a_confirmed_reservation_is_a_child() {
        let index = index();
        let (base, new) = (id("base"), id("new"));
        let held = index.reserve(call(&new), Some(&base)).unwrap();
        held.confirm(layer("new", Some("base"), State::Active));
        assert_eq!(index.take_out(call(&base)).unwrap_err().kind(), ErrorKind::InUse);
        let removal = index.take_out(call(&new)).unwrap();
        assert!(index.reserve(call(&new), None).is_err(), "taken while its directory is there");
        removal.confirm();
        index.take_out(call(&base)).unwrap().confirm();
        assert_eq!(index.take_out(call(&base)).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn an_adoption_holds_the_parent_while_it_lasts() {
        let index = index();
        let (base, open) = (id("base"), id("open"));
        let claim = index.adopt(call(&open), &base, &[]).unwrap();
        assert_eq!(index.take_out(call(&base)).unwrap_err().kind(), ErrorKind::InUse);
        drop(claim);
        index.take_out(call(&base)).unwrap().confirm();
    }
}
