//! Giving way to the client on the CPU of the thread that answers it: a ring's, or a reader of the device that
//! has a [`seat`](super::seat) there.
//!
//! The kernel wakes a client where a CPU is idle. The one on which it asked is not at that moment, for the
//! thread that answers runs there; so the client goes on elsewhere, after an interrupt from one CPU to
//! another that may be asleep, and its next request comes over the other CPU's queue. But a CPU that runs
//! nothing but threads of `SCHED_IDLE` counts as idle: the client of such a thread goes on where it was, and
//! at once. What the client does not wait for is then done when it waits for something else.
//!
//! Such a thread gets next to nothing of a CPU that somebody computes on. So it watches how long it had to
//! wait, and does as others do for a while when that was long.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use cow_sys::schedule::{give_way, keep_io_priority};

/// Who was away for longer may have been kept from running.
const AWAY: Duration = Duration::from_millis(1);
/// And was, if it was ready to run for so much of it.
const KEPT: Duration = Duration::from_micros(500);
/// So many requests are counted together: the client's own work is waited for as well.
const WINDOW: u32 = 64;
/// Who was ready to run for longer than this, in all of them, was kept from it by somebody else.
const KEPT_OFTEN: Duration = Duration::from_millis(10);
/// For how many requests it is given up, at first and at most.
const REST: (u32, u32) = (8_000, 512_000);

/// Whether to give way, by how long this thread waited for its CPU.
#[derive(Debug)]
struct Watch {
    gives: bool,
    /// Requests in this window.
    seen: u32,
    /// How long it had waited when the window began.
    before: Duration,
    /// For how many more requests it does not.
    rest: u32,
    /// For how many the next time.
    next_rest: u32,
}

impl Watch {
    fn new(waited: Duration) -> Self {
        Self { gives: true, seen: 0, before: waited, rest: 0, next_rest: REST.0 }
    }

    /// Notes that requests came, so long after the last time; `waited` tells how long this thread has
    /// waited for its CPU by now. Says whether to change its ways.
    fn note(&mut self, away: Duration, waited: impl FnOnce() -> Duration) -> bool {
        if !self.gives {
            self.rest -= 1;
            if self.rest > 0 {
                return false;
            }
            *self = Self { next_rest: self.next_rest, ..Self::new(waited()) };
            return true;
        }
        self.seen += 1;
        if away < AWAY && self.seen < WINDOW {
            return false;
        }
        let waited = waited();
        let kept = waited.saturating_sub(self.before);
        self.before = waited;
        if away >= AWAY && kept > KEPT || kept > KEPT_OFTEN {
            self.gives = false;
            self.rest = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(REST.1);
            return true;
        }
        if self.seen >= WINDOW {
            self.next_rest = REST.0;
        }
        self.seen = 0;
        false
    }
}

/// Watches whether this thread is kept from running.
#[derive(Debug)]
pub(super) struct Kept {
    watch: Watch,
    /// `/proc/thread-self/schedstat`: nanoseconds on a CPU, nanoseconds ready to run without one.
    schedstat: File,
    last: Instant,
    /// How long it had waited when requests were last not to be noted any more.
    paused: Duration,
}

impl Kept {
    /// None where the kernel does not tell.
    pub(super) fn begin() -> Option<Self> {
        let schedstat = File::open("/proc/thread-self/schedstat").ok()?;
        let waited = waited(&schedstat)?;
        let watch = Watch::new(waited);
        Some(Self { watch, schedstat, last: Instant::now(), paused: waited })
    }

    /// Whether it is not, or was not lately.
    pub(super) fn is_well(&self) -> bool {
        self.watch.gives
    }

    /// Notes that requests came; says whether that has changed.
    pub(super) fn note(&mut self) -> bool {
        let now = Instant::now();
        let away = now - self.last;
        self.last = now;
        self.watch.note(away, || waited(&self.schedstat).unwrap_or_default())
    }

    /// Leaves out what is waited from here on.
    pub(super) fn pause(&mut self) {
        self.paused = waited(&self.schedstat).unwrap_or(self.paused);
    }

    /// Goes on after a pause, or after its beginning.
    pub(super) fn go_on(&mut self) {
        let waited = waited(&self.schedstat).unwrap_or(self.paused);
        let before = self.watch.before + waited.saturating_sub(self.paused);
        // Where the watch began anew in the pause, a part of it is left out already.
        self.watch.before = before.min(waited);
        self.last = Instant::now();
    }

    /// Has it be as if somebody else had had the CPU for long.
    #[cfg(test)]
    pub(super) fn keep(&mut self) {
        (self.watch.gives, self.watch.rest) = (false, self.watch.next_rest);
    }
}

/// What a thread that gives way to its clients keeps an eye on.
#[derive(Debug)]
pub(super) struct Polite(Kept);

impl Polite {
    /// Makes this thread give way; none where it could not take that back.
    pub(super) fn begin() -> Option<Self> {
        if !can_be_taken_back() {
            return None;
        }
        let kept = Kept::begin()?;
        // The disk is not to be had for the leavings only.
        keep_io_priority().ok()?;
        give_way(true).ok()?;
        Some(Self(kept))
    }

    /// Notes that requests came; says whether it has changed its ways.
    pub(super) fn note(&mut self) -> bool {
        let changed = self.0.note();
        if changed {
            change(self.0.is_well());
        }
        changed
    }

    /// Has this thread do as others do until it goes on.
    pub(super) fn pause(&mut self) {
        self.0.pause();
        if self.0.is_well() {
            change(false);
        }
    }

    /// Goes on as before the pause.
    pub(super) fn go_on(&mut self) {
        self.0.go_on();
        if self.0.is_well() {
            change(true);
        }
    }
}

fn change(gives: bool) {
    if let Err(error) = give_way(gives) {
        tracing::debug!(%error, "a thread goes on as it did");
    }
}

/// Whether a thread of this process that gives way can stop to: not by the capabilities of a user namespace.
/// One that has nothing else to do finds out, for it may have to stay so.
fn can_be_taken_back() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    let tried = || give_way(true).and_then(|()| give_way(false)).is_ok();
    *CAN.get_or_init(|| {
        let thread = thread::Builder::new().name("layerfs-trial".to_owned()).spawn(tried);
        thread.is_ok_and(|thread| thread.join().unwrap_or(false))
    })
}

/// How long this thread has waited for its CPU.
fn waited(schedstat: &File) -> Option<Duration> {
    let mut text = [0; 64];
    let size = schedstat.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..size]).ok()?;
    Some(Duration::from_nanos(text.split_whitespace().nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(20);

    #[test]
    fn a_thread_gives_way_until_it_is_kept_from_running() {
        let mut watch = Watch::new(Duration::ZERO);
        let mut clock = Duration::ZERO;
        for _ in 0..10 * WINDOW {
            clock += SOON;
            assert!(!watch.note(SOON, || clock), "a quick client");
        }
        assert!(!watch.note(10 * AWAY, || clock), "a client that slept");
        clock += AWAY;
        assert!(watch.note(AWAY, || clock) && !watch.gives, "somebody else had the CPU");
        let mut watch = Watch::new(clock);
        let given_up = (1..=WINDOW).find(|_| {
            clock += AWAY / 4;
            watch.note(AWAY / 4, || clock)
        });
        assert_eq!(given_up, Some(WINDOW), "for a little, again and again");
    }

    #[test]
    fn it_does_not_for_longer_and_longer() {
        let mut watch = Watch::new(Duration::ZERO);
        let mut clock = Duration::ZERO;
        let mut rests = Vec::new();
        for _ in 0..8 {
            clock += AWAY;
            assert!(watch.note(AWAY, || clock), "kept from running");
            rests.push((1..).find(|_| watch.note(AWAY, || clock)).expect("an end"));
            assert!(watch.gives, "tried again");
        }
        let doubled = (0..8).map(|power| (REST.0 << power).min(REST.1));
        assert_eq!(rests, doubled.collect::<Vec<_>>());
        (0..WINDOW).for_each(|_| assert!(!watch.note(SOON, || clock), "as it should be"));
        assert_eq!(watch.next_rest, REST.0, "forgiven");
    }

    #[test]
    fn what_is_waited_in_a_pause_is_left_out_once() {
        let mut kept = Kept::begin().expect("Linux with CONFIG_SCHED_INFO");
        kept.paused = Duration::ZERO;
        for before in [Duration::ZERO, Duration::from_secs(9)] {
            kept.watch.before = before;
            kept.go_on();
            let now = waited(&kept.schedstat).expect("a time");
            assert!(kept.watch.before <= now, "{before:?}: {kept:?} at {now:?}");
        }
    }

    #[test]
    fn the_kernel_tells_how_long_a_thread_waited() {
        let schedstat =
            File::open("/proc/thread-self/schedstat").expect("Linux with CONFIG_SCHED_INFO");
        let before = waited(&schedstat).expect("a time");
        std::thread::yield_now();
        assert!(waited(&schedstat).expect("a time") >= before, "it only grows");
    }
}
