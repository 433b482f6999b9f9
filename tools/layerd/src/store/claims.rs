//! Who is at work on what: keys that one thread holds alone, and layers that must not be collected.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, PoisonError};

/// Keys of which each has at most one holder.
///
/// A holder may wait for another key only if no holder of that one can be waiting for its own; each
/// use says why that is so.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    held: Mutex<HashSet<K>>,
    freed: Condvar,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self { held: Mutex::default(), freed: Condvar::default() }
    }
}

impl<K: Eq + Hash + Clone + Debug> Claims<K> {
    /// Takes a key, waiting until it is free.
    pub(crate) fn claim(&self, key: K) -> Claim<'_, K> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = self
            .freed
            .wait_while(held, |held| held.contains(&key))
            .unwrap_or_else(PoisonError::into_inner);
        held.insert(key.clone());
        Claim { claims: self, key }
    }
}

/// A key that is held; dropping it frees the key.
#[derive(Debug)]
pub(crate) struct Claim<'a, K: Eq + Hash + Clone + Debug> {
    claims: &'a Claims<K>,
    key: K,
}

impl<K: Eq + Hash + Clone + Debug> Drop for Claim<'_, K> {
    fn drop(&mut self) {
        self.claims.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.claims.freed.notify_all();
    }
}

/// Layers that are not to be collected though nothing refers to them yet, counted by holder.
///
/// A key is `driver/layer-id` for a layer in the making, `driver/sha256:..` for a layer of an image
/// that an import counts on.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<HashMap<String, usize>>);

impl Pins {
    /// Pins a layer until the pin is dropped.
    pub(crate) fn pin(&self, driver: &str, layer: &str) -> Pin<'_> {
        let key = format!("{driver}/{layer}");
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *pins.entry(key.clone()).or_default() += 1;
        Pin { pins: self, key }
    }

    /// Whether a layer is pinned.
    pub(crate) fn contains(&self, driver: &str, layer: &str) -> bool {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pins.contains_key(&format!("{driver}/{layer}"))
    }
}

/// A pinned layer; dropping it takes the pin away.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    pins: &'a Pins,
    key: String,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_key_has_one_holder_at_a_time() {
        let claims = Claims::default();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _claim = claims.claim("key");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        let _other = (claims.claim("key"), claims.claim("another key"));
    }

    #[test]
    fn pins_are_counted() {
        let pins = Pins::default();
        let (one, two) = (pins.pin("vfs", "1"), pins.pin("vfs", "1"));
        drop(one);
        assert!(pins.contains("vfs", "1"), "the second pin was lost");
        drop(two);
        assert!(!pins.contains("vfs", "1"), "the pin outlived its holders");
    }
}
