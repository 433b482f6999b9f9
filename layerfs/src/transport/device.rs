//! The transport over `/dev/fuse`: one channel for each thread, one request at a time.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::clients::{Load, Turn};
use super::deputy::Deputy;
use super::pipe::{self, Pipe};
use super::seat::Seat;
use super::spin::{Duty, Wait};
use super::{Answer, Crew, Failure, MUCH, carry_out, reads_ahead};
use crate::error::{Error, Result};
use crate::fs::{Effort, Fs, MAX_WRITE, Stretch};
use crate::stats::Stats;
use crate::wire::{Args, Header, InitIn, InitOut, OUT_HEADER, Out, op};

/// Room for the largest write and its headers.
const BUFFER: usize = MAX_WRITE as usize + 8192;

/// So much is left for later at most.
const MANY: usize = 64;

/// What reading the device gave.
enum Next {
    Request(usize),
    /// The mount is gone.
    Gone,
}

fn next(device: &OwnedFd, buffer: &mut [u8]) -> std::result::Result<Next, Errno> {
    loop {
        match rustix::io::read(device, &mut *buffer) {
            Ok(0) | Err(Errno::NODEV) => return Ok(Next::Gone),
            Ok(size) => return Ok(Next::Request(size)),
            // ENOENT: the request was interrupted before it was read.
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
}

/// `fuse_out_header`, which begins a reply.
fn head(unique: u64, error: i32, body: usize) -> [u8; OUT_HEADER] {
    let length = u32::try_from(OUT_HEADER + body).unwrap_or(u32::MAX);
    let mut head = [0; OUT_HEADER];
    head[0..4].copy_from_slice(&length.to_ne_bytes());
    head[4..8].copy_from_slice(&error.to_ne_bytes());
    head[8..16].copy_from_slice(&unique.to_ne_bytes());
    head
}

fn reply(device: &OwnedFd, unique: u64, error: i32, body: &[u8]) {
    let head = head(unique, error, body.len());
    match rustix::io::writev(device, &[IoSlice::new(&head), IoSlice::new(body)]) {
        // ENOENT: the caller was interrupted and waits no longer.
        Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
        Err(error) => {
            tracing::warn!(%error, unique, "a reply was not taken");
            if !body.is_empty() {
                reply(device, unique, -Errno::IO.raw_os_error(), &[]);
            }
        }
    }
}

/// Reads the first request of a mount and answers it with what `agree` makes of the kernel's offer;
/// returns what else `agree` decided.
///
/// # Errors
/// A kernel that speaks another major version; a device that cannot be read; what `agree` refuses.
pub(super) fn handshake<T>(
    device: &OwnedFd,
    agree: impl FnOnce(&InitIn) -> Result<(InitOut, T)>,
) -> Result<T> {
    let failed = |error: Errno| Error::sys("handshake", "/dev/fuse", error);
    let mut buffer = vec![0; BUFFER];
    loop {
        let size = match next(device, &mut buffer).map_err(failed)? {
            Next::Request(size) => size,
            Next::Gone => return Err(failed(Errno::NODEV)),
        };
        let mut args = Args::new(&buffer[..size]);
        let header = args.header().map_err(failed)?;
        if header.opcode != op::INIT {
            reply(device, header.unique, -Errno::IO.raw_os_error(), &[]);
            continue;
        }
        let offer = InitIn::parse(&mut args).map_err(failed)?;
        let mut out = Out::default();
        if offer.major > 7 {
            // The kernel asks again in the version that it is answered with.
            out.u32(7);
            out.u32(InitOut::MINOR);
            reply(device, header.unique, 0, out.as_bytes());
            continue;
        }
        let agreed = if offer.major < 7 || offer.minor < 31 {
            Err(Error::refused("/dev/fuse", "the kernel is older than Linux 5.4"))
        } else {
            agree(&offer)
        };
        return match agreed {
            Ok((answer, more)) => {
                answer.lay_out(&mut out);
                reply(device, header.unique, 0, out.as_bytes());
                Ok(more)
            }
            Err(error) => {
                reply(device, header.unique, -Errno::PROTO.raw_os_error(), &[]);
                Err(error)
            }
        };
    }
}

/// Carries out one request and answers it; says whether somebody may have waited for the answer.
fn answer(fs: &Fs, device: &OwnedFd, header: &Header, args: Args<'_>, out: &mut Out) -> bool {
    let answer = carry_out(fs, header, args, out);
    send(device, header, answer, out)
}

/// Sends what a request came to; says whether somebody may have waited for it.
pub(super) fn send(device: &OwnedFd, header: &Header, answer: Answer, out: &Out) -> bool {
    match answer {
        Answer::Silent => return false,
        Answer::Done => reply(device, header.unique, 0, out.as_bytes()),
        Answer::Failed(error) => reply(device, header.unique, -error.raw_os_error(), &[]),
    }
    true
}

/// What one reader of the device works with.
struct Reader {
    fs: Arc<Fs>,
    device: Arc<OwnedFd>,
    duty: Option<Arc<Duty>>,
    /// Who carries out what this one should not; nobody if it is the only one.
    deputy: Option<Arc<Deputy>>,
}

/// What a reader keeps from one reply to the next.
#[derive(Default)]
struct Desk {
    out: Out,
    pipe: Option<Pipe>,
}

impl Reader {
    /// Carries out one request and answers it; says whether somebody may have waited for the answer.
    fn respond(&self, header: &Header, args: Args<'_>, desk: &mut Desk) -> bool {
        self.send_along(header, args, &mut desk.pipe)
            || answer(&self.fs, &self.device, header, args, &mut desk.out)
    }

    /// What a request is to those beside it: of those that write a file's data the kernel sends several at once.
    fn load(&self, header: &Header, mut args: Args<'_>) -> Load {
        /// `fuse_write_in` begins with the handle and the place.
        const BEFORE_SIZE: usize = 16;
        match header.opcode {
            op::READDIR | op::READDIRPLUS if self.deputy.is_some() => Load::Listing,
            op::READ if reads_ahead(op::READ, args).is_some() => Load::Read,
            op::WRITE if args.bytes(BEFORE_SIZE).is_ok() && args.u32().is_ok_and(|s| s >= MUCH) => {
                Load::Data
            }
            _ => Load::Little,
        }
    }

    /// Has somebody else carry a request out; if nobody can, others have to read meanwhile.
    fn pass_on(&self, header: &Header, args: Args<'_>, duty: &Duty) -> bool {
        let takes = |deputy: &Arc<Deputy>| deputy.takes(&self.device, header, args);
        let taken = self.deputy.as_ref().is_some_and(takes);
        if !taken {
            duty.call_back();
        }
        taken
    }

    /// Answers a long read through a pipe; says whether it did.
    fn send_along(&self, header: &Header, args: Args<'_>, pipe: &mut Option<Pipe>) -> bool {
        if header.opcode != op::READ {
            return false;
        }
        let fits = |data: &Stretch| (pipe::LEAST..=pipe::MOST).contains(&data.length);
        let Some(data) = self.fs.read_from(header, args, pipe::LEAST).filter(fits) else {
            return false;
        };
        *pipe = pipe.take().or_else(Pipe::new);
        let Some(open) = pipe else { return false };
        let head = head(header.unique, 0, data.length);
        match open.reply(&self.device, &head, &data.file, data.offset, data.length) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {
                self.fs.stats.count(op::READ);
                true
            }
            Err(error) => {
                tracing::debug!(%error, node = header.node, "a read goes through a buffer");
                *pipe = None;
                false
            }
        }
    }

    fn serve(&self) -> std::result::Result<(), Errno> {
        let mut buffer = vec![0; BUFFER];
        let mut desk = Desk::default();
        let mut seat = Seat::default();
        if let Some(duty) = &self.duty {
            duty.join();
        }
        loop {
            let size = match next(&self.device, &mut buffer)? {
                Next::Gone => return Ok(()),
                Next::Request(size) => size,
            };
            let mut args = Args::new(&buffer[..size]);
            let Ok(header) = args.header() else {
                tracing::warn!(size, "a request without a header");
                continue;
            };
            let Some(duty) = &self.duty else {
                self.respond(&header, args, &mut desk);
                desk.out.let_go();
                continue;
            };
            let long = self.fs.effort(&header, args) != Effort::Quick;
            let load = self.load(&header, args);
            let turn = duty.take(header.pid, load, long);
            let passed_on = turn == Turn::PassOn && self.pass_on(&header, args, duty);
            if seat.is_kept() {
                seat.leave();
                duty.kept();
            } else if long || turn == Turn::Leave || turn == Turn::PassOn && !passed_on {
                // It may need more of a CPU than somebody who gives way can have, or one of its own.
                seat.leave();
            } else if turn == Turn::Look
                && let Some(apart) = seat.join(header.pid)
            {
                duty.moved(apart);
            }
            if passed_on {
                Stats::add(&self.fs.stats.passed_on);
            } else if seat.is_taken() {
                Stats::add(&self.fs.stats.beside);
            }
            // What a forgotten file takes to close is done when the client is on its way to its next
            // request, not when it has one already.
            let waited_for = !passed_on && self.respond(&header, args, &mut desk);
            if waited_for || desk.out.left() > MANY {
                desk.out.let_go();
            }
            let wait = duty.next(long, || {
                desk.out.let_go();
                seat.leave();
            });
            if wait == Wait::Asleep {
                seat.leave();
            }
            let awake = wait == Wait::Awake && !seat.is_taken() && !passed_on;
            if !(awake && duty.wait_awake(&self.device, &self.fs.stats)) {
                desk.out.let_go();
            }
        }
    }
}

/// A further channel of a mount, or the same one where the device cannot be opened again.
fn channel(device: &Arc<OwnedFd>) -> Arc<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let fresh = rustix::fs::open("/dev/fuse", flags, Mode::empty());
    match fresh.and_then(|fresh| cow_sys::fuse::clone_device(device, &fresh).map(|()| fresh)) {
        Ok(fresh) => Arc::new(fresh),
        Err(_) => Arc::clone(device),
    }
}

impl<G: Fn() + Copy + Send + 'static> Crew<G> {
    /// Starts a thread that answers what comes over the device; each has a channel of its own.
    pub(super) fn read_device(&self, number: usize) -> Result<()> {
        let device = if number == 0 { Arc::clone(&self.device) } else { channel(&self.device) };
        let (fs, duty) = (Arc::clone(&self.fs), self.duty.clone());
        let reader = Reader { fs, device, duty, deputy: self.deputy.clone() };
        self.spawn(format!("layerfs-{number}"), move || {
            reader.serve().map(|()| true).map_err(|error| Failure("read", error))
        })
    }
}
