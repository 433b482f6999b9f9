//! Where a ring's thread is: on the CPU whose requests it answers, or off it for a client that reads much.
//!
//! What a client reads from one end to the other the kernel asks for beforehand, while the client copies what it
//! has got. That takes a CPU each, and a thread that stays on the client's has it wait.

use super::polite::Polite;
use super::reads_ahead;
use crate::cpus::{self, Elsewhere};
use crate::wire::Args;

/// So many long reads in a row make the thread leave.
const MANY: u32 = 4;
/// And so many other requests in a row bring it back.
const OTHERS: u32 = 4;

/// The place of the thread that serves the queue of one CPU.
#[derive(Debug)]
pub(super) struct Post {
    cpu: u16,
    /// Whether it is to give way to clients on its CPU.
    gives: bool,
    /// How it does.
    polite: Option<Polite>,
    /// Where it is while it is off its CPU.
    away: Option<Elsewhere>,
    /// So many requests came in a row that are not what it is there for.
    unfit: u32,
}

impl Post {
    /// Keeps this thread on a CPU; where it may not run there, anywhere.
    pub(super) fn take(cpu: u16) -> Self {
        let mut post = Self { cpu, gives: false, polite: None, away: None, unfit: 0 };
        post.come_back();
        post
    }

    /// Has it give way to clients on its CPU.
    pub(super) fn give_way(&mut self) {
        self.gives = true;
        self.polite = Polite::begin();
    }

    /// Notes that requests came.
    pub(super) fn note(&mut self) {
        if let Some(polite) = &mut self.polite {
            polite.note();
        }
    }

    /// Moves this thread to where a request and those before it are answered best.
    pub(super) fn suit(&mut self, opcode: u32, args: Args<'_>) {
        if reads_ahead(opcode, args) == self.away.is_some() {
            self.unfit = 0;
            return;
        }
        self.unfit += 1;
        match self.away {
            None if self.unfit >= MANY => self.go_away(),
            Some(_) if self.unfit >= OTHERS => self.come_back(),
            _ => {}
        }
    }

    fn go_away(&mut self) {
        self.unfit = 0;
        self.polite = None;
        cpus::roam();
        let mut away = Elsewhere::of(rustix::process::getpid());
        away.than(Some(self.cpu.into()));
        self.away = Some(away);
    }

    fn come_back(&mut self) {
        self.unfit = 0;
        self.away = None;
        if let Err(error) = cpus::stay_on(self.cpu) {
            tracing::debug!(%error, cpu = self.cpu, "not bound to its CPU");
            cpus::roam();
        }
        self.polite = self.gives.then(Polite::begin).flatten();
    }
}

#[cfg(test)]
mod tests {
    use super::super::MUCH;
    use super::*;
    use crate::wire::op;
    use rustix::fs::OFlags;

    /// What suits a read of so many bytes of a file that was opened with these flags.
    fn read(post: &mut Post, size: u32, flags: OFlags) {
        let mut args = vec![0; 16];
        args.extend(size.to_ne_bytes());
        args.extend([0; 4 + 8]);
        args.extend(flags.bits().to_ne_bytes());
        post.suit(op::READ, Args::new(&args));
    }

    fn own() -> rustix::thread::CpuSet {
        rustix::thread::sched_getaffinity(None).expect("where it may run")
    }

    #[test]
    fn a_client_that_reads_much_gets_a_cpu_alone() {
        let everywhere = cpus::of_process().expect("the CPUs of the process");
        let cpu = (0..u16::MAX).find(|cpu| everywhere.is_set(usize::from(*cpu))).expect("a CPU");
        let run = move || {
            let mut post = Post::take(cpu);
            post.give_way();
            let here = |place: &str| {
                assert!(own().count() == 1 && own().is_set(cpu.into()), "{place}: on its CPU");
            };
            here("at first");
            (0..MANY * 4).for_each(|_| read(&mut post, MUCH - 1, OFlags::RDONLY));
            post.suit(op::READ, Args::new(b"cut off"));
            here("for short reads");
            (0..MANY * 4).for_each(|_| read(&mut post, MUCH, OFlags::DIRECT));
            here("for those that are waited for");
            for _ in 0..4 {
                (1..MANY).for_each(|_| read(&mut post, MUCH, OFlags::RDONLY));
                post.suit(op::LOOKUP, Args::new(b"name\0"));
            }
            here("for files with a few long ones");
            (0..MANY).for_each(|_| read(&mut post, MUCH, OFlags::RDONLY));
            let only = everywhere.count() == 1;
            assert_eq!(own().is_set(cpu.into()), only, "off it, unless there is no other");
            assert!(!cow_sys::schedule::gives_way(), "and as threads are");
            (1..OTHERS).for_each(|_| post.suit(op::LOOKUP, Args::new(b"name\0")));
            read(&mut post, MUCH, OFlags::RDONLY);
            (1..OTHERS).for_each(|_| post.suit(op::GETATTR, Args::new(&[])));
            assert_eq!(own().is_set(cpu.into()), only, "for a few others");
            post.suit(op::GETATTR, Args::new(&[]));
            here("for more of them");
        };
        std::thread::spawn(run).join().expect("a thread of its own");
    }
}
