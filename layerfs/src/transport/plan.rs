//! How many queues a ring has, and how much memory they may take.

use std::fs;

use crate::fs::MAX_WRITE;

/// The most address space that payloads take. Only what a request has touched becomes memory.
const BUDGET: u64 = 256 << 20;
/// More entries of a queue are of no use: this many requests of one CPU are in hand at a time.
const DEEPEST: u64 = 8;
/// Fewer would let one slow request stop its CPU.
const SHALLOWEST: u64 = 2;
/// The shortest longest write that is worth having.
const SMALLEST: u64 = 128 << 10;

/// The layout of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// For each thread the CPU that it stays on and the queues that it serves: its own, and a share of
    /// those of CPUs that are possible and not there.
    pub(super) threads: Vec<(u16, Vec<u16>)>,
    /// Entries of each queue.
    pub(super) depth: usize,
    /// Bytes of each entry's payload: the longest write.
    pub(super) payload: u32,
}

impl Plan {
    /// The plan for this machine's CPUs; none if they are too many.
    pub(super) fn of_this_machine() -> Option<Self> {
        let read = |name: &str| {
            let text = fs::read_to_string(format!("/sys/devices/system/cpu/{name}")).ok()?;
            cpus(text.trim())
        };
        Self::new(read("possible")?.len(), &read("online")?)
    }

    /// How many files it keeps open: for each thread the ring, what wakes it, and two by which it watches itself.
    pub(super) fn files(&self) -> u64 {
        4 * self.threads.len() as u64
    }

    /// The plan for this many possible CPUs, of which some are online.
    fn new(possible: usize, online: &[u16]) -> Option<Self> {
        let (depth, payload) = sizes(possible as u64)?;
        let queues = u16::try_from(possible).ok()?;
        let mut threads: Vec<_> =
            online.iter().filter(|cpu| **cpu < queues).map(|cpu| (*cpu, vec![*cpu])).collect();
        let served: Vec<_> = threads.iter().map(|(cpu, _)| *cpu).collect();
        let offline = (0..queues).filter(|queue| !served.contains(queue));
        for (number, queue) in offline.enumerate() {
            let count = threads.len();
            threads.get_mut(number % count.max(1))?.1.push(queue);
        }
        Some(Self { threads, depth, payload })
    }
}

/// The depth of each queue and the payload of each entry that the budget allows; deep queues are given
/// up first.
fn sizes(queues: u64) -> Option<(usize, u32)> {
    let share = BUDGET.checked_div(queues)?;
    let largest = u64::from(MAX_WRITE);
    let depth = (share / largest).clamp(SHALLOWEST, DEEPEST);
    let payload = (share / depth).min(largest) & !0xfff;
    if payload < SMALLEST {
        return None;
    }
    Some((usize::try_from(depth).ok()?, u32::try_from(payload).ok()?))
}

/// The CPUs of a list as the kernel writes it: `0-3,8`.
fn cpus(text: &str) -> Option<Vec<u16>> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        found.extend(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?);
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        let cases: &[(&str, Option<&[u16]>)] = &[
            ("0", Some(&[0])),
            ("0-3", Some(&[0, 1, 2, 3])),
            ("0-1,4,6-7", Some(&[0, 1, 4, 6, 7])),
            ("", None),
            ("0-x", None),
            ("99999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(cpus(text).as_deref(), *expected, "{text:?}");
        }
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_cpus() {
        let cases = [
            (1, Some((8, 1 << 20))),
            (32, Some((8, 1 << 20))),
            (64, Some((4, 1 << 20))),
            (128, Some((2, 1 << 20))),
            (256, Some((2, 512 << 10))),
            (1024, Some((2, 128 << 10))),
            (1025, None),
            (8192, None),
            (0, None),
        ];
        for (queues, expected) in cases {
            assert_eq!(sizes(queues), expected, "{queues} CPUs");
        }
        for queues in 1..1024 {
            let (depth, payload) = sizes(queues).expect("a plan");
            assert!(queues * depth as u64 * u64::from(payload) <= BUDGET, "{queues} CPUs");
        }
    }

    #[test]
    fn every_possible_cpu_has_one_queue() {
        let plan = Plan::new(6, &[0, 2, 7]).expect("a plan");
        assert_eq!(plan.threads, [(0, vec![0, 1, 4]), (2, vec![2, 3, 5])], "a hole and a stranger");
        assert_eq!(Plan::new(2, &[]), None, "no CPU to run on");
    }
}
