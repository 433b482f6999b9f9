//! Makes durable, a little later, what was written in a hurry.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Database;

/// How long a change may stay in memory alone.
const DELAY: Duration = Duration::from_millis(200);

/// The database with the thread that syncs it.
pub(super) struct Flusher {
    db: Arc<Database>,
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    dirty: bool,
    /// Somebody waits for the next sync.
    hurry: bool,
    closing: bool,
    /// Syncs that have begun, and that have ended.
    begun: u64,
    ended: u64,
    /// The last sync that failed.
    failed: Option<u64>,
}

impl Flusher {
    /// Starts the thread. Without one (no memory for it) every change waits for the next durable
    /// transaction or for the end.
    pub(super) fn start(db: Arc<Database>) -> Self {
        let signal = Arc::new(Signal::default());
        let (their_db, their_signal) = (Arc::clone(&db), Arc::clone(&signal));
        let thread = std::thread::Builder::new()
            .name("catalogue-sync".to_owned())
            .spawn(move || their_signal.run(&their_db))
            .inspect_err(|error| tracing::warn!(%error, "no thread to sync the catalogue"))
            .ok();
        Self { db, signal, thread }
    }

    /// The database.
    pub(super) fn db(&self) -> &Database {
        &self.db
    }

    /// Returns when everything that was written before is durable. All who wait share a sync.
    ///
    /// # Errors
    /// When it could not be written; the log says why.
    pub(super) fn settle(&self) -> std::io::Result<()> {
        if self.thread.is_none() {
            return if sync(&self.db) { Ok(()) } else { Err(unwritten()) };
        }
        let mut state = self.signal.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.begun + 1;
        state.dirty = true;
        state.hurry = true;
        self.signal.changed.notify_all();
        let waited = self.signal.changed.wait_while(state, |state| state.ended < mine);
        state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.failed.is_some_and(|failed| failed >= mine) { Err(unwritten()) } else { Ok(()) }
    }

    /// Notes that something is to be made durable.
    pub(super) fn soon(&self) {
        let mut state = self.signal.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.dirty {
            state.dirty = true;
            self.signal.changed.notify_all();
        }
    }
}

impl Signal {
    fn run(&self, db: &Database) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            state = self
                .changed
                .wait_while(state, |state| !state.dirty && !state.closing)
                .unwrap_or_else(PoisonError::into_inner);
            if !state.closing {
                let waited = self
                    .changed
                    .wait_timeout_while(state, DELAY, |state| !state.closing && !state.hurry);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let (dirty, closing) = (state.dirty, state.closing);
            if dirty {
                state.begun += 1;
                (state.dirty, state.hurry) = (false, false);
                drop(state);
                let done = sync(db);
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.ended = state.begun;
                if !done {
                    state.failed = Some(state.begun);
                }
                self.changed.notify_all();
            }
            if closing {
                return;
            }
        }
    }
}

fn unwritten() -> std::io::Error {
    std::io::Error::other("the catalogue cannot be synced, see the daemon's log")
}

/// An empty durable transaction carries all earlier ones to disk. Says whether it did.
fn sync(db: &Database) -> bool {
    let synced = db.begin_write().map_err(redb::Error::from).and_then(|txn| Ok(txn.commit()?));
    if let Err(error) = &synced {
        tracing::error!(%error, "the catalogue cannot be synced");
    }
    synced.is_ok()
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.signal.state.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.signal.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").finish_non_exhaustive()
    }
}
