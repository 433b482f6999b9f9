//! Carrying requests out for a reader that is to stay with its client.
//!
//! The listing that another has asked for, most often ahead and on the client's behalf, takes as long as many
//! of the client's own requests. Were all readers called back for it, the client would be taken from the one
//! that is on its CPU.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam::channel::{Sender, bounded};

use super::carry_out;
use super::device::send;
use crate::cpus::{self, Elsewhere};
use crate::fs::Fs;
use crate::wire::{Args, Header, Out};

/// A request, and the channel on which it is to be answered.
#[derive(Debug)]
struct Job {
    device: Arc<OwnedFd>,
    header: Header,
    args: Vec<u8>,
    /// The CPU of the client that the reader stays with, if it is there.
    cpu: Option<usize>,
}

/// A thread that does that; none before it is wanted.
#[derive(Debug)]
pub(super) struct Deputy {
    fs: Arc<Fs>,
    work: OnceLock<Option<Sender<Job>>>,
    /// Whether it has a request that is not carried out yet.
    busy: Arc<AtomicBool>,
}

impl Deputy {
    pub(super) fn new(fs: &Arc<Fs>) -> Arc<Self> {
        Arc::new(Self { fs: Arc::clone(fs), work: OnceLock::new(), busy: Arc::default() })
    }

    /// Has a request carried out and answered, unless there is something else to do, or no thread.
    pub(super) fn takes(&self, device: &Arc<OwnedFd>, header: &Header, mut args: Args<'_>) -> bool {
        let Some(work) = self.work.get_or_init(|| self.start()) else { return false };
        if self.busy.swap(true, Ordering::AcqRel) {
            return false;
        }
        let (args, cpu) = (args.rest().to_vec(), cpus::given_way());
        let job = Job { device: Arc::clone(device), header: *header, args, cpu };
        let taken = work.try_send(job).is_ok();
        if !taken {
            self.busy.store(false, Ordering::Release);
        }
        taken
    }

    fn start(&self) -> Option<Sender<Job>> {
        // One more is there while the last reply is on its way.
        let (sender, work) = bounded::<Job>(1);
        let (fs, busy) = (Arc::clone(&self.fs), Arc::clone(&self.busy));
        let run = move || {
            // The reader that starts it may give way to a client on its CPU.
            cpus::roam();
            let mut elsewhere = Elsewhere::of(rustix::process::getpid());
            let mut out = Out::behind();
            for job in work {
                elsewhere.than(job.cpu);
                let answer = carry_out(&fs, &job.header, Args::new(&job.args), &mut out);
                // Before somebody who gets the answer can ask for more.
                busy.store(false, Ordering::Release);
                let end = || {
                    send(&job.device, &job.header, answer, &out);
                    out.let_go();
                };
                if catch_unwind(AssertUnwindSafe(end)).is_err() {
                    tracing::error!(node = job.header.node, "a reply panicked");
                }
            }
        };
        let spawned = thread::Builder::new().name("layerfs-deputy".to_owned()).spawn(run);
        if let Err(error) = &spawned {
            tracing::debug!(%error, "the readers do everything themselves");
        }
        spawned.is_ok().then_some(sender)
    }
}
