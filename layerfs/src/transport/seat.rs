//! The place of a reader of the device: on the CPU of a client that is alone, or anywhere.
//!
//! Where the kernel wakes the reader on the CPU of the client that asks, and the client on the CPU of the reader
//! that answers, neither has to wake a CPU, and nobody has to wait awake. For that the reader must be kept there,
//! and give way (see [`polite`](super::polite)): otherwise the kernel takes them apart with every answer.

use super::polite::Polite;
use crate::cpus;

/// So many times of [`LOOKS`] in a row a reader may find itself on another CPU than its client.
const APART: u32 = 3;
const LOOKS: u32 = 8;
/// So many looks are left out when it is given up, at first and at most.
const REST: (u32, u32) = (256, 16_384);

/// Whether a reader is to have a seat beside a client that is alone, by what came of it.
#[derive(Debug)]
pub(super) struct Beside {
    looks: u32,
    apart: u32,
    /// How many looks are left out.
    rest: u32,
    /// And how many the next time.
    next_rest: u32,
}

impl Default for Beside {
    fn default() -> Self {
        Self { looks: 0, apart: 0, rest: 0, next_rest: REST.0 }
    }
}

impl Beside {
    /// Whether the reader is to look where the client is.
    pub(super) fn is_wanted(&mut self) -> bool {
        self.rest = self.rest.saturating_sub(1);
        self.rest == 0
    }

    /// Notes that it did; `apart` if it was elsewhere or cannot tell.
    pub(super) fn note(&mut self, apart: bool) {
        self.looks += 1;
        self.apart += u32::from(apart);
        if self.apart > APART {
            self.give_up();
        } else if self.looks >= LOOKS {
            *self = Self::default();
        }
    }

    /// Leaves it for a while, for longer each time.
    pub(super) fn give_up(&mut self) {
        let next_rest = (self.next_rest * 2).min(REST.1);
        *self = Self { looks: 0, apart: 0, rest: self.next_rest, next_rest };
    }
}

/// Where one reader is.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// The CPU on which it is kept, and how it gives way there.
    taken: Option<(u16, Polite)>,
}

impl Seat {
    /// Whether this thread is kept on its client's CPU.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// Notes a request; says whether others have kept this thread from running where it is.
    pub(super) fn is_kept(&mut self) -> bool {
        self.taken.as_mut().is_some_and(|(_, polite)| polite.note())
    }

    /// Moves this thread to the CPU of a client; says whether its seat was on another. A seat that cannot be had
    /// counts as such a one; if it had none there is nothing to say.
    pub(super) fn join(&mut self, client: u32) -> Option<bool> {
        let Some(cpu) = cpus::of_thread(client) else {
            self.leave();
            return Some(true);
        };
        if self.taken.as_ref().is_some_and(|(at, _)| *at == cpu) {
            return Some(false);
        }
        let apart = self.taken.is_some().then_some(true);
        let polite = self.taken.take().map(|(_, polite)| polite).or_else(Polite::begin);
        match (polite, cpus::stay_on(cpu)) {
            (Some(polite), Ok(())) => {
                self.taken = Some((cpu, polite));
                apart
            }
            _ => {
                cpus::roam();
                Some(true)
            }
        }
    }

    /// Lets this thread run anywhere, and as threads do.
    pub(super) fn leave(&mut self) {
        if self.taken.take().is_some() {
            cpus::roam();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_beside_its_client_stays() {
        let mut beside = Beside::default();
        for look in 0..10 * LOOKS {
            assert!(beside.is_wanted(), "look {look}");
            beside.note(look % LOOKS < APART);
        }
    }

    #[test]
    fn who_is_taken_apart_gives_it_up_for_longer_and_longer() {
        let mut beside = Beside::default();
        let mut rests = Vec::new();
        for _ in 0..8 {
            let mut left_out = 0;
            while !beside.is_wanted() {
                left_out += 1;
            }
            rests.push(left_out);
            (0..=APART).for_each(|_| beside.note(true));
        }
        let doubled = (0..7).map(|power| (REST.0 << power).min(REST.1) - 1);
        assert_eq!(rests, [0].into_iter().chain(doubled).collect::<Vec<_>>());
        while !beside.is_wanted() {}
        (0..LOOKS).for_each(|_| beside.note(false));
        beside.give_up();
        assert_eq!((beside.rest, beside.next_rest), (REST.0, 2 * REST.0), "forgiven");
    }

    #[test]
    fn a_seat_is_taken_and_left() {
        std::thread::spawn(|| {
            let mut seat = Seat::default();
            let own = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            // Not without the right to take it back.
            let apart = seat.join(own);
            assert_eq!(seat.is_taken(), cow_sys::schedule::gives_way());
            assert_eq!(apart, (!seat.is_taken()).then_some(true), "it had none before");
            if seat.is_taken() {
                assert_eq!(seat.join(own), Some(false), "it is there");
            }
            assert_eq!(seat.join(u32::MAX), Some(true), "nobody");
            assert!(!seat.is_taken() && !cow_sys::schedule::gives_way(), "as before");
        })
        .join()
        .expect("a thread of its own");
    }
}
