//! The transport over io_uring: a thread for each CPU answers the requests of that CPU, where they arise if that
//! is best (see `post`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use cow_sys::fuse_ring::{Entry, Event, Ring, Waker};
use rustix::io::Errno;

use super::plan::Plan;
use super::pool::{Desk, Job, Pool};
use super::post::Post;
use super::{Answer, Crew, Failure, carry_out};
use crate::fs::{Effort, Fs};
use crate::options::RingFault;
use crate::stats::Stats;
use crate::wire::{Args, Header, Out, op};

/// The size of `fuse_read_in`, all that a `READ` carries.
const READ_IN: usize = 40;

/// Sets the ring up and lets it take over; on an error nothing has changed.
///
/// The kernel switches when every queue has an entry. If one thread cannot register it never does, and
/// the others are sent home.
pub(super) fn start<G: Fn() + Copy + Send + 'static>(
    crew: &Crew<G>,
    plan: &Plan,
    helpers: usize,
    fault: Option<RingFault>,
) -> Result<(), Errno> {
    let pool = Pool::new(&crew.fs, helpers.max(2));
    let unwanted = Arc::new(AtomicBool::new(false));
    let (report, reports) = channel();
    let mut started = 0;
    for (cpu, queues) in plan.threads.clone() {
        let (fs, device, pool) =
            (Arc::clone(&crew.fs), Arc::clone(&crew.device), Arc::clone(&pool));
        let (unwanted, report) = (Arc::clone(&unwanted), report.clone());
        let last = started + 1 == plan.threads.len();
        let (depth, payload) = (plan.depth, plan.payload as usize);
        let polite = crew.polite;
        let spawned = crew.spawn(format!("layerfs-cpu{cpu}"), move || {
            let mut post = Post::take(cpu);
            let ready = Ring::new(&device, &queues, depth, payload).and_then(|mut ring| {
                if last && fault == Some(RingFault::Registration) {
                    return Err(Errno::AGAIN);
                }
                ring.register()?;
                Ok(ring)
            });
            let ring = match ready {
                Ok(ring) => ring,
                Err(error) => {
                    let _ = report.send(Err(error));
                    return Ok(false);
                }
            };
            let desk = Desk::new(ring.waker());
            let _ = report.send(Ok(ring.waker()));
            drop(report);
            let left = match fault {
                Some(RingFault::After(requests)) => Some(requests),
                _ => None,
            };
            let out = Out::default();
            if polite {
                post.give_way();
            }
            Server { fs, ring, pool, desk, out, unwanted, post, served: false, left }
                .serve()
                .map_err(|error| Failure("serve the ring", error))
        });
        if spawned.is_err() {
            break;
        }
        started += 1;
    }
    drop(report);
    let outcomes: Vec<Result<Waker, Errno>> = reports.iter().take(started).collect();
    let ready: Vec<_> = outcomes.iter().flatten().collect();
    if ready.len() == plan.threads.len() {
        return Ok(());
    }
    unwanted.store(true, Ordering::Release);
    ready.iter().for_each(|waker| waker.wake());
    let refused = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    Err(refused.copied().unwrap_or(Errno::AGAIN))
}

/// The thread of one ring.
struct Server {
    fs: Arc<Fs>,
    ring: Ring,
    pool: Arc<Pool>,
    desk: Arc<Desk>,
    out: Out,
    unwanted: Arc<AtomicBool>,
    /// Where it is.
    post: Post,
    /// Whether requests came over it: the kernel has switched over.
    served: bool,
    /// How many requests it answers before it fails, to test that.
    left: Option<u64>,
}

impl Server {
    /// Answers requests until the mount is gone, or, with `false`, until nobody wants the ring.
    fn serve(mut self) -> Result<bool, Errno> {
        let mut events = Vec::new();
        loop {
            self.ring.wait(&mut events)?;
            self.post.note();
            let mut gone = false;
            for event in events.drain(..) {
                match event {
                    Event::Request(entry) => self.answer(entry)?,
                    Event::Woken if self.unwanted.load(Ordering::Acquire) => return Ok(false),
                    Event::Woken => self.hand_back()?,
                    Event::Lost(Errno::NOTCONN | Errno::CONNABORTED) => gone = true,
                    // The kernel's switch was turned off between its offer and our answer to it, which
                    // no queue gets past: requests go on coming over the device.
                    Event::Lost(Errno::OPNOTSUPP) if !self.served => {
                        tracing::warn!("no ring: enable_uring is N by now");
                        return Ok(false);
                    }
                    // It was turned off under a ring in use: the kernel takes no reply any more, and would
                    // have everybody wait for one.
                    Event::Lost(Errno::OPNOTSUPP) => {
                        tracing::error!("enable_uring was set to N while this mount needs it");
                        return Err(Errno::OPNOTSUPP);
                    }
                    Event::Lost(error) => return Err(error),
                }
            }
            if gone {
                return Ok(true);
            }
        }
    }

    fn answer(&mut self, entry: Entry) -> Result<(), Errno> {
        self.served = true;
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or(Errno::IO)?;
        }
        let (header, args) = self.ring.request(&entry)?;
        let header = Args::new(header).header()?;
        Stats::add(&self.fs.stats.over_ring);
        self.post.suit(&header, Args::new(args));
        let effort = self.fs.effort(&header, Args::new(args));
        if effort != Effort::Quick || self.pool.is_copying() {
            Stats::add(&self.fs.stats.handed_over);
            let desk = Arc::clone(&self.desk);
            let copies = effort == Effort::Copies;
            self.pool.give(Job { header, args: args.to_vec(), copies, entry, desk });
            return Ok(());
        }
        if header.opcode == op::READ
            && let Ok(args) = <[u8; READ_IN]>::try_from(args)
        {
            return self.read(entry, &header, &args);
        }
        let done = match carry_out(&self.fs, &header, Args::new(args), &mut self.out) {
            Answer::Done => {
                let body = std::mem::take(&mut self.out);
                let done = self.reply(entry, None, body.as_bytes());
                self.out = body;
                done
            }
            Answer::Failed(error) => self.reply(entry, Some(error), &[]),
            // Nothing of the kind comes this way; the entry has to go back all the same.
            Answer::Silent => self.reply(entry, None, &[]),
        };
        self.out.let_go();
        done
    }

    /// Answers a read with data that is read to where the kernel takes it from.
    fn read(&mut self, entry: Entry, header: &Header, args: &[u8]) -> Result<(), Errno> {
        let place = self.ring.payload_mut(&entry)?;
        let read = || self.fs.dispatch_read(header, Args::new(args), place);
        match catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(Errno::IO)) {
            Ok(length) => self.ring.commit(entry, 0, length),
            Err(error) => self.ring.commit(entry, -error.raw_os_error(), 0),
        }
    }

    fn hand_back(&mut self) -> Result<(), Errno> {
        for done in self.desk.clear() {
            self.reply(done.entry, done.error, &done.body)?;
        }
        Ok(())
    }

    fn reply(&mut self, entry: Entry, error: Option<Errno>, body: &[u8]) -> Result<(), Errno> {
        match self.ring.payload_mut(&entry)?.get_mut(..body.len()) {
            Some(place) => place.copy_from_slice(body),
            None => {
                tracing::warn!(bytes = body.len(), "a reply is longer than the kernel asked for");
                return self.ring.commit(entry, -Errno::IO.raw_os_error(), 0);
            }
        }
        let error = error.map_or(0, |error| -error.raw_os_error());
        self.ring.commit(entry, error, body.len())
    }
}
