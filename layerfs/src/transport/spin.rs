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

use super::clients::{Clients, Load, Turn};
use crate::stats::Stats;
use crate::union::lock;

/// How long a reader stays awake: what a client does between two requests, several times over.
const AWAKE: Duration = Duration::from_micros(40);
/// Who takes longer to look once was not running meanwhile.
const STOLEN: Duration = Duration::from_micros(400);

#[derive(Debug, Default)]
struct State {
    clients: Clients,
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
        self.clients.alone && self.long == 0
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
    /// takes long. Says what to do; [`Self::moved`] is to follow [`Turn::Look`].
    pub(super) fn take(&self, client: u32, load: Load, long: bool) -> Turn {
        self.change(|state| {
            state.waiting -= 1;
            let all_read = state.long > 0;
            state.long += usize::from(long);
            match load {
                Load::Listing if all_read => Turn::Stay,
                _ => state.clients.note(client, load),
            }
        })
    }

    /// Notes what came of that: whether this thread was on another CPU, or could not tell.
    pub(super) fn moved(&self, apart: bool) {
        self.change(|state| state.clients.beside.note(apart));
    }

    /// Notes that this thread was kept from running where the client is.
    pub(super) fn kept(&self) {
        self.change(|state| state.clients.beside.give_up());
    }

    /// Calls all back, since the reader on duty has to do what it cannot pass on.
    pub(super) fn call_back(&self) {
        self.change(|state| state.clients.forget());
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
                self.change(|state| state.clients.in_vain(stolen));
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

    use super::super::clients::WINDOW;
    use super::*;

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
        duty.change(|state| state.clients.in_vain(true));
        assert_eq!(back.recv(), Ok(Wait::Asleep), "called back when it is given up");
        for reader in readers {
            let _ = reader.join().expect("a reader");
        }
    }
}
