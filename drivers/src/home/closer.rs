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

use super::crew::{Crew, Shared, State};
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
    opens: Opens,
}

/// Opens a latch when it is dropped, after the work or in its panic.
#[derive(Debug)]
struct Opens(Arc<Latch>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl std::fmt::Debug for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closing").field("opens", &self.opens).finish_non_exhaustive()
    }
}

impl Closing {
    fn close(self) {
        let Self { work, opens: _opens } = self;
        work();
    }
}

/// The threads that close mounts, started when there is something to close. Dropping it waits until all
/// are closed.
#[derive(Debug, Default)]
pub(super) struct Closer {
    crew: Crew<Todo>,
}

#[derive(Debug, Default)]
struct Todo {
    queue: VecDeque<Closing>,
    /// Threads that wait for work.
    waiting: usize,
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
        let closing = Closing { work: Box::new(work), opens: Opens(Arc::clone(&latch)) };
        let mut state = self.crew.lock();
        let waiting = state.todo.queue.len();
        let can_wait = waiting < QUEUE;
        if state.todo.waiting <= waiting && state.threads() < THREADS && can_wait {
            let started = self.crew.start(&mut state, "unmounter", run);
            started.unwrap_or_else(|error| tracing::warn!(%error, "no thread to unmount"));
        }
        if state.threads() == 0 || !can_wait {
            drop(state);
            closing.close();
        } else {
            state.todo.queue.push_back(closing);
            drop(state);
            self.crew.wake();
        }
        latch
    }
}

fn run(shared: &Shared<Todo>) -> MutexGuard<'_, State<Todo>> {
    let mut state = shared.lock();
    loop {
        if let Some(closing) = state.todo.queue.pop_front() {
            drop(state);
            closing.close();
            state = shared.lock();
            continue;
        }
        state.todo.waiting += 1;
        let idle = |state: &mut State<Todo>| state.todo.queue.is_empty() && !state.ending;
        state = shared.wait(state, LINGER, idle);
        state.todo.waiting -= 1;
        if state.todo.queue.is_empty() {
            return state;
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
    fn a_panic_lets_go_whoever_waits() {
        let closer = Closer::default();
        // More than there are threads.
        let latches: Vec<_> =
            (0..2 * THREADS).map(|_| closer.run(|| panic!("the panic that is wanted"))).collect();
        latches.iter().for_each(|latch| latch.wait());
        let (reader, writer) = std::io::pipe().unwrap();
        closer.close(writer.into()).wait();
        assert!(is_closed(reader), "the other end is still open");
        assert!(closer.crew.lock().threads() <= THREADS, "threads are counted");
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
        let threads = closer.crew.lock().threads();
        assert!((1..=THREADS).contains(&threads), "{threads} threads");
        drop(closer);
        assert!(readers.into_iter().all(is_closed), "a mount is left open");
    }
}
