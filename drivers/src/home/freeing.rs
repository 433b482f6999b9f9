//! How directories that nobody needs any more are deleted, at once or out of the way of calls.
//!
//! Behind the calls, a thread gathers what comes in a quarter of a second and deletes it one by one: what is
//! due before a deletion is done once for all of them, and whoever makes and removes layers in one go does not
//! meet the deletions of the ones before at every call. When nothing has come for some seconds, it
//! sees that the space is freed, of which the next calls would have felt something.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::fs::Mode;

use super::crew::{Crew, Shared, State};
use super::{Home, MODE, fs, lock};

/// How long a deletion waits for others.
const GATHER: Duration = Duration::from_millis(250);
/// How long nothing must have come before the space is freed.
const IDLE: Duration = Duration::from_secs(2);
/// The time from one step of that to the next.
const STEP: Duration = Duration::from_millis(250);
/// The most steps: no more is gained by them then than by waiting for the kernel.
const MOST_STEPS: usize = 120;

/// How a driver deletes directories.
pub(crate) trait Delete: Send + Sync {
    /// Deletes `dir/name` with all below it, in a place where names do not matter; what is gone already is
    /// no error.
    fn delete(&self, dir: &OwnedFd, name: &OsStr) -> cow::Result<()>;

    /// Does what is due before any number of deletions in a place.
    fn ready(&self, _place: &OwnedFd) -> cow::Result<()> {
        Ok(())
    }

    /// Sees that the space of what was deleted is freed, some time after it was; whether there is more to do.
    fn free(&self, _place: &OwnedFd) -> cow::Result<bool> {
        Ok(false)
    }
}

impl<F: Fn(&OwnedFd, &OsStr) -> cow::Result<()> + Send + Sync> Delete for F {
    fn delete(&self, dir: &OwnedFd, name: &OsStr) -> cow::Result<()> {
        self(dir, name)
    }
}

/// A [`Delete`] that can be shown and shared.
#[derive(Clone)]
pub(super) struct Deleter(pub(super) Arc<dyn Delete>);

impl Deleter {
    /// Deletes one directory now.
    pub(super) fn delete(&self, place: &OwnedFd, name: &OsStr) -> cow::Result<()> {
        self.0.ready(place)?;
        self.0.delete(place, name)
    }
}

impl Default for Deleter {
    fn default() -> Self {
        Self(Arc::new(|dir: &OwnedFd, name: &OsStr| fs::remove_tree(dir, name)))
    }
}

impl std::fmt::Debug for Deleter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deleter")
    }
}

/// A directory of `tmp` or `trash` that is to be deleted; its name is busy as long as this is there.
#[derive(Debug)]
struct Doomed {
    driver: &'static str,
    place: Arc<OwnedFd>,
    name: String,
    deleter: Deleter,
    busy: Arc<Mutex<HashSet<String>>>,
}

impl Doomed {
    fn tell(&self, outcome: cow::Result<()>) {
        if let Err(error) = outcome {
            let driver = self.driver;
            tracing::warn!(driver, name = self.name, %error, "space is not freed yet");
        }
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        lock(&self.busy).remove(&self.name);
    }
}

/// Deletes directories of one home, of which a failure is logged.
fn delete_all(batch: &[Doomed]) {
    let Some(first) = batch.first() else { return };
    if let Err(error) = first.deleter.0.ready(&first.place) {
        first.tell(Err(error));
        return;
    }
    for doomed in batch {
        doomed.tell(doomed.deleter.0.delete(&doomed.place, doomed.name.as_ref()));
    }
}

/// The thread that deletes behind the calls, started when there is something to delete. Dropping it waits
/// until all is deleted.
#[derive(Debug, Default)]
pub(super) struct Freer {
    crew: Crew<Vec<Doomed>>,
}

type Queue = Shared<Vec<Doomed>>;
type Locked<'s> = MutexGuard<'s, State<Vec<Doomed>>>;

impl Freer {
    fn push(&self, doomed: Doomed) {
        let mut state = self.crew.lock();
        state.todo.push(doomed);
        if state.threads() > 0 {
            self.crew.wake();
        } else if let Err(error) = self.crew.start(&mut state, "freer", run) {
            tracing::warn!(%error, "no thread to free space");
            let batch = std::mem::take(&mut state.todo);
            drop(state);
            delete_all(&batch);
        }
    }
}

fn run(queue: &Queue) -> Locked<'_> {
    let mut state = queue.lock();
    while !state.todo.is_empty() {
        state = queue.wait(state, GATHER, |state| !state.ending);
        let batch = std::mem::take(&mut state.todo);
        drop(state);
        delete_all(&batch);
        let last = batch.last().map(|last| (last.deleter.clone(), Arc::clone(&last.place)));
        drop(batch);
        state = queue.lock();
        if let Some((deleter, place)) = last {
            state = free(queue, state, &deleter, &place);
        }
    }
    state
}

/// Sees that space is freed when nothing more comes; returns when something does.
fn free<'s>(
    queue: &'s Queue,
    mut state: Locked<'s>,
    deleter: &Deleter,
    place: &OwnedFd,
) -> Locked<'s> {
    let is_idle = |state: &mut State<Vec<Doomed>>| state.todo.is_empty() && !state.ending;
    let mut pause = IDLE;
    for _ in 0..MOST_STEPS {
        state = queue.wait(state, pause, is_idle);
        if !is_idle(&mut state) {
            break;
        }
        drop(state);
        let more = deleter.0.free(place).unwrap_or_else(|error| {
            tracing::debug!(%error, "the kernel frees space in its own time");
            false
        });
        state = queue.lock();
        if !more {
            break;
        }
        pause = STEP;
    }
    state
}

impl Home {
    /// Takes `dir/name` out of its place and lets a thread delete it; what is gone is no error.
    ///
    /// It gets a directory of `tmp` to itself, since the kernel holds the directory above for as long as
    /// a deletion takes. After a crash it is a leftover like any other there.
    pub(crate) fn delete_later(&self, dir: &OwnedFd, name: &Path, label: &str) -> cow::Result<()> {
        if !fs::exists(dir, name)? {
            return Ok(());
        }
        let mode = Mode::from_raw_mode(MODE);
        let take = |fresh: &str| rustix::fs::mkdirat(&self.tmp, fresh, mode);
        let doomed = self.doom(&self.tmp, self.with_fresh_name(label, take)?);
        let place = fs::open_dir(&doomed.place, &doomed.name)?;
        fs::rename(dir, name, &place, name)?;
        self.freer.push(doomed);
        Ok(())
    }

    /// Deletes a directory of `tmp` or `trash`, whose name is busy: at once, or behind the call.
    ///
    /// A failure is logged, since the call cannot be repeated; a check finds the leftover.
    pub(super) fn empty(&self, place: &Arc<OwnedFd>, name: String) {
        let doomed = self.doom(place, name);
        match self.frees_later {
            true => self.freer.push(doomed),
            false => delete_all(&[doomed]),
        }
    }

    fn doom(&self, place: &Arc<OwnedFd>, name: String) -> Doomed {
        let (deleter, busy) = (self.deleter.clone(), Arc::clone(&self.busy));
        Doomed { driver: self.driver, place: Arc::clone(place), name, deleter, busy }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use super::*;

    /// The directory whose deletion panics.
    const BAD: &str = "bad";

    /// Notes what is asked of it; there are two more steps to do whenever something was deleted.
    #[derive(Clone, Default)]
    struct Noted(Arc<(Mutex<Vec<String>>, Condvar)>);

    impl Noted {
        fn note(&self, what: &str) {
            lock(&self.0.0).push(what.to_owned());
            self.0.1.notify_all();
        }

        fn all(&self) -> Vec<String> {
            lock(&self.0.0).clone()
        }

        fn wait_for(&self, what: &str, times: usize) {
            let few = |all: &mut Vec<String>| all.iter().filter(|one| *one == what).count() < times;
            drop(self.0.1.wait_while(lock(&self.0.0), few).unwrap());
        }
    }

    impl Delete for Noted {
        fn delete(&self, _dir: &OwnedFd, name: &OsStr) -> cow::Result<()> {
            self.note(name.to_str().unwrap());
            assert_ne!(name, BAD, "the panic that is wanted");
            Ok(())
        }

        fn ready(&self, _place: &OwnedFd) -> cow::Result<()> {
            self.note("ready");
            Ok(())
        }

        fn free(&self, _place: &OwnedFd) -> cow::Result<bool> {
            self.note("free");
            Ok(self.all().iter().rev().take_while(|what| *what == "free").count() < 3)
        }
    }

    fn doom(noted: &Noted, busy: &Arc<Mutex<HashSet<String>>>, name: &str) -> Doomed {
        lock(busy).insert(name.to_owned());
        Doomed {
            driver: "test",
            place: Arc::new(std::fs::File::open("/").unwrap().into()),
            name: name.to_owned(),
            deleter: Deleter(Arc::new(noted.clone())),
            busy: Arc::clone(busy),
        }
    }

    #[test]
    fn dropping_deletes_everything() {
        let (freer, noted, busy) = (Freer::default(), Noted::default(), Arc::default());
        let names: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        names.iter().for_each(|name| freer.push(doom(&noted, &busy, name)));
        drop(freer);
        let all = noted.all();
        assert_eq!(all[0], "ready", "before anything is deleted: {all:?}");
        let deleted: Vec<_> = all.into_iter().filter(|what| what.parse::<u32>().is_ok()).collect();
        assert_eq!(deleted, names, "each once");
        assert!(lock(&busy).is_empty(), "a name stays busy: {busy:?}");
    }

    #[test]
    fn a_panic_ends_neither_the_thread_nor_who_waits_for_it() {
        let (freer, noted, busy) = (Freer::default(), Noted::default(), Arc::default());
        freer.push(doom(&noted, &busy, BAD));
        noted.wait_for(BAD, 1);
        freer.push(doom(&noted, &busy, "good"));
        drop(freer);
        assert_eq!(noted.all(), ["ready", BAD, "ready", "good"], "what comes after it is deleted");
        assert!(lock(&busy).is_empty(), "a name stays busy: {busy:?}");
    }

    #[test]
    fn space_is_freed_to_the_end_when_nothing_more_comes() {
        let (freer, noted, busy) = (Freer::default(), Noted::default(), Arc::default());
        freer.push(doom(&noted, &busy, "first"));
        noted.wait_for("free", 3);
        assert_eq!(noted.all(), ["ready", "first", "free", "free", "free"]);
        freer.push(doom(&noted, &busy, "second"));
        drop(freer);
        let all = noted.all();
        assert_eq!(all[5..7], ["ready", "second"], "the thread comes again: {all:?}");
    }
}
