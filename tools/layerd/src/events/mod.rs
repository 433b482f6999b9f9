//! What the store does, told as it is done.
//!
//! The last events are kept in a ring. A reader has a place in it, not a queue of its own: telling an
//! event costs the same however many read and however slowly they do, and a reader whose place the
//! ring has passed learns how many events it has missed.

mod filter;
mod notes;
pub(crate) mod pools;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use layerd_api::Event;
use tokio::sync::watch;

pub(crate) use filter::Filter;
pub(crate) use notes::Note;

use crate::clock::Timestamp;

/// How many events are kept.
pub(crate) const KEPT: usize = 1024;

/// An event with its time as a number.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) at: Timestamp,
    pub(crate) event: Event,
}

/// The events of one store.
#[derive(Debug, Default)]
pub(crate) struct Events {
    ring: Mutex<Ring>,
    news: watch::Sender<News>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Told>>,
    /// The number of the newest event.
    newest: u64,
}

/// What readers wait for.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    newest: u64,
    ended: bool,
}

/// What a reader finds at its place.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Events that were there and are gone.
    pub(crate) lost: u64,
    pub(crate) events: Vec<Arc<Told>>,
}

impl Events {
    /// Tells an event to whoever reads. Never waits for a reader.
    pub(crate) fn tell(&self, note: Note) {
        let mut ring = self.lock();
        let (at, seq) = (Timestamp::now(), ring.newest + 1);
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Arc::new(Told { at, event: note.into_event(seq, at) }));
        ring.newest = seq;
        // Under the lock, so that numbers reach the readers in their order.
        self.news.send_modify(|news| news.newest = seq);
    }

    /// How many events were told.
    pub(crate) fn newest(&self) -> u64 {
        self.lock().newest
    }

    /// Has readers come to their end when they have read everything.
    pub(crate) fn end(&self) {
        self.news.send_modify(|news| news.ended = true);
    }

    /// A place behind the newest event, or at the first kept one since a time, or behind the event
    /// of a number.
    pub(crate) fn reader(&self, since: Option<Timestamp>, after: Option<u64>) -> Reader {
        let news = self.news.subscribe();
        let ring = self.lock();
        let place = match (after, since) {
            // A number of another daemon's, who came further.
            (Some(after), _) if after > ring.newest => 0,
            (Some(after), _) => after,
            (None, Some(since)) => {
                let later = ring.kept.iter().filter(|told| told.at >= since).count();
                ring.newest - later as u64
            }
            (None, None) => ring.newest,
        };
        Reader { place, news }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the ring.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The number of the last event that was read.
    place: u64,
    news: watch::Receiver<News>,
}

impl Reader {
    /// What there is behind the reader's place, up to `limit` events, which are then read.
    pub(crate) fn take(&mut self, events: &Events, limit: usize) -> Batch {
        let ring = events.lock();
        let oldest = ring.newest + 1 - ring.kept.len() as u64;
        let lost = oldest.saturating_sub(self.place + 1);
        self.place += lost;
        let skipped = usize::try_from(self.place + 1 - oldest).unwrap_or(usize::MAX);
        let events: Vec<_> = ring.kept.iter().skip(skipped).take(limit).map(Arc::clone).collect();
        self.place += events.len() as u64;
        Batch { lost, events }
    }

    /// Waits until there is something to take; false when nothing more will come.
    pub(crate) async fn wait(&mut self) -> bool {
        let place = self.place;
        let news = self.news.wait_for(|news| news.newest > place || news.ended).await;
        news.is_ok_and(|news| news.newest > place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(events: &Events, count: u64) {
        for number in 0..count {
            events.tell(Note::new("layer", "commit", number.to_string()));
        }
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|told| told.event.seq).collect()
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
        let events = Events::default();
        tell(&events, 3);
        let mut reader = events.reader(None, None);
        assert_eq!(reader.take(&events, 10).events.len(), 0, "what was before it came");
        tell(&events, 2);
        assert_eq!(numbers(&reader.take(&events, 1)), [4], "no more than it wants");
        tell(&events, KEPT as u64 + 7);
        let batch = reader.take(&events, 2);
        assert_eq!(batch.lost, 8, "5 and the first seven of the others");
        assert_eq!(numbers(&batch), [13, 14], "the oldest that are kept");
        assert_eq!(reader.take(&events, KEPT).lost, 0, "what is lost is told once");
        assert_eq!(reader.take(&events, KEPT).events.len(), 0, "everything was read");
    }

    #[test]
    fn a_reader_begins_where_it_says() {
        let events = Events::default();
        tell(&events, 4);
        let third = Arc::clone(&events.lock().kept[2]);
        let first = |since, after| numbers(&events.reader(since, after).take(&events, KEPT));
        assert_eq!(first(None, None), [] as [u64; 0], "from now on");
        assert_eq!(first(Some(Timestamp::default()), None), [1, 2, 3, 4], "from 1970 on");
        assert_eq!(first(None, Some(1)), [2, 3, 4], "behind a number");
        assert_eq!(first(None, Some(99)), [1, 2, 3, 4], "behind a number of a former daemon");
        let since = first(Some(third.at), None);
        assert!(since.ends_with(&[3, 4]) && !since.is_empty(), "since the third: {since:?}");
        tell(&events, KEPT as u64);
        let batch = events.reader(None, Some(1)).take(&events, 1);
        assert_eq!((batch.lost, numbers(&batch)), (3, vec![5]), "a number that is gone");
    }

    #[tokio::test]
    async fn readers_wake_and_end() {
        let events = Events::default();
        let mut reader = events.reader(None, None);
        tell(&events, 1);
        assert!(reader.wait().await, "an event came");
        events.end();
        assert!(reader.wait().await, "there is still one to be read");
        assert_eq!(numbers(&reader.take(&events, 9)), [1], "the last one");
        assert!(!reader.wait().await, "nothing more comes");
    }
}
