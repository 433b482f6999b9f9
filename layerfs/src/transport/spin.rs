//! Waiting awake for the next request of a client that is alone.
//!
//! Most of a round trip over `/dev/fuse` is the waking of whoever sleeps on an idle CPU: the client wakes a
//! reader, which wakes the client. Where one client asks for one thing after the other, a reader that has
//! just answered looks for the next request for a moment before it sleeps, and finds it without having been
//! woken. The others are off duty meanwhile, for the kernel would wake one of them. As soon as several
//! clients ask, or a request takes long, all read again, and the kernel chooses.
//!
//! It is given up for a while where it does no good: the client takes its time, or waits for the very CPU
//! that is spent on waiting for it, or somebody else wants that CPU.
//!
//! Where the reader can be kept on the client's CPU no other needs to be awake, and it may sleep (see
//! [`seat`](super::seat)).

use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::seat::Beside;
use crate::stats::Stats;
use crate::union::lock;

/// How long a reader stays awake: what a client does between two requests, several times over.
const AWAKE: Duration = Duration::from_micros(40);
/// Who takes longer to look once was not running meanwhile.
const STOLEN: Duration = Duration::from_micros(400);
/// Requests by which it is decided how to go on.
const WINDOW: u32 = 32;
/// So often the client may change within a window that counts as one client's.
const CHANGES: u32 = 4;
/// So often it may be waited for in vain within a window.
const VAIN: u32 = 8;
/// For how many windows it is given up, at first and at most.
const REST: (u32, u32) = (16, 1024);

/// What a request is to those that come beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// It is soon over.
    Little,
    /// Many names are told of. If that is not for the client who was alone, he need not wait for it: most
    /// often they are listed ahead for him.
    Listing,
    /// Much is read. The kernel asks for what comes next while the client copies what it has, which takes a CPU each.
    Read,
    /// One of many that write data, for which all may have to wait.
    Data,
}

/// Who asked lately, and whether one reader is enough.
#[derive(Debug)]
struct Watch {
    /// Whose the last request was.
    client: u32,
    /// Requests in this window.
    seen: u32,
    /// How often they were another's than the one before.
    changes: u32,
    /// How often nothing came while a reader waited awake.
    vain: u32,
    /// Whether one reader is to wait awake, alone.
    alone: bool,
    /// For how many windows nobody is to.
    rest: u32,
    /// For how many the next time.
    next_rest: u32,
    /// Whether that one is to have a seat beside the client.
    beside: Beside,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            client: 0,
            seen: 0,
            changes: 0,
            vain: 0,
            alone: false,
            rest: 0,
            next_rest: REST.0,
            beside: Beside::default(),
        }
    }
}

impl Watch {
    /// Notes whose request came, 0 if nobody's who waits for an answer. Says whether the reader is to look
    /// where the client is.
    fn note(&mut self, client: u32, load: Load) -> bool {
        if client == 0 {
            // Beside the ring nothing else comes over the device.
            return false;
        }
        let other = client != self.client;
        self.changes += match load {
            Load::Listing if other => CHANGES + 1,
            Load::Data => 1,
            _ => u32::from(other),
        };
        self.client = client;
        self.seen += 1;
        let one = self.changes <= CHANGES;
        self.alone &= one;
        if self.seen < WINDOW {
            return false;
        }
        if self.alone && self.vain == 0 {
            self.next_rest = REST.0;
        }
        self.rest = self.rest.saturating_sub(1);
        self.alone = one && self.rest == 0;
        (self.seen, self.changes, self.vain) = (0, 0, 0);
        self.alone && load != Load::Read && self.beside.is_wanted()
    }

    /// Notes that nothing came; `stolen` if others had the CPU.
    fn in_vain(&mut self, stolen: bool) {
        self.vain += if stolen { VAIN } else { 1 };
        if self.vain >= VAIN {
            self.alone = false;
            self.rest = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(REST.1);
            (self.seen, self.changes, self.vain) = (0, 0, 0);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    watch: Watch,
    /// Readers that wait for a request.
    waiting: usize,
    /// Readers that are off duty.
    off: usize,
    /// Requests that take long and are being carried out.
    long: usize,
}

impl State {
    /// Whether one waiting reader is enough.
    fn one(&self) -> bool {
        self.watch.alone && self.long == 0
    }
}

/// What the readers of one mount have in common.
#[derive(Debug, Default)]
pub(super) struct Duty {
    state: Mutex<State>,
    wanted: Condvar,
}

/// How a reader gets its next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It sleeps until the kernel wakes it.
    Asleep,
    /// It looks for a moment before it does, unless it has a seat beside the client.
    Awake,
}

impl Duty {
    /// Changes the state, and calls everybody back who is off duty if that is over with it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let answer = change(&mut state);
        if state.off > 0 && !state.one() {
            self.wanted.notify_all();
        }
        answer
    }

    /// Makes this thread one of the readers.
    pub(super) fn join(&self) {
        self.change(|state| state.waiting += 1);
    }

    /// Notes a request that is about to be carried out: whose it is, what it is to others, and whether it
    /// takes long. Says whether to move to where the client is ([`Self::moved`]).
    pub(super) fn take(&self, client: u32, load: Load, long: bool) -> bool {
        self.change(|state| {
            state.waiting -= 1;
            state.long += usize::from(long);
            state.watch.note(client, load)
        })
    }

    /// Notes what came of that: whether this thread was on another CPU, or could not tell.
    pub(super) fn moved(&self, apart: bool) {
        self.change(|state| state.watch.beside.note(apart));
    }

    /// Notes that this thread was kept from running where the client is.
    pub(super) fn kept(&self) {
        self.change(|state| state.watch.beside.give_up());
    }

    /// Notes that a request was carried out, and says how to wait for the next; who is not needed stays here
    /// until that changes, and calls `leave` before.
    pub(super) fn next(&self, long: bool, leave: impl FnOnce()) -> Wait {
        let mut state = lock(&self.state);
        state.long -= usize::from(long);
        if state.one() && state.waiting > 0 {
            drop(state);
            leave();
            state = lock(&self.state);
        }
        let mut wait = if state.one() { Wait::Awake } else { Wait::Asleep };
        while state.one() && state.waiting > 0 {
            // By then there is a reason to have the kernel choose.
            wait = Wait::Asleep;
            state.off += 1;
            state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.off -= 1;
        }
        state.waiting += 1;
        wait
    }

    /// Waits awake for a request, for a moment; says whether one came.
    pub(super) fn wait_awake(&self, device: impl AsFd, stats: &Stats) -> bool {
        let start = Instant::now();
        let mut last = start;
        loop {
            let mut device = [PollFd::new(&device, PollFlags::IN)];
            if poll(&mut device, Some(&Timespec::default())) != Ok(0) {
                Stats::add(&stats.awaited);
                return true;
            }
            let now = Instant::now();
            let stolen = now - last > STOLEN;
            if stolen || now - start > AWAKE {
                self.change(|state| state.watch.in_vain(stolen));
                return false;
            }
            last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    /// Whether one reader waits awake, alone, after requests of these clients.
    fn alone(watch: &mut Watch, clients: impl IntoIterator<Item = u32>) -> bool {
        clients.into_iter().for_each(|client| {
            watch.note(client, Load::Little);
        });
        watch.alone
    }

    fn times(client: u32, count: u32) -> impl Iterator<Item = u32> {
        std::iter::repeat_n(client, count as usize)
    }

    #[test]
    fn one_client_is_waited_for() {
        let mut watch = Watch::default();
        assert!(!alone(&mut watch, times(7, WINDOW - 1)), "too little is known");
        assert!(!alone(&mut watch, times(0, WINDOW)), "what nobody asked for");
        assert!(alone(&mut watch, times(7, 1)), "a window of one client");
        let few = (0..4 * WINDOW).map(|number| if number % 16 == 0 { 9 } else { 7 });
        assert!(alone(&mut watch, few), "few requests of another");
        let successors = (0..20).flat_map(|client| times(client + 10, WINDOW / 2));
        assert!(alone(&mut watch, successors), "clients that take each other's place");
    }

    #[test]
    fn several_clients_are_not() {
        let both = |count: u32| (0..count).map(|number| 7 + number % 2);
        let mut watch = Watch::default();
        assert!(!alone(&mut watch, both(10 * WINDOW)), "two in turns");
        assert!(alone(&mut watch, times(7, 2 * WINDOW)), "one is left");
        assert!(!alone(&mut watch, both(CHANGES + 2)), "a second one comes");
        assert!(!alone(&mut watch, times(7, WINDOW - CHANGES - 3)), "it was in this window");
        assert!(alone(&mut watch, times(7, WINDOW + 1)), "and went");
    }

    #[test]
    fn a_reader_looks_for_its_client_once_in_a_window() {
        let mut watch = Watch::default();
        let looks = times(7, 4 * WINDOW).filter(|client| watch.note(*client, Load::Little)).count();
        assert_eq!(looks, 4, "one at the end of each");
        watch.beside.give_up();
        assert_eq!(
            times(7, 4 * WINDOW).filter(|client| watch.note(*client, Load::Little)).count(),
            0
        );
        assert!(watch.alone, "it waits awake then");
    }

    #[test]
    fn much_that_is_written_is_left_to_all() {
        let mut watch = Watch::default();
        assert!(alone(&mut watch, times(7, WINDOW)), "a single client");
        assert!((0..=CHANGES).all(|_| !watch.note(7, Load::Data)), "nothing to look for");
        assert!(!watch.alone, "writes back");
    }

    #[test]
    fn who_reads_much_is_not_looked_for() {
        let mut watch = Watch::default();
        assert!(
            (0..4 * WINDOW).all(|_| !watch.note(7, Load::Read)),
            "it is to run beside the reader"
        );
        assert!(watch.alone, "which waits awake");
        assert!((0..2 * WINDOW).any(|_| watch.note(7, Load::Little)), "something else");
    }

    #[test]
    fn who_lists_for_another_is_not_waited_for() {
        let mut watch = Watch::default();
        assert!(alone(&mut watch, times(7, WINDOW)), "a single client");
        assert!(!watch.note(9, Load::Listing), "nothing to look for");
        assert!(!watch.alone, "for somebody else, or on his behalf");
        assert!(!alone(&mut watch, times(7, WINDOW - 1)), "the rest of the window");
        assert!(alone(&mut watch, times(7, WINDOW)), "over");
        assert!(
            (0..4 * WINDOW).all(|_| {
                watch.note(7, Load::Listing);
                watch.alone
            }),
            "its own listing"
        );
    }

    #[test]
    fn waiting_in_vain_is_given_up_for_longer_and_longer() {
        let mut watch = Watch::default();
        let mut rests = Vec::new();
        for _ in 0..9 {
            let mut windows = 0;
            while !alone(&mut watch, times(7, WINDOW)) {
                windows += 1;
            }
            rests.push(windows);
            (0..VAIN).for_each(|_| watch.in_vain(false));
            assert!(!watch.alone, "given up");
        }
        let doubled = (0..7).map(|power| (REST.0 << power) - 1);
        assert_eq!(rests, [0].into_iter().chain(doubled).chain([REST.1 - 1]).collect::<Vec<_>>());
        while !alone(&mut watch, times(7, WINDOW)) {}
        (1..VAIN).for_each(|_| watch.in_vain(false));
        assert!(alone(&mut watch, times(7, WINDOW)), "a client that is slow at times");
        assert_eq!(watch.next_rest, REST.1, "that does not count as good");
        assert!(alone(&mut watch, times(7, WINDOW)), "a client that is quick");
        assert_eq!(watch.next_rest, REST.0, "forgiven");
        watch.in_vain(true);
        assert!(!watch.alone, "the CPU is somebody else's");
    }

    #[test]
    fn readers_go_off_duty_and_come_back() {
        let duty = Arc::new(Duty::default());
        (0..3).for_each(|_| duty.join());
        for _ in 0..WINDOW - 1 {
            duty.take(7, Load::Little, false);
            assert_eq!(duty.next(false, || {}), Wait::Asleep, "not known to be alone");
        }
        let (sender, back) = channel();
        let go_off = |long: bool, off: usize| {
            let (shared, sender) = (Arc::clone(&duty), sender.clone());
            let reader = std::thread::spawn(move || sender.send(shared.next(long, || {})));
            while lock(&duty.state).off != off {
                std::thread::yield_now();
            }
            reader
        };
        let mut readers = Vec::new();
        for off in [1, 2] {
            duty.take(7, Load::Little, false);
            readers.push(go_off(false, off));
        }
        duty.take(7, Load::Little, false);
        assert_eq!(duty.next(false, || {}), Wait::Awake, "the last one waits for all");
        duty.take(7, Load::Little, true);
        for _ in 0..2 {
            assert_eq!(back.recv(), Ok(Wait::Asleep), "called back for what takes long");
        }
        duty.take(7, Load::Little, false);
        assert_eq!(duty.next(false, || {}), Wait::Asleep, "all read meanwhile");
        readers.push(go_off(true, 1));
        assert!(back.try_recv().is_err(), "off duty after it");
        duty.change(|state| state.watch.in_vain(true));
        assert_eq!(back.recv(), Ok(Wait::Asleep), "called back when it is given up");
        for reader in readers {
            let _ = reader.join().expect("a reader");
        }
    }
}
