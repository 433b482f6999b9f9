//! What carries requests here and replies back: `/dev/fuse`, or a ring (io_uring, Linux 6.14).
//!
//! A mount begins on the device (`device`). Where the kernel offers the ring and the options allow it,
//! the ring (`ring`) is set up beside it while requests already come, and takes over when the last queue is
//! registered; if it cannot be had, nothing has happened. A reader stays on the device, for the kernel
//! sends what is forgotten and interrupted that way alone.
//!
//! The kernel waits without end, and unkillably, for a server whose thread for one CPU is gone while its
//! process lives. So the first thread that fails ends the whole connection, and then the process.

mod abort;
mod clients;
mod deputy;
mod device;
mod pipe;
mod plan;
mod polite;
mod pool;
mod post;
mod ring;
mod seat;
mod spin;

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::{Fs, MAX_WRITE, Verdict};
use crate::options::{Options, RingFault, Transport};
use crate::wire::{Args, Capabilities, Header, InitIn, Out, op};
use abort::Connection;
use deputy::Deputy;
use plan::Plan;
use spin::Duty;

/// A mount that has agreed on the protocol.
#[derive(Debug)]
pub struct Session {
    fs: Arc<Fs>,
    device: Arc<OwnedFd>,
    /// How the ring would be laid out; none if there is to be none.
    plan: Option<Plan>,
    /// Whether the mount fails without the ring.
    must: bool,
    /// How many threads read the device.
    threads: usize,
    /// Whether a reader of the device may wait beside its client or awake, and a ring's thread give way.
    spin: bool,
    /// How the ring fails, to test that.
    fault: Option<RingFault>,
}

/// A mount whose requests are being answered.
#[derive(Debug)]
pub struct Running {
    connection: Connection,
    ends: Receiver<std::result::Result<(), Failure>>,
    /// Whether the ring carries requests.
    pub over_ring: bool,
}

/// Why a thread ended before the mount did.
#[derive(Debug)]
struct Failure(&'static str, Errno);

/// What the threads of a mount have in common.
struct Crew<G> {
    fs: Arc<Fs>,
    device: Arc<OwnedFd>,
    ends: Sender<std::result::Result<(), Failure>>,
    /// Whether a thread has failed; what the others see afterwards is not the end of the mount.
    failed: Arc<AtomicBool>,
    /// Which readers of the device wait, and how; none where all sleep.
    duty: Option<Arc<Duty>>,
    /// Who carries out what a reader of the device should not; nobody where one thread is to do everything.
    deputy: Option<Arc<Deputy>>,
    /// Whether a ring's thread gives way to its clients.
    polite: bool,
    gone: G,
}

impl<G: Fn() + Copy + Send + 'static> Crew<G> {
    /// Starts a thread that answers requests until the mount is gone (`Ok(true)`), or until it is not
    /// needed any more.
    fn spawn(
        &self,
        name: String,
        work: impl FnOnce() -> std::result::Result<bool, Failure> + Send + 'static,
    ) -> Result<()> {
        let (fs, ends, gone) = (Arc::clone(&self.fs), self.ends.clone(), self.gone);
        let failed = Arc::clone(&self.failed);
        let run = move || {
            let end = catch_unwind(AssertUnwindSafe(work));
            let end = end.unwrap_or(Err(Failure("a thread panicked", Errno::IO)));
            match end {
                Ok(true) if !failed.load(Ordering::Acquire) => {
                    fs.release_layers();
                    gone();
                }
                Ok(_) => {}
                Err(_) => failed.store(true, Ordering::Release),
            }
            let _ = ends.send(end.map(drop));
        };
        let spawned = thread::Builder::new().name(name).spawn(run);
        spawned.map(drop).map_err(|error| Error::sys("clone", "", error))
    }
}

/// Enough that one slow request does not keep the others waiting.
fn default_threads() -> usize {
    thread::available_parallelism().map_or(4, usize::from).clamp(2, 14) + 2
}

/// What a request came to.
enum Answer {
    /// The reply was filled in.
    Done,
    Failed(Errno),
    /// There is no reply to it.
    Silent,
}

/// Carries out one request, whatever brought it; `out` is emptied first.
fn carry_out(fs: &Fs, header: &Header, args: Args<'_>, out: &mut Out) -> Answer {
    out.clear();
    match catch_unwind(AssertUnwindSafe(|| fs.dispatch(header, args, out))) {
        Ok(Verdict::Silent) => Answer::Silent,
        Ok(Verdict::Reply) => Answer::Done,
        Ok(Verdict::Error(error)) => Answer::Failed(error),
        Err(_) => {
            tracing::error!(opcode = header.opcode, node = header.node, "a request panicked");
            Answer::Failed(Errno::IO)
        }
    }
}

/// So many bytes of data are much for one request.
const MUCH: u32 = 32 << 10;

/// Where and how much a request reads, if that is much of what the kernel may ask for while its client copies what
/// it has got: with `O_DIRECT` it asks for nothing of its own accord. The fields are those of `fuse_read_in`.
fn reads_ahead(opcode: u32, mut args: Args<'_>) -> Option<(u64, u32)> {
    if opcode != op::READ {
        return None;
    }
    let (_handle, offset) = (args.u64().ok()?, args.u64().ok()?);
    let (size, _read_flags) = (args.u32().ok()?, args.u32().ok()?);
    let (_lock_owner, flags) = (args.u64().ok()?, args.u32().ok()?);
    let direct = OFlags::from_bits_retain(flags).contains(OFlags::DIRECT);
    (size >= MUCH && !direct).then_some((offset, size))
}

/// Decides about the ring by what the kernel offers; the error is for the user who insists on it.
fn choose(options: &Options, offer: &InitIn) -> Result<Option<Plan>> {
    let refused = |why: &str| match options.transport {
        Transport::Ring => Err(Error::refused("/dev/fuse", format!("transport=ring: {why}"))),
        _ => Ok(None),
    };
    match options.transport {
        Transport::Device => return Ok(None),
        // Who asks for one thread does not want one for each CPU.
        Transport::Auto if options.threads == Some(1) => return Ok(None),
        _ => {}
    }
    if !offer.offered.has(Capabilities::OVER_IO_URING) {
        return refused(
            "the kernel has it not (Linux 6.14), or /sys/module/fuse/parameters/enable_uring is N",
        );
    }
    let Some(plan) = Plan::of_this_machine() else {
        return refused("this machine may have too many CPUs");
    };
    // The rest is for what the union keeps open.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if limit.is_some_and(|limit| plan.files() > limit / 4) {
        return refused("too few files may be open");
    }
    Ok(Some(plan))
}

/// Answers the first request of a mount, which agrees on the protocol.
///
/// # Errors
/// A kernel that speaks another major version; a device that cannot be read; `transport=ring` where the
/// kernel does not offer it.
pub fn handshake(fs: &Arc<Fs>, device: &Arc<OwnedFd>, options: &Options) -> Result<Session> {
    let plan = device::handshake(device, |offer| {
        let plan = choose(options, offer)?;
        let mut answer = fs.init(offer, device);
        answer.max_write = plan.as_ref().map_or(MAX_WRITE, |plan| plan.payload);
        Ok((answer, plan))
    })?;
    Ok(Session {
        fs: Arc::clone(fs),
        device: Arc::clone(device),
        plan,
        must: options.transport == Transport::Ring,
        threads: options.threads.unwrap_or_else(default_threads),
        spin: options.spin,
        fault: options.ring_fault,
    })
}

impl Session {
    /// Starts to answer requests, until the mount on `point` is gone; the first thread that sees that
    /// calls `gone`.
    ///
    /// # Errors
    /// No thread can be started; with `transport=ring`, the ring cannot be set up. The mount is still
    /// there then.
    pub fn start(self, point: &Path, gone: impl Fn() + Copy + Send + 'static) -> Result<Running> {
        self.fs.is_mounted_on(point);
        let (sender, ends) = channel();
        let device = Arc::clone(&self.device);
        let failed = Arc::default();
        // On a single CPU the client could not ask meanwhile.
        let parallel = thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
        let duty = (self.spin && parallel).then(Arc::default);
        let fs = Arc::clone(&self.fs);
        let deputy = (self.threads > 1 && duty.is_some()).then(|| Deputy::new(&fs));
        let crew = Crew { fs, device, ends: sender, failed, duty, deputy, polite: self.spin, gone };
        crew.read_device(0)?;
        let mut running = Running { connection: Connection::of(point), ends, over_ring: false };
        if let Some(plan) = &self.plan {
            match ring::start(&crew, plan, self.threads, self.fault) {
                Ok(()) => {
                    running.over_ring = true;
                    return Ok(running);
                }
                Err(error) if self.must => {
                    // The caller unmounts, and tells why.
                    crew.failed.store(true, Ordering::Release);
                    return Err(Error::sys("set up the ring (transport=ring)", "/dev/fuse", error));
                }
                Err(error) => tracing::warn!(%error, "no ring: requests go over /dev/fuse"),
            }
        }
        for number in 1..self.threads.max(1) {
            crew.read_device(number)?;
        }
        Ok(running)
    }
}

impl Running {
    /// Waits for the end of the mount.
    ///
    /// # Errors
    /// The first failure of a thread; the connection is aborted by then, so that every caller has had an
    /// error. The process has to end, for the other threads do not.
    pub fn wait(self) -> Result<()> {
        while let Ok(end) = self.ends.recv() {
            if let Err(Failure(what, error)) = end {
                tracing::error!(what, %error, "a thread failed: the mount ends");
                self.connection.abort();
                return Err(Error::sys(what, "/dev/fuse", error));
            }
        }
        Ok(())
    }
}
