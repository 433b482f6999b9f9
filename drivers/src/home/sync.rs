//! One syncfs(2) for all who wait for one.
//!
//! Commits of different layers come at the same time on a busy machine, and each needs that everything
//! written before it is on the disk. A sync that begins after a caller has come serves that caller,
//! whoever began it: while one is under way, all who come wait together for the next.

use std::sync::{Condvar, Mutex, PoisonError};

use rustix::io::Errno;

/// The syncs of one file system.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    state: Mutex<State>,
    ended: Condvar,
}

/// Syncs are numbered from 1 in the order in which they begin; one is under way at a time.
#[derive(Debug, Default)]
struct State {
    begun: u64,
    ended: u64,
    /// Callers that wait for a sync to end.
    waiting: usize,
    /// The last one that failed, and why: what it did not write may be lost for good, so that nobody
    /// whose data it may have been is told otherwise.
    failed: Option<(u64, Errno)>,
}

impl Syncs {
    /// Returns when a sync that began after the call has ended, by running `sync` or by waiting for
    /// another caller's.
    pub(super) fn sync(&self, sync: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.begun + 1;
        while state.ended < mine && state.begun != state.ended {
            state.waiting += 1;
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        if state.ended < mine {
            state.begun = mine;
            tracing::debug!(others = state.waiting, "sync");
            drop(state);
            let outcome = sync();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.ended = mine;
            if let Err(errno) = outcome {
                state.failed = Some((mine, errno));
            }
            self.ended.notify_all();
        }
        match state.failed {
            Some((number, errno)) if number >= mine => Err(errno),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// Waits until so many callers wait for a sync to end.
    fn until_waiting(syncs: &Syncs, count: usize) {
        while syncs.state.lock().unwrap().waiting < count {
            thread::yield_now();
        }
    }

    fn count(runs: &AtomicUsize) -> Result<(), Errno> {
        runs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    #[test]
    fn a_sync_alone_is_run_every_time() {
        let (syncs, runs) = (Syncs::default(), AtomicUsize::new(0));
        for expected in 1..=3 {
            syncs.sync(|| count(&runs)).unwrap();
            assert_eq!(runs.load(Ordering::SeqCst), expected, "one run for each call");
        }
    }

    #[test]
    fn those_who_come_during_a_sync_share_the_next() {
        let (syncs, runs) = (Syncs::default(), AtomicUsize::new(0));
        let (begin, begun) = channel();
        let (go_on, told) = channel();
        thread::scope(|scope| {
            let syncs = &syncs;
            scope.spawn(move || {
                syncs.sync(|| {
                    begin.send(()).unwrap();
                    told.recv().unwrap();
                    Ok(())
                })
            });
            begun.recv().unwrap();
            let others: Vec<_> =
                (0..8).map(|_| scope.spawn(|| syncs.sync(|| count(&runs)))).collect();
            until_waiting(syncs, 8);
            assert_eq!(runs.load(Ordering::SeqCst), 0, "one sync at a time");
            go_on.send(()).unwrap();
            for other in others {
                other.join().unwrap().unwrap();
            }
        });
        assert_eq!(runs.into_inner(), 1, "eight callers share one sync");
    }

    #[test]
    fn a_failure_is_told_to_all_whose_sync_it_was_and_to_nobody_later() {
        let syncs = Syncs::default();
        assert_eq!(syncs.sync(|| Err(Errno::IO)), Err(Errno::IO), "the caller's own");
        assert_eq!(syncs.sync(|| Ok(())), Ok(()), "a later one");
    }
}
