//! The transport over `/dev/fuse`: one channel for each thread, one request at a time.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Answer, Crew, Failure, carry_out};
use crate::error::{Error, Result};
use crate::fs::{Fs, MAX_WRITE};
use crate::wire::{Args, IN_HEADER, InitIn, InitOut, OUT_HEADER, Out, op};

/// Room for the largest write and its headers.
const BUFFER: usize = MAX_WRITE as usize + 8192;

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

fn reply(device: &OwnedFd, unique: u64, error: i32, body: &[u8]) {
    let length = u32::try_from(OUT_HEADER + body.len()).unwrap_or(u32::MAX);
    let mut head = [0; OUT_HEADER];
    head[0..4].copy_from_slice(&length.to_ne_bytes());
    head[4..8].copy_from_slice(&error.to_ne_bytes());
    head[8..16].copy_from_slice(&unique.to_ne_bytes());
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

/// Carries out one request and answers it.
fn answer(fs: &Fs, device: &OwnedFd, request: &[u8], out: &mut Out) {
    let mut args = Args::new(request);
    let Ok(header) = args.header() else {
        tracing::warn!(size = request.len(), "a request without a header");
        return;
    };
    match carry_out(fs, &header, args, out) {
        Answer::Silent => {}
        Answer::Done => reply(device, header.unique, 0, out.as_bytes()),
        Answer::Failed(error) => reply(device, header.unique, -error.raw_os_error(), &[]),
    }
}

fn serve(fs: &Fs, device: &OwnedFd) -> std::result::Result<(), Errno> {
    let mut buffer = vec![0; BUFFER];
    let mut out = Out::default();
    loop {
        match next(device, &mut buffer)? {
            Next::Gone => return Ok(()),
            Next::Request(size) if size < IN_HEADER => {}
            Next::Request(size) => answer(fs, device, &buffer[..size], &mut out),
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
        let fs = Arc::clone(&self.fs);
        let device = if number == 0 { Arc::clone(&self.device) } else { channel(&self.device) };
        self.spawn(format!("layerfs-{number}"), move || {
            serve(&fs, &device).map(|()| true).map_err(|error| Failure("read", error))
        })
    }
}
