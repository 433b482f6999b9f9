//! Where a ring's thread is: on the CPU whose requests it answers, or off it for a client that reads much.
//!
//! What a client reads from one end to the other the kernel asks for beforehand, while the client copies what it
//! has got. That takes a CPU each, and a thread that stays on the client's has it wait.

use super::polite::{Kept, Polite};
use super::reads_ahead;
use crate::cpus::{self, Elsewhere};
use crate::wire::{Args, Header};

/// So many more reads that go on where the last one ended than other requests make the thread leave, and so many
/// more others bring it back.
const MANY: u32 = 4;

/// The place of the thread that serves the queue of one CPU.
#[derive(Debug)]
pub(super) struct Post {
    cpu: u16,
    /// How it gives way to clients on its CPU; none if it does not.
    polite: Option<Polite>,
    /// Where it is while it is off its CPU.
    away: Option<Elsewhere>,
    /// Whether it is kept from running there; none where that cannot be told, and it stays.
    abroad: Option<Kept>,
    /// Reads that went on where the last one ended, less other requests: 0 to [`MANY`].
    score: u32,
    /// The node that was read last, and how far.
    end: (u64, u64),
}

impl Post {
    /// Keeps this thread on a CPU; where it may not run there, anywhere.
    pub(super) fn take(cpu: u16) -> Self {
        if let Err(error) = cpus::stay_on(cpu) {
            tracing::debug!(%error, cpu, "not bound to its CPU");
        }
        let abroad = Kept::begin();
        Self { cpu, polite: None, away: None, abroad, score: 0, end: (0, 0) }
    }

    /// Has it give way to clients on its CPU.
    pub(super) fn give_way(&mut self) {
        self.polite = Polite::begin();
    }

    /// Notes that requests came.
    pub(super) fn note(&mut self) {
        let is_away = self.away.is_some();
        if !is_away && let Some(polite) = &mut self.polite {
            polite.note();
        }
        let Some(abroad) = self.abroad.as_mut().filter(|kept| is_away || !kept.is_well()) else {
            return;
        };
        abroad.note();
        if !abroad.is_well() {
            self.come_back();
        }
    }

    /// Moves this thread to where a request and those before it are answered best.
    pub(super) fn suit(&mut self, header: &Header, args: Args<'_>) {
        if self.goes_on(header, args) {
            self.score = (self.score + 1).min(MANY);
            if self.score == MANY && self.away.is_none() {
                self.go_away();
            }
        } else {
            self.score = self.score.saturating_sub(1);
            if self.score == 0 && self.away.is_some() {
                self.come_back();
            }
        }
    }

    /// Whether a request reads on where the last read ended.
    fn goes_on(&mut self, header: &Header, args: Args<'_>) -> bool {
        let Some((offset, size)) = reads_ahead(header.opcode, args) else { return false };
        let begin = (header.node, offset);
        let goes_on = begin == self.end;
        self.end = (header.node, offset.saturating_add(size.into()));
        goes_on
    }

    fn go_away(&mut self) {
        let others = || cpus::of_process().is_ok_and(|set| set.count() > 1);
        let Some(abroad) = self.abroad.as_mut().filter(|kept| kept.is_well() && others()) else {
            // Not asked again at every read.
            self.score = 0;
            return;
        };
        if let Some(polite) = &mut self.polite {
            polite.pause();
        }
        let mut away = Elsewhere::of(rustix::process::getpid());
        away.than(Some(self.cpu.into()));
        self.away = Some(away);
        abroad.go_on();
    }

    fn come_back(&mut self) {
        let Some(mut away) = self.away.take() else { return };
        self.score = 0;
        if let Some(abroad) = &mut self.abroad {
            abroad.pause();
        }
        if let Err(error) = cpus::stay_on(self.cpu) {
            tracing::debug!(%error, cpu = self.cpu, "not bound to its CPU");
            away.than(None);
        }
        if let Some(polite) = &mut self.polite {
            polite.go_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MUCH;
    use super::*;
    use crate::wire::op;
    use cow_sys::schedule::gives_way;
    use rustix::fs::OFlags;

    /// A client of one file.
    struct Client {
        post: Post,
        offset: u64,
    }

    impl Client {
        fn header(opcode: u32) -> Header {
            let mut bytes = [0; 40];
            bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
            bytes[16] = 7;
            Args::new(&bytes).header().expect("a header")
        }

        /// Reads so many bytes of the file that was opened with these flags, on from where it was.
        fn read(&mut self, times: u32, size: u32, flags: OFlags) {
            for _ in 0..times {
                let mut args = vec![0; 8];
                args.extend(self.offset.to_ne_bytes());
                args.extend(size.to_ne_bytes());
                args.extend([0; 4 + 8]);
                args.extend(flags.bits().to_ne_bytes());
                self.post.suit(&Self::header(op::READ), Args::new(&args));
                self.offset += u64::from(size);
            }
        }

        fn other(&mut self, times: u32) {
            (0..times).for_each(|_| self.post.suit(&Self::header(op::GETATTR), Args::new(&[])));
        }

        #[track_caller]
        fn is_here(&self, why: &str) {
            let set = rustix::thread::sched_getaffinity(None).expect("where it may run");
            assert!(set.count() == 1 && set.is_set(self.post.cpu.into()), "{why}: on its CPU");
            assert_eq!(gives_way(), self.post.polite.is_some(), "{why}: gives way if it can");
        }

        #[track_caller]
        fn is_away(&self, others: bool, why: &str) {
            if !others {
                return self.is_here(why);
            }
            let set = rustix::thread::sched_getaffinity(None).expect("where it may run");
            assert!(!set.is_set(self.post.cpu.into()), "{why}: off its CPU");
            assert!(!gives_way(), "{why}: as threads are");
        }
    }

    /// Runs a test by a thread that may be kept anywhere, which is told whether there is another CPU.
    fn with_client(test: impl FnOnce(Client, bool) + Send + 'static) {
        let everywhere = cpus::of_process().expect("the CPUs of the process");
        let cpu = (0..u16::MAX).find(|cpu| everywhere.is_set(usize::from(*cpu))).expect("a CPU");
        let run = move || {
            let mut post = Post::take(cpu);
            post.give_way();
            test(Client { post, offset: 0 }, everywhere.count() > 1);
        };
        std::thread::spawn(run).join().expect("a thread of its own");
    }

    #[test]
    fn a_client_that_reads_much_gets_a_cpu_alone() {
        with_client(|mut client, others| {
            client.is_here("at first");
            client.read(MANY, MUCH, OFlags::RDONLY);
            client.read(1, MUCH, OFlags::RDONLY);
            client.is_away(others, "for long reads");
            client.other(MANY - 1);
            client.read(MANY, MUCH, OFlags::RDONLY);
            client.other(MANY - 1);
            client.is_away(others, "for a few others");
            client.other(1);
            client.is_here("for more of them");
            client.read(MANY, MUCH, OFlags::RDONLY);
            client.is_away(others, "again");
        });
    }

    #[test]
    fn it_stays_for_whatever_is_not_asked_for_ahead() {
        with_client(|mut client, _| {
            client.read(4 * MANY, MUCH - 1, OFlags::RDONLY);
            client.is_here("for short reads");
            client.read(4 * MANY, MUCH, OFlags::DIRECT);
            client.is_here("for those that are waited for");
            for _ in 0..4 * MANY {
                client.offset += 1 << 20;
                client.read(1, MUCH, OFlags::RDONLY);
            }
            client.is_here("for those of places here and there");
            for _ in 0..4 * MANY {
                client.other(2);
                client.offset = 0;
                client.read(3, MUCH, OFlags::RDONLY);
            }
            client.is_here("for files that are soon read");
            client.post.suit(&Client::header(op::READ), Args::new(b"cut off"));
        });
    }

    #[test]
    fn it_comes_back_where_it_is_kept_from_running() {
        with_client(|mut client, others| {
            if !others {
                return client.read(4 * MANY, MUCH, OFlags::RDONLY);
            }
            client.read(MANY + 1, MUCH, OFlags::RDONLY);
            client.is_away(others, "for long reads");
            client.post.abroad.as_mut().expect("the kernel tells").keep();
            client.post.note();
            client.is_here("since somebody computes there");
            client.read(4 * MANY, MUCH, OFlags::RDONLY);
            client.is_here("and stays for a while");
        });
    }
}
