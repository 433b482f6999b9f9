//! Looking many names of one directory up with the help of CPUs that have nothing else to do.
//!
//! A `READDIRPLUS` tells of hundreds of names, each of which has to be looked up in the layers, and its one
//! client waits for all of them. So other threads begin at the end of the names, while the one that answers
//! goes through them from the beginning. What they have not finished when it gets there it looks up itself, so that they
//! cost next to nothing where every CPU is taken.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam::channel::{Sender, bounded};
use rustix::io::Errno;

use crate::cpus::{self, Elsewhere};
use crate::union::{Found, Listing, RealDir, Union};

/// As many names are worth the waking of a thread.
const SHARE: usize = 32;
/// The most threads that help.
const HELPERS: usize = 3;

/// What a name leads to.
pub(super) type Looked = Result<Option<Found>, Errno>;

/// Where a thread has looked last: how many layers from the top, and the directory there.
#[derive(Debug, Default)]
pub(super) struct At(Option<(usize, Arc<OwnedFd>)>);

/// The names of a listing that one reply tells of.
#[derive(Debug)]
pub(super) struct Batch {
    pub union: Arc<Union>,
    /// The directories that theirs merges.
    pub stack: Arc<[Arc<RealDir>]>,
    pub listing: Arc<Listing>,
    /// The first of them in the listing.
    pub first: usize,
    /// Whether a name may have gone, or come to another layer, since they were listed.
    pub outdated: bool,
}

impl Batch {
    /// Looks up one of the names, counted from the first.
    fn look(&self, number: usize, at: &mut At) -> Looked {
        let Some(entry) = self.listing.entry_at(self.first + number) else { return Ok(None) };
        // Above the layer that has it there was nothing of this name.
        let from = if self.outdated { 0 } else { entry.layer };
        let stack = self.stack.get(from..).unwrap_or_default();
        let Some(top) = stack.first() else { return Ok(None) };
        let fd = match &at.0 {
            Some((layer, fd)) if *layer == from => fd,
            _ => &at.0.insert((from, self.union.fds.get(top)?)).1,
        };
        self.union.lookup_from(fd, stack, entry.name)
    }
}

/// Names that are being looked up.
#[derive(Debug)]
pub(super) struct Lookups {
    batch: Batch,
    /// What the helpers found; empty if there are none.
    found: Box<[OnceLock<Box<Looked>>]>,
    /// How far the thread that answers has come.
    front: AtomicUsize,
    /// How many names at the beginning no helper has taken.
    back: AtomicUsize,
}

impl Lookups {
    fn new(batch: Batch, shared: usize) -> Self {
        Self {
            batch,
            found: std::iter::repeat_with(OnceLock::new).take(shared).collect(),
            front: AtomicUsize::new(0),
            back: AtomicUsize::new(shared),
        }
    }

    /// What a name leads to, and whether a helper found that. The names are to be asked for in their order; what no helper
    /// has looked up is put into `own`.
    pub(super) fn get<'a>(
        &'a self,
        number: usize,
        at: &mut At,
        own: &'a mut Looked,
    ) -> (&'a Looked, bool) {
        self.front.store(number, Ordering::Relaxed);
        if let Some(found) = self.found.get(number).and_then(OnceLock::get) {
            return (found, true);
        }
        *own = self.batch.look(number, at);
        (own, false)
    }

    /// Takes a name from the end; none when the thread that answers has come there.
    fn take(&self) -> Option<usize> {
        let before = |back: usize| {
            let number = back.checked_sub(1)?;
            (number > self.front.load(Ordering::Relaxed)).then_some(number)
        };
        let taken = self.back.fetch_update(Ordering::Relaxed, Ordering::Relaxed, before);
        taken.ok().map(|back| back - 1)
    }

    fn help(&self) {
        let mut at = At::default();
        while let Some(number) = self.take() {
            let _ = self.found[number].set(Box::new(self.batch.look(number, &mut at)));
        }
    }
}

/// Threads that help to look names up; none before there is something to do.
#[derive(Debug)]
pub(super) struct Helpers {
    count: usize,
    threads: OnceLock<Vec<Sender<Work>>>,
}

/// What a helper is given, and on which CPU it is not to do it.
type Work = (Arc<Lookups>, Option<usize>);

impl Helpers {
    /// For a mount whose requests are answered by so many threads, or as many as fit the machine.
    pub(super) fn new(threads: Option<usize>) -> Self {
        let others = thread::available_parallelism().map_or(0, |cpus| cpus.get() - 1);
        let most = threads.map_or(HELPERS, |threads| threads.saturating_sub(1));
        Self { count: others.min(most).min(HELPERS), threads: OnceLock::new() }
    }

    /// Has the first `count` names of a batch looked up, as far as others are free to.
    pub(super) fn begin(&self, batch: Batch, count: usize) -> Arc<Lookups> {
        let wanted = (count / SHARE).min(self.count);
        let threads = match wanted {
            0 => &[],
            _ => &**self.threads.get_or_init(|| (0..self.count).filter_map(start).collect()),
        };
        let lookups = Arc::new(Lookups::new(batch, if threads.is_empty() { 0 } else { count }));
        if !threads.is_empty() {
            let cpu = cpus::given_way();
            // Who has something to do takes nothing.
            let gives =
                |helper: &&Sender<Work>| helper.try_send((Arc::clone(&lookups), cpu)).is_ok();
            threads.iter().filter(gives).take(wanted).for_each(drop);
        }
        lookups
    }
}

/// Starts a helper.
fn start(number: usize) -> Option<Sender<Work>> {
    let (sender, work) = bounded::<Work>(0);
    let run = move || {
        // Whoever starts it may give way to a client on its CPU.
        cpus::roam();
        let mut elsewhere = Elsewhere::of(rustix::process::getpid());
        for (lookups, cpu) in work {
            elsewhere.than(cpu);
            lookups.help();
        }
    };
    let spawned = thread::Builder::new().name(format!("layerfs-look-{number}")).spawn(run);
    if let Err(error) = &spawned {
        tracing::debug!(%error, "there is one helper less");
    }
    spawned.is_ok().then_some(sender)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;

    const EACH: usize = 150;

    /// Three layers, in which names are there, hidden, or a directory in several.
    fn lay_out(dir: &Path) -> Arc<Union> {
        let write = |path: String, size: usize| std::fs::write(dir.join(path), vec![b'x'; size]);
        for layer in ["up", "middle", "low", "work"] {
            std::fs::create_dir_all(dir.join(layer).join("merged")).expect("a layer");
        }
        for number in 0..EACH {
            write(format!("low/low-{number}"), number).expect("a file");
            write(format!("middle/middle-{number}"), 2 * number).expect("a file");
            write(format!("up/up-{number}"), 3 * number).expect("a file");
            if number % 3 == 0 {
                write(format!("up/middle-{number}"), 5).expect("a file over another");
            }
            if number % 7 == 0 {
                write(format!("middle/.wh.low-{number}"), 0).expect("a whiteout");
            }
        }
        std::fs::remove_dir(dir.join("work/merged")).expect("an empty work directory");
        let mut options = crate::options::Options::default();
        let path = |name| dir.join(name).display().to_string();
        let lower = format!("lowerdir={}:{}", path("middle"), path("low"));
        let text = format!("{lower},upperdir={},workdir={}", path("up"), path("work"));
        options.add(OsStr::new(&text)).expect("options");
        Arc::new(Union::open(&options).expect("the layers"))
    }

    fn batch(union: &Arc<Union>, outdated: bool) -> (Batch, usize) {
        let stack = union.roots();
        let listing = Arc::new(union.list(&stack, None).expect("a listing"));
        let names = listing.len();
        (Batch { union: Arc::clone(union), stack, listing, first: 0, outdated }, names)
    }

    /// What all names lead to, and how many of them helpers have found.
    fn all(lookups: &Lookups, names: usize) -> (Vec<(u64, u64, bool)>, usize) {
        let (mut at, mut helped) = (At::default(), 0);
        let mut each = |number| {
            let mut own = Ok(None);
            let (found, by_helper) = lookups.get(number, &mut at, &mut own);
            helped += usize::from(by_helper);
            let found = found.as_ref().expect("a lookup").as_ref().expect("a name that is there");
            (found.ino, found.stat.stx_size, matches!(found.place, crate::union::Place::Dir(_)))
        };
        ((0..names).map(&mut each).collect(), helped)
    }

    #[test]
    fn it_does_not_matter_who_looks_a_name_up() {
        let dir = tempfile::tempdir().expect("a directory for the layers");
        let union = lay_out(dir.path());
        let (only, names) = batch(&union, false);
        let hidden = EACH.div_ceil(7);
        assert_eq!(names, 3 * EACH + 1 - hidden, "names of three layers and a directory");
        let (alone, helped) = all(&Lookups::new(only, 0), names);
        assert_eq!(helped, 0, "nobody helps");
        for outdated in [false, true] {
            let (whole, names) = batch(&union, outdated);
            let shared = Lookups::new(whole, names);
            shared.help();
            assert_eq!(all(&shared, names), (alone.clone(), names - 1), "outdated: {outdated}");
        }
        for (ino, size, is_dir) in &alone {
            assert!(*ino != 0 && (*is_dir || *size <= 3 * EACH as u64), "{ino}: {size}");
        }
        assert_eq!(alone.iter().filter(|(.., is_dir)| *is_dir).count(), 1, "the merged one");
    }

    #[test]
    fn a_helper_goes_from_the_end_to_where_the_other_one_is() {
        let dir = tempfile::tempdir().expect("a directory for the layers");
        let (batch, names) = batch(&lay_out(dir.path()), false);
        let lookups = Lookups::new(batch, names);
        assert_eq!(lookups.take(), Some(names - 1));
        assert_eq!(lookups.take(), Some(names - 2));
        let (mut at, mut own) = (At::default(), Ok(None));
        lookups.get(names - 4, &mut at, &mut own);
        assert_eq!(lookups.take(), Some(names - 3), "the one behind it");
        assert_eq!(lookups.take(), None, "the one that the other is at");
        let (found, helped) = lookups.get(names - 3, &mut at, &mut own);
        assert!(!helped && matches!(found, Ok(Some(_))), "taken, but not done");
    }

    #[test]
    fn threads_help_where_there_are_cpus_for_them() {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(Helpers::new(Some(1)).count, 0, "one thread is to do everything");
        let helpers = Helpers::new(None);
        assert_eq!(helpers.count, (cpus - 1).min(HELPERS));
        let dir = tempfile::tempdir().expect("a directory for the layers");
        let union = lay_out(dir.path());
        let (few, _) = batch(&union, false);
        assert!(helpers.begin(few, SHARE - 1).found.is_empty(), "too few names");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (batch, names) = batch(&union, false);
            let lookups = helpers.begin(batch, names);
            // A helper that is still about to start takes none.
            let until = Instant::now() + Duration::from_millis(200);
            let missing = || lookups.found.iter().skip(1).any(|found| found.get().is_none());
            while cpus > 1 && missing() && Instant::now() < until {
                thread::yield_now();
            }
            let (_, helped) = all(&lookups, names);
            if helped == if cpus > 1 { names - 1 } else { 0 } {
                return;
            }
            assert!(Instant::now() < deadline, "nobody helps");
        }
    }
}
