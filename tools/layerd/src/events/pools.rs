//! Events of pools: they grow by themselves, so they are looked at now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drivers::{Fill, PoolReport};

use super::Note;
use crate::store::Store;

/// How often pools are looked at: as often as their driver does when they are far from full.
const EVERY: Duration = Duration::from_secs(5);
/// From how many per cent in use a pool that cannot grow is said to be low.
const LOW: u64 = 90;

/// How a pool is, told when it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// There is room.
    #[default]
    Good,
    /// Nearly full, and nothing to grow by.
    Low,
    /// Writes that need space fail, or wait for it.
    Full,
    /// The kernel takes no writes.
    ReadOnly,
    /// It says nothing of itself.
    Failed,
}

impl State {
    fn action(self) -> &'static str {
        match self {
            Self::Good => "recover",
            Self::Low => "low",
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Failed => "fail",
        }
    }
}

/// What was last seen of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    data: u64,
    metadata: u64,
    state: State,
}

/// Tells when pools have grown, run low or full, and are well again, for as long as it is polled.
pub(crate) async fn watch(store: Arc<Store>) {
    let mut seen = BTreeMap::new();
    loop {
        // A store without a pool is left alone, by threads too.
        if !store.open_drivers().iter().any(|driver| driver.pool().is_some()) {
            tokio::time::sleep(EVERY).await;
            continue;
        }
        let (store, mut before) = (Arc::clone(&store), std::mem::take(&mut seen));
        let looking = tokio::task::spawn_blocking(move || {
            look(&store, &mut before);
            before
        });
        seen = looking.await.unwrap_or_default();
        tokio::time::sleep(EVERY).await;
    }
}

fn look(store: &Store, seen: &mut BTreeMap<&'static str, Seen>) {
    for driver in store.open_drivers() {
        let Some(report) = driver.pool().map(drivers::Pool::report) else { continue };
        let name = driver.name();
        let before = seen.get(name).copied();
        let (notes, now) = match report {
            Ok(report) => compare(name, before, &report),
            Err(error) => failed(name, before, &error),
        };
        notes.into_iter().for_each(|note| store.events.tell(note));
        seen.insert(name, now);
    }
}

/// What is to be told of a pool, and what is then known of it.
fn compare(driver: &str, before: Option<Seen>, report: &PoolReport) -> (Vec<Note>, Seen) {
    let now =
        Seen { data: report.data.total, metadata: report.metadata.total, state: state(report) };
    let mut notes = Vec::new();
    if before.is_some_and(|before| now.data > before.data || now.metadata > before.metadata) {
        notes.push(note("extend", driver, report));
    }
    if now.state != before.unwrap_or_default().state {
        notes.push(note(now.state.action(), driver, report));
    }
    (notes, now)
}

fn state(report: &PoolReport) -> State {
    let least = report.threshold.map_or(LOW, |threshold| threshold.max(LOW));
    let is_low = |fill: Fill| fill.used.saturating_mul(100) >= fill.total.saturating_mul(least);
    match report.mode.as_str() {
        mode if mode.starts_with("out_of_data_space") => State::Full,
        mode if mode.starts_with("ro") => State::ReadOnly,
        // What a pool can still grow by it takes by itself.
        _ if report.spare == 0 && (is_low(report.data) || is_low(report.metadata)) => State::Low,
        _ => State::Good,
    }
}

/// The same of one that cannot be asked; it keeps its size.
fn failed(driver: &str, before: Option<Seen>, error: &dyn std::fmt::Display) -> (Vec<Note>, Seen) {
    let before = before.unwrap_or_default();
    let now = Seen { state: State::Failed, ..before };
    let note = Note::new("pool", now.state.action(), driver)
        .with("driver", driver)
        .with("error", error.to_string());
    (Vec::from_iter((before.state != now.state).then_some(note)), now)
}

/// Something that happened to a pool, and how full it is.
pub(crate) fn note(action: &'static str, driver: &str, report: &PoolReport) -> Note {
    let fill = |fill: Fill| format!("{}/{}", fill.used, fill.total);
    Note::new("pool", action, report.name.clone())
        .with("driver", driver)
        .with("data", fill(report.data))
        .with("metadata", fill(report.metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn report(used: u64, total: u64, spare: u64) -> PoolReport {
        PoolReport {
            name: "pool".to_owned(),
            source: String::new(),
            devices: Vec::new(),
            block_size: 1,
            data: Fill { used, total },
            metadata: Fill { used: 1, total: 100 },
            spare,
            threshold: Some(80),
            mode: "rw".to_owned(),
            growth_per_day: None,
            base_size: 1,
            deferred: 0,
        }
    }

    fn actions(notes: Vec<Note>) -> Vec<String> {
        let events = notes.into_iter().map(|note| note.into_event(1, Timestamp::default()));
        events.map(|event| event.action).collect()
    }

    #[test]
    fn what_happens_to_a_pool_is_told_once() {
        let mut before = None;
        for (used, total, spare, mode, expected, why) in [
            (50, 100, 100, "rw", &[][..], "how it was at the start"),
            (95, 100, 100, "rw", &[], "it can grow"),
            (95, 200, 0, "rw", &["extend"], "it has grown"),
            (195, 200, 0, "rw", &["low"], "nothing is left"),
            (196, 200, 0, "rw", &[], "that was told"),
            (200, 200, 0, "out_of_data_space", &["full"], "not a block"),
            (190, 200, 0, "rw", &["low"], "a little was freed"),
            (190, 300, 50, "rw", &["extend", "recover"], "someone gave it a disk"),
            (190, 300, 50, "ro", &["read-only"], "the disk failed"),
            (190, 300, 50, "ro, needs_check", &[], "that was told"),
            (190, 300, 50, "rw", &["recover"], "it was mended"),
            (296, 300, 0, "rw", &["low"], "it is low again"),
        ] {
            let report = PoolReport { mode: mode.to_owned(), ..report(used, total, spare) };
            let (notes, now) = compare("devicemapper", before, &report);
            before = Some(now);
            assert_eq!(actions(notes), expected, "{why}");
        }
    }

    #[test]
    fn a_pool_that_cannot_be_asked_has_failed() {
        let (notes, now) = failed("devicemapper", None, &"gone");
        assert_eq!(actions(notes), ["fail"], "told");
        let (notes, now) = failed("devicemapper", Some(now), &"gone");
        assert_eq!(actions(notes), [""; 0], "once");
        let (notes, _) = compare("devicemapper", Some(now), &report(5, 100, 0));
        assert_eq!(actions(notes), ["extend", "recover"], "it is there");
    }
}
