//! Counters of what a mount did.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::{op, op_name};

/// Counters, each only ever growing.
#[derive(Debug)]
pub struct Stats {
    requests: [AtomicU64; op::END as usize],
    /// Files and directories copied up.
    pub copy_ups: AtomicU64,
    /// Directories of which more was listed than anybody asked for.
    pub listed_ahead: AtomicU64,
    /// Names of listings that were looked up by another thread than the one that told of them.
    pub helped: AtomicU64,
    /// Opens that were handed to the kernel.
    pub passthrough_opens: AtomicU64,
    /// Requests that came over the ring.
    pub over_ring: AtomicU64,
    /// Those of them that other threads carried out.
    pub handed_over: AtomicU64,
    /// Requests that found a reader of the device awake.
    pub awaited: AtomicU64,
    /// Requests that a reader of the device answered on the client's CPU.
    pub beside: AtomicU64,
    /// Requests for others than a client that is alone, which a thread beside the readers carried out.
    pub passed_on: AtomicU64,
    /// Requests that ended with an error that is none of the caller's doing.
    pub faults: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            copy_ups: AtomicU64::new(0),
            listed_ahead: AtomicU64::new(0),
            helped: AtomicU64::new(0),
            passthrough_opens: AtomicU64::new(0),
            over_ring: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            beside: AtomicU64::new(0),
            passed_on: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        }
    }
}

impl Stats {
    /// Counts a request.
    pub fn count(&self, opcode: u32) {
        if let Some(counter) = self.requests.get(opcode as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds one to a counter.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (opcode, counter) in (0_u32..).zip(&self.requests) {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                writeln!(f, "{:<16} {count}", op_name(opcode))?;
            }
        }
        for (name, counter) in [
            ("copy-ups", &self.copy_ups),
            ("listed ahead", &self.listed_ahead),
            ("looked up along", &self.helped),
            ("passthrough", &self.passthrough_opens),
            ("over the ring", &self.over_ring),
            ("handed over", &self.handed_over),
            ("awaited", &self.awaited),
            ("beside", &self.beside),
            ("passed on", &self.passed_on),
            ("faults", &self.faults),
        ] {
            writeln!(f, "{name:<16} {}", counter.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}
