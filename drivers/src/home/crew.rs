//! Threads that work behind the calls on what these leave for them.
//!
//! A thread is started when there is something to do and ends when there is nothing more. Should the work panic, the
//! piece that it had taken is dropped and the thread goes on with the next: nobody waits for one that is gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lock;

/// What calls and threads share, and the threads. Dropping it waits until all have ended.
#[derive(Debug)]
pub(crate) struct Crew<T> {
    shared: Arc<Shared<T>>,
}

/// What they share.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// What is behind the lock.
#[derive(Debug, Default)]
pub(crate) struct State<T> {
    /// What there is to do.
    pub(crate) todo: T,
    /// Whether the owner waits for the threads' end.
    pub(crate) ending: bool,
    threads: usize,
}

impl<T> State<T> {
    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }
}

impl<T: Default> Default for Crew<T> {
    fn default() -> Self {
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        Self { shared: Arc::new(Shared { state, changed }) }
    }
}

impl<T: Send + 'static> Crew<T> {
    /// What there is to do, for one at a time.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.shared.lock()
    }

    /// Tells the threads that there is more to do.
    pub(crate) fn wake(&self) {
        self.shared.changed.notify_all();
    }

    /// Starts one more thread. `work` returns with the lock under which it found nothing more to do, so that whoever
    /// takes it next knows that the thread is gone.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub(crate) fn start<F>(&self, state: &mut State<T>, name: &str, work: F) -> std::io::Result<()>
    where
        F: Fn(&Shared<T>) -> MutexGuard<'_, State<T>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let run = move || {
            // The state is whole whenever `work` is in foreign code, where alone it can panic.
            let mut state = loop {
                match catch_unwind(AssertUnwindSafe(|| work(&shared))) {
                    Ok(state) => break state,
                    Err(_) => tracing::error!("a thread goes on after a panic"),
                }
            };
            // What it holds is gone when nobody waits any more.
            drop(work);
            state.threads -= 1;
            drop(state);
            shared.changed.notify_all();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        state.threads += 1;
        Ok(())
    }
}

impl<T> Shared<T> {
    /// What there is to do, for one at a time.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    /// Waits while a condition holds, and no longer than `most`.
    pub(crate) fn wait<'s>(
        &self,
        state: MutexGuard<'s, State<T>>,
        most: Duration,
        condition: impl FnMut(&mut State<T>) -> bool,
    ) -> MutexGuard<'s, State<T>> {
        let waited = self.changed.wait_timeout_while(state, most, condition);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl<T> Drop for Crew<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ending = true;
        self.shared.changed.notify_all();
        while state.threads > 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
