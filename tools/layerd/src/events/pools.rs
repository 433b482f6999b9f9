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

/// What was last seen of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    data: u64,
    metadata: u64,
    low: bool,
}

/// Tells when pools have grown or run low, for as long as it is polled.
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
        let Some(Ok(report)) = driver.pool().map(drivers::Pool::report) else { continue };
        let (notes, now) = compare(driver.name(), seen.get(driver.name()).copied(), &report);
        notes.into_iter().for_each(|note| store.events.tell(note));
        seen.insert(driver.name(), now);
    }
}

/// What is to be told of a pool, and what is then known of it.
fn compare(driver: &str, before: Option<Seen>, report: &PoolReport) -> (Vec<Note>, Seen) {
    let least = report.threshold.map_or(LOW, |threshold| threshold.max(LOW));
    let is_low = |fill: Fill| fill.used.saturating_mul(100) >= fill.total.saturating_mul(least);
    // What a pool can still grow by it takes by itself.
    let low = report.spare == 0 && (is_low(report.data) || is_low(report.metadata));
    let now = Seen { data: report.data.total, metadata: report.metadata.total, low };
    let note = |action| {
        let fill = |fill: Fill| format!("{}/{}", fill.used, fill.total);
        Note::new("pool", action, report.name.clone())
            .with("driver", driver)
            .with("data", fill(report.data))
            .with("metadata", fill(report.metadata))
    };
    let mut notes = Vec::new();
    if before.is_some_and(|before| now.data > before.data || now.metadata > before.metadata) {
        notes.push(note("extend"));
    }
    if low && !before.is_some_and(|before| before.low) {
        notes.push(note("low"));
    }
    (notes, now)
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

    #[test]
    fn growth_and_lowness_are_told_once() {
        let mut before = None;
        let mut told = |used, total, spare| {
            let (notes, now) = compare("devicemapper", before, &report(used, total, spare));
            before = Some(now);
            let events = notes.into_iter().map(|note| note.into_event(1, Timestamp::default()));
            events.map(|event| event.action).collect::<Vec<_>>()
        };
        let nothing: Vec<String> = Vec::new();
        assert_eq!(told(50, 100, 100), nothing, "how it was at the start");
        assert_eq!(told(95, 100, 100), nothing, "it can grow");
        assert_eq!(told(95, 200, 0), ["extend"], "it has grown");
        assert_eq!(told(195, 200, 0), ["low"], "nothing is left");
        assert_eq!(told(196, 200, 0), nothing, "that was told");
        assert_eq!(told(196, 300, 0), ["extend"], "someone gave it a disk");
        assert_eq!(told(296, 300, 0), ["low"], "it is low again");
    }
}
