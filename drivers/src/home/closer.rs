//! The end of a mount's file system, out of the way of whoever unmounts.
//!
//! When the last mount of an overlay goes, the kernel syncs the whole file system below it
//! (`ovl_sync_fs`), other people's dirty pages included: on a busy disk that takes from milliseconds
//! to seconds, for a layer that is often removed right after. So the driver keeps one more, private
//! mount of it, unmounts the visible one, which is then quick, and lets a thread close the private
//! one. Until that is done the directories are still in use for the kernel; who mounts or commits
//! the layer again waits for it.
//!
//! Several are closed at once, since syncs of one file system that run at the same time share its
//! writing. No more than [`QUEUE`] wait: each holds a file descriptor, and a disk that cannot keep up is
//! to be felt by those who unmount, not by the daemon.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::spawning;

/// Mounts that are closed at once.
const THREADS: usize = 8;
/// Mounts that wait to be closed.
const QUEUE: usize = 64;
/// How long a thread waits for the next one before it ends.
const LINGER: Duration = Duration::from_secs(5);

/// Becomes true once, for all who wait.
#[derive(Debug, Default)]
pub(super) struct Latch {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    /// Waits until it is true.
    pub(super) fn wait(&self) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while !*done {
            done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// Work that is to be done, such as to close a mount.
struct Closing {
    work: Box<dyn FnOnce() + Send>,
    latch: Arc<Latch>,
}

impl std::fmt::Debug for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closing").field("latch", &self.latch).finish_non_exhaustive()
    }
}

impl Closing {
    fn close(self) {
        (self.work)();
        self.latch.open();
    }
}

/// The threads that close mounts, started when there is something to close. Dropping it waits until all
/// are closed.
#[derive(Debug, Default)]
pub(super) struct Closer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Closing>,
    threads: usize,
    /// Threads among them that wait for work.
    waiting: usize,
    ending: bool,
}

impl Closer {
    /// Closes a mount soon; the latch opens when it is done.
    pub(super) fn close(&self, mount: OwnedFd) -> Arc<Latch> {
        self.run(move || {
            drop(mount);
            spawning::wait();
        })
    }

    /// Does some work soon; the latch opens when it is done.
    fn run(&self, work: impl FnOnce() + Send + 'static) -> Arc<Latch> {
        let latch = Arc::new(Latch::default());
        let closing = Closing { work: Box::new(work), latch: Arc::clone(&latch) };
        let mut state = self.shared.lock();
        let can_wait = state.queue.len() < QUEUE;
        if state.waiting <= state.queue.len() && state.threads < THREADS && can_wait {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("unmounter".to_owned());
            match thread.spawn(move || shared.run()) {
                Ok(_) => state.threads += 1,
                Err(error) => tracing::warn!(%error, "no thread to unmount"),
            }
        }
        if state.threads == 0 || !can_wait {
            drop(state);
            closing.close();
        } else {
            state.queue.push_back(closing);
            drop(state);
            self.shared.changed.notify_all();
        }
        latch
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(closing) = state.queue.pop_front() {
                drop(state);
                closing.close();
                state = self.lock();
                continue;
            }
            state.waiting += 1;
            let waited = self
                .changed
                .wait_timeout_while(state, LINGER, |state| state.queue.is_empty() && !state.ending);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
            if state.queue.is_empty() {
                state.threads -= 1;
                self.changed.notify_all();
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ending = true;
        self.shared.changed.notify_all();
        while state.threads > 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _};

    use super::*;

    fn is_closed(mut reader: PipeReader) -> bool {
        reader.read(&mut [0]).unwrap() == 0
    }

    #[test]
    fn what_is_waited_for_is_closed() {
        let closer = Closer::default();
        let (reader, writer) = std::io::pipe().unwrap();
        closer.close(writer.into()).wait();
        assert!(is_closed(reader), "the other end is still open");
    }

    #[test]
    fn dropping_closes_everything() {
        let closer = Closer::default();
        let mut readers = Vec::new();
        // More than may wait.
        for _ in 0..QUEUE + THREADS + 100 {
            let (reader, writer) = std::io::pipe().unwrap();
            closer.close(writer.into());
            readers.push(reader);
        }
        let threads = closer.shared.lock().threads;
        assert!((1..=THREADS).contains(&threads), "{threads} threads");
        drop(closer);
        assert!(readers.into_iter().all(is_closed), "a mount is left open");
    }
}
