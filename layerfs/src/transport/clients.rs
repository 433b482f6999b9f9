//! Who asks: one client for one thing after the other, or several.
//!
//! For a client that is alone one reader of the device is enough, and the better for it (see [`spin`](super::spin)).

use super::seat::Beside;

/// Requests by which it is decided how to go on.
pub(super) const WINDOW: u32 = 32;
/// So often the client may change within a window that counts as one client's.
const CHANGES: u32 = 4;
/// So often it may be waited for in vain within a window.
const VAIN: u32 = 8;
/// So many requests are passed on while the client that is alone asks for nothing.
const PASSED: u32 = 8;
/// And so many in a row of one other make that one the client that is alone.
const SUCCEEDS: u32 = 4;
/// For how many windows it is given up, at first and at most.
const REST: (u32, u32) = (16, 1024);

/// What a request is to those that come beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// It is soon over.
    Little,
    /// Many names are told of.
    Listing,
    /// Much is read. The kernel asks for what comes next while the client copies what it has, which takes a
    /// CPU each.
    Read,
    /// One of many that write data, for which all may have to wait.
    Data,
}

/// What the reader that has got a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It carries it out where it is.
    Stay,
    /// It looks where the client is, and moves there.
    Look,
    /// It leaves the client's CPU before.
    Leave,
    /// It has somebody else carry it out, since the client that it waits for has not asked for it.
    PassOn,
}

/// Who asked lately, and whether one reader is enough.
#[derive(Debug)]
pub(super) struct Clients {
    /// Whose the last request was.
    client: u32,
    /// Requests in this window.
    seen: u32,
    /// How often they were another's than the one before, or wrote data.
    changes: u32,
    /// How often nothing came while a reader waited awake.
    vain: u32,
    /// Whether one reader is to wait awake, alone.
    pub(super) alone: bool,
    /// For whom it waits then: who asked last for several things in a row, as somebody has in each window of a single client.
    lone: u32,
    /// Who asked last since the one that is alone did, and how often in a row.
    other: (u32, u32),
    /// How many requests were passed on since then.
    passed: u32,
    /// For how many windows nobody is to.
    rest: u32,
    /// For how many the next time.
    next_rest: u32,
    /// Whether that one is to have a seat beside the client.
    pub(super) beside: Beside,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            client: 0,
            seen: 0,
            changes: 0,
            vain: 0,
            alone: false,
            lone: 0,
            other: (0, 0),
            passed: 0,
            rest: 0,
            next_rest: REST.0,
            beside: Beside::default(),
        }
    }
}

impl Clients {
    /// Notes whose request came, 0 if nobody's who waits for an answer.
    pub(super) fn note(&mut self, client: u32, load: Load) -> Turn {
        if client == 0 {
            // Beside the ring nothing else comes over the device.
            return Turn::Stay;
        }
        // Who looked the directory up just before is rather a successor than somebody beside the client.
        let beside = !self.is_lone(client) && client != self.client;
        if beside && self.alone && load == Load::Listing {
            self.passed += 1;
            if self.passed <= PASSED {
                return Turn::PassOn;
            }
            // It may be gone, and several ask.
            self.forget();
            return Turn::Leave;
        }
        self.changes += u32::from(load == Load::Data || client != self.client);
        self.client = client;
        self.seen += 1;
        let one = self.changes <= CHANGES;
        self.alone &= one;
        let turn = if load == Load::Read { Turn::Leave } else { Turn::Stay };
        if self.seen < WINDOW {
            return turn;
        }
        if self.alone && self.vain == 0 {
            self.next_rest = REST.0;
        }
        self.rest = self.rest.saturating_sub(1);
        self.alone = one && self.rest == 0;
        (self.seen, self.changes, self.vain) = (0, 0, 0);
        let wanted = self.alone && self.beside.is_wanted() && client == self.lone;
        if wanted && turn == Turn::Stay { Turn::Look } else { turn }
    }

    fn make_lone(&mut self, client: u32) {
        self.lone = client;
        self.other = (0, 0);
        self.passed = 0;
    }

    /// Whether a request is of the client that is alone, or of one that has taken its place.
    fn is_lone(&mut self, client: u32) -> bool {
        self.other = match self.other {
            (other, times) if other == client => (other, times + 1),
            _ => (client, 1),
        };
        if client == self.lone || self.other.1 > SUCCEEDS {
            self.make_lone(client);
        }
        client == self.lone
    }

    /// Waits for nobody in particular, until it is known anew who asks.
    pub(super) fn forget(&mut self) {
        self.alone = false;
        (self.seen, self.changes, self.vain, self.passed) = (0, 0, 0, 0);
    }

    /// Notes that nothing came; `stolen` if others had the CPU.
    pub(super) fn in_vain(&mut self, stolen: bool) {
        self.vain += if stolen { VAIN } else { 1 };
        if self.vain >= VAIN {
            self.rest = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(REST.1);
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether one reader waits awake, alone, after requests of these clients.
    fn alone(clients: &mut Clients, all: impl IntoIterator<Item = u32>) -> bool {
        all.into_iter().for_each(|client| {
            clients.note(client, Load::Little);
        });
        clients.alone
    }

    fn times(client: u32, count: u32) -> impl Iterator<Item = u32> {
        std::iter::repeat_n(client, count as usize)
    }

    #[test]
    fn one_client_is_waited_for() {
        let mut clients = Clients::default();
        assert!(!alone(&mut clients, times(7, WINDOW - 1)), "too little is known");
        assert!(!alone(&mut clients, times(0, WINDOW)), "what nobody asked for");
        assert!(alone(&mut clients, times(7, 1)), "a window of one client");
        let few = (0..4 * WINDOW).map(|number| if number % 16 == 0 { 9 } else { 7 });
        assert!(alone(&mut clients, few), "few requests of another");
        let successors = (0..20).flat_map(|client| times(client + 10, WINDOW / 2));
        assert!(alone(&mut clients, successors), "clients that take each other's place");
    }

    #[test]
    fn several_clients_are_not() {
        let both = |count: u32| (0..count).map(|number| 7 + number % 2);
        let mut clients = Clients::default();
        assert!(!alone(&mut clients, both(10 * WINDOW)), "two in turns");
        assert!(alone(&mut clients, times(7, 2 * WINDOW)), "one is left");
        assert!(!alone(&mut clients, both(CHANGES + 2)), "a second one comes");
        assert!(!alone(&mut clients, times(7, WINDOW - CHANGES - 3)), "it was in this window");
        assert!(alone(&mut clients, times(7, WINDOW + 1)), "and went");
    }

    #[test]
    fn a_reader_looks_for_its_client_once_in_a_window() {
        let mut clients = Clients::default();
        let looks = times(7, 4 * WINDOW)
            .filter(|client| clients.note(*client, Load::Little) == Turn::Look)
            .count();
        assert_eq!(looks, 4, "one at the end of each");
        clients.beside.give_up();
        assert_eq!(
            times(7, 4 * WINDOW)
                .filter(|client| clients.note(*client, Load::Little) == Turn::Look)
                .count(),
            0
        );
        assert!(clients.alone, "it waits awake then");
    }

    #[test]
    fn much_that_is_written_is_left_to_all() {
        let mut clients = Clients::default();
        assert!(alone(&mut clients, times(7, WINDOW)), "a single client");
        assert!(
            (0..=CHANGES).all(|_| clients.note(7, Load::Data) == Turn::Stay),
            "nothing to look for"
        );
        assert!(!clients.alone, "writes back");
    }

    #[test]
    fn who_reads_much_gets_a_cpu_alone() {
        let mut clients = Clients::default();
        let turns: Vec<_> = (0..4 * WINDOW).map(|_| clients.note(7, Load::Read)).collect();
        assert!(turns.iter().all(|turn| *turn == Turn::Leave), "the reader is on another");
        assert!(clients.alone, "where it waits awake");
        let found = (0..2 * WINDOW).any(|_| clients.note(7, Load::Little) == Turn::Look);
        assert!(found, "something else");
    }

    #[test]
    fn a_listing_for_another_is_passed_on() {
        let mut clients = Clients::default();
        assert_eq!(clients.note(9, Load::Listing), Turn::Stay, "nobody is alone");
        assert!(alone(&mut clients, times(7, 2 * WINDOW)), "a single client");
        for _ in 0..2 * WINDOW {
            clients.note(7, Load::Little);
            assert_eq!(clients.note(9, Load::Listing), Turn::PassOn, "ahead, or for somebody else");
            assert!(clients.alone, "it need not wait for that");
        }
        clients.note(9, Load::Little);
        clients.note(7, Load::Little);
        assert_eq!(clients.note(9, Load::Listing), Turn::PassOn, "while it goes on asking");
        clients.note(9, Load::Little);
        assert_eq!(clients.note(9, Load::Listing), Turn::Stay, "it seems to be gone");
        assert!((0..4 * WINDOW).all(|_| clients.note(7, Load::Listing) != Turn::PassOn), "its own");
        assert!(clients.alone, "who does nothing but list");
        let lists = |clients: &mut Clients, others: &[u32]| {
            let mut others = others.iter().cycle().take(WINDOW as usize);
            others.position(|other| clients.note(*other, Load::Listing) != Turn::PassOn)
        };
        assert_eq!(lists(&mut clients, &[9]), Some(SUCCEEDS as usize), "one takes its place");
        assert!(clients.alone && clients.lone == 9, "and is waited for");
        assert_eq!(lists(&mut clients, &[7, 8]), Some(PASSED as usize), "two do not");
        assert!(!clients.alone, "nobody is waited for");
        assert!(alone(&mut clients, times(8, 2 * WINDOW)), "one of them is alone by now");
    }

    #[test]
    fn who_asks_in_a_row_is_the_one_that_is_alone() {
        let mut clients = Clients::default();
        assert!(alone(&mut clients, times(7, WINDOW - 1).chain([9])), "one of another at the end");
        assert_eq!(clients.lone, 7, "which does not change who is waited for");
        let mut clients = Clients::default();
        assert!(alone(&mut clients, times(7, WINDOW + 20)), "a client");
        assert!(alone(&mut clients, times(9, 11)), "and one that comes after it");
        assert_eq!(clients.note(9, Load::Little), Turn::Look, "is looked for");
        assert_eq!(clients.note(9, Load::Listing), Turn::Stay, "its own listing");
        assert_eq!(clients.note(7, Load::Listing), Turn::PassOn, "that of another");
    }

    #[test]
    fn waiting_in_vain_is_given_up_for_longer_and_longer() {
        let mut clients = Clients::default();
        let mut rests = Vec::new();
        for _ in 0..9 {
            let mut windows = 0;
            while !alone(&mut clients, times(7, WINDOW)) {
                windows += 1;
            }
            rests.push(windows);
            (0..VAIN).for_each(|_| clients.in_vain(false));
            assert!(!clients.alone, "given up");
        }
        let doubled = (0..7).map(|power| (REST.0 << power) - 1);
        assert_eq!(rests, [0].into_iter().chain(doubled).chain([REST.1 - 1]).collect::<Vec<_>>());
        while !alone(&mut clients, times(7, WINDOW)) {}
        (1..VAIN).for_each(|_| clients.in_vain(false));
        assert!(alone(&mut clients, times(7, WINDOW)), "a client that is slow at times");
        assert_eq!(clients.next_rest, REST.1, "that does not count as good");
        assert!(alone(&mut clients, times(7, WINDOW)), "a client that is quick");
        assert_eq!(clients.next_rest, REST.0, "forgiven");
        clients.in_vain(true);
        assert!(!clients.alone, "the CPU is somebody else's");
    }
}
