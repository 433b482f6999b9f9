//! Noticing that a directory is asked for one name after the other.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::union::lock;

/// Directories that are watched at a time; more than these push each other out.
const SLOTS: u8 = 64;
/// So many names within a short time are the beginning of a series, of which more is to come.
const SERIES: u32 = 8;
/// The same, where a directory beside this one has just been read so.
const SERIES_BESIDE: u32 = 2;
/// How long a directory is taken as the neighbour of one that was read.
const BESIDE: Duration = Duration::from_millis(200);
/// Names that are listed for each that was looked up: what it costs at most if none of them is wanted.
const SHARE: u32 = 32;
/// The most names that are listed for one wish.
const MOST: u32 = 1024;

/// A directory that is worth listing, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The node.
    pub node: u64,
    /// How many names were looked up there, one by one.
    pub asked: u32,
    /// The CPU of the client that they were looked up for, which is not to be disturbed; none if it is not known.
    pub cpu: Option<usize>,
}

impl Wish {
    /// How many further names of it are wanted.
    pub fn names(self) -> u32 {
        self.asked.saturating_mul(SHARE).clamp(SHARE * SERIES, MOST)
    }

    /// The wish as it is sent.
    pub fn words(self) -> [[u8; 8]; 3] {
        let cpu = self.cpu.and_then(|cpu| u64::try_from(cpu).ok()).unwrap_or(u64::MAX);
        [self.node, self.names().into(), cpu].map(u64::to_ne_bytes)
    }
}

/// What is remembered of a directory.
#[derive(Clone, Copy, Debug)]
struct Slot {
    node: u64,
    parent: Option<u64>,
    since: Instant,
    asked: u32,
    /// At how many the next wish is due.
    due: u32,
    /// When a directory in this one was last listed.
    listed_below: Option<Instant>,
}

/// Who was asked for what lately.
#[derive(Debug)]
pub(super) struct Watch {
    /// How long the beginning of a series may take. A program that opens what it needs, and works with
    /// it, is slower.
    burst: Duration,
    slots: [Mutex<Option<Slot>>; SLOTS as usize],
}

impl Watch {
    /// Nothing was asked for yet.
    pub(super) fn new(burst: Duration) -> Self {
        Self { burst, slots: std::array::from_fn(|_| Mutex::default()) }
    }

    fn slot(&self, node: u64) -> &Mutex<Option<Slot>> {
        // Node numbers are given out one after the other.
        &self.slots[usize::from(node.to_le_bytes()[0] % SLOTS)]
    }

    /// Notes a name that was found in `node`.
    pub(super) fn found(&self, node: u64, parent: impl FnOnce() -> Option<u64>) -> Option<Wish> {
        self.found_at(Instant::now(), node, parent)
    }

    fn found_at(
        &self,
        now: Instant,
        node: u64,
        parent: impl FnOnce() -> Option<u64>,
    ) -> Option<Wish> {
        let known = lock(self.slot(node)).is_some_and(|slot| slot.node == node);
        // Asked without a lock, for it takes others.
        let fresh = (!known).then(|| self.fresh(now, node, parent()));
        let (wish, above) = {
            let mut slot = lock(self.slot(node));
            if slot.is_none_or(|slot| slot.node != node) {
                *slot = Some(fresh?);
            }
            let slot = slot.as_mut()?;
            (slot.note(now, self.burst)?, slot.parent)
        };
        if let Some(above) = above {
            self.listed_below(now, above);
        }
        Some(wish)
    }

    fn fresh(&self, now: Instant, node: u64, parent: Option<u64>) -> Slot {
        let recent = |slot: Slot| {
            let at = slot.listed_below.filter(|_| Some(slot.node) == parent)?;
            (now.saturating_duration_since(at) < BESIDE).then_some(())
        };
        let beside = parent.and_then(|parent| (*lock(self.slot(parent))).and_then(recent));
        let due = if beside.is_some() { SERIES_BESIDE } else { SERIES };
        Slot { node, parent, since: now, asked: 0, due, listed_below: None }
    }

    fn listed_below(&self, now: Instant, node: u64) {
        let mut slot = lock(self.slot(node));
        let slot = match &mut *slot {
            Some(slot) if slot.node == node => slot,
            other => other.insert(Slot {
                node,
                parent: None,
                since: now,
                asked: 0,
                due: SERIES,
                listed_below: None,
            }),
        };
        slot.listed_below = Some(now);
    }
}

impl Slot {
    fn note(&mut self, now: Instant, burst: Duration) -> Option<Wish> {
        if self.asked < SERIES && now.saturating_duration_since(self.since) > burst {
            self.since = now;
            self.asked = 0;
        }
        self.asked = self.asked.saturating_add(1);
        if self.asked < self.due {
            return None;
        }
        self.due = self.asked.saturating_mul(2).max(SERIES);
        Some(Wish { node: self.node, asked: self.asked, cpu: crate::cpus::given_way() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// At which of `count` names, `apart` from each other, a wish arises.
    fn wishes(watch: &Watch, from: Instant, node: u64, count: u32, apart: Duration) -> Vec<u32> {
        (1..=count)
            .filter(|number| watch.found_at(from + apart * *number, node, || Some(1)).is_some())
            .collect()
    }

    #[test]
    fn a_series_is_listed_at_a_cost_in_proportion_to_its_length() {
        let now = Instant::now();
        let cases: [(u32, Duration, &[u32]); 4] = [
            (7, 20 * US, &[]),
            (100, 20 * US, &[8, 16, 32, 64]),
            (100, 250 * US, &[8, 16, 32, 64]),
            (1000, 400 * US, &[]),
        ];
        for (count, apart, expected) in cases {
            let found = wishes(&Watch::new(Duration::from_millis(2)), now, 77, count, apart);
            assert_eq!(found, expected, "{count} names, {apart:?} apart");
        }
        let listed: u32 =
            [8, 16, 32].map(|asked| Wish { node: 7, asked, cpu: None }.names()).iter().sum();
        assert_eq!(listed, 256 + 512 + 1024, "names that are listed");
    }

    #[test]
    fn the_next_directory_of_a_tree_is_known_sooner() {
        let (watch, now) = (Watch::new(Duration::from_millis(2)), Instant::now());
        assert_eq!(wishes(&watch, now, 10, 9, 20 * US), [8], "the first");
        let soon = now + Duration::from_millis(1);
        assert_eq!(wishes(&watch, soon, 11, 9, 20 * US), [2, 8], "the one beside it");
        let late = now + Duration::from_secs(1);
        assert_eq!(wishes(&watch, late, 12, 9, 20 * US), [8], "a second later");
        let elsewhere = watch.found_at(soon, 13, || Some(2));
        assert_eq!(elsewhere, None, "one of another directory");
        assert_eq!(watch.found_at(soon + US, 13, || Some(2)), None, "one of another directory");
    }

    #[test]
    fn directories_that_share_a_slot_push_each_other_out() {
        let (watch, now) = (Watch::new(Duration::from_millis(2)), Instant::now());
        for number in 0..100 {
            let node = if number % 2 == 0 { 3 } else { 3 + u64::from(SLOTS) };
            assert_eq!(watch.found_at(now, node, || None), None, "name {number}");
        }
    }
}
