//! Who waits for whom at one layer, before a thread is given to it.
//!
//! A tar that a client sends or takes keeps its layer busy at the client's pace, and the driver makes
//! other calls on the layer wait for that. Were they to wait on the threads that all calls share, a few
//! impatient clients of one layer could hold up everybody. So they wait here, where it costs nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

type Table = HashMap<String, Arc<RwLock<()>>>;

/// The layers that are at work, by id.
#[derive(Debug, Default)]
pub(super) struct Locks {
    table: Mutex<Table>,
}

/// A layer that is held.
#[derive(Debug)]
pub(super) struct Held {
    locks: Arc<Locks>,
    id: String,
    guard: Option<Guard>,
}

#[derive(Debug)]
enum Guard {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

impl Locks {
    /// Waits until nobody changes a layer, and keeps those away who would.
    pub(super) async fn shared(self: &Arc<Self>, id: &str) -> Held {
        let mut held = self.enter(id);
        held.guard = Some(Guard::Shared { _guard: self.of(id).read_owned().await });
        held
    }

    /// Waits until nobody is at work on a layer, and keeps everybody away.
    pub(super) async fn alone(self: &Arc<Self>, id: &str) -> Held {
        let mut held = self.enter(id);
        held.guard = Some(Guard::Alone { _guard: self.of(id).write_owned().await });
        held
    }

    /// One who may give up waiting, and then clears up as if he had held the layer.
    fn enter(self: &Arc<Self>, id: &str) -> Held {
        Held { locks: Arc::clone(self), id: id.to_owned(), guard: None }
    }

    fn of(&self, id: &str) -> Arc<RwLock<()>> {
        Arc::clone(self.table().entry(id.to_owned()).or_default())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut table = self.locks.table();
        // Each who waits or holds has a share.
        if table.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            table.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whether the future does not end by itself.
    async fn waits<T>(future: impl Future<Output = T>) -> bool {
        timeout(Duration::from_millis(1), future).await.is_err()
    }

    #[tokio::test]
    async fn readers_share_and_writers_do_not() {
        let locks = Arc::new(Locks::default());
        let one = locks.shared("a").await;
        let two = locks.shared("a").await;
        assert!(waits(locks.alone("a")).await, "two read");
        let other = locks.alone("b").await;
        drop(one);
        assert!(waits(locks.alone("a")).await, "one reads");
        drop(two);
        let writer = locks.alone("a").await;
        assert!(waits(locks.shared("a")).await, "one writes");
        drop((writer, other));
        assert!(locks.table().is_empty(), "nothing is kept of layers that nobody is at work on");
    }
}
