//! Which signals the runtime takes, and where they go.
//!
//! The runtime stands where the container's first process would: what is sent to it is meant for
//! that process. All such signals are blocked and read from an fd (signalfd(2)) by the one loop
//! that also copies the terminal, so no handler ever runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};

/// Signals that are passed on to the container's first process.
pub const FORWARDED: &[Signal] = &[
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGALRM,
];

/// How many requests to end it a container may overlook before it is killed: as the first process
/// of its pid namespace it gets no signal that it has no handler for.
const PATIENCE: u32 = 3;

/// What a signal to the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A child has ended.
    Child,
    /// The terminal has another size.
    Resize,
    /// To be passed on.
    Forward(Signal),
    /// The container has overlooked too many requests to end.
    Kill,
}

/// Reads the runtime's signals.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    requests: u32,
}

impl Signals {
    /// Blocks the signals of this thread, which must be the only one, and opens the fd.
    ///
    /// They stay blocked when this is dropped: a request to end that comes while a container is
    /// being cleared away must not stop that half-way.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn take() -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in FORWARDED.iter().chain(&[Signal::SIGCHLD, Signal::SIGWINCH]) {
            mask.add(*signal);
        }
        mask.thread_block().map_err(Error::system("block signals"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&mask, flags).map_err(Error::system("open a signalfd"))?;
        Ok(Self { fd, requests: 0 })
    }

    /// The next signal that has arrived, none if there is no further one.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn read(&mut self) -> Result<Option<Event>> {
        loop {
            let Some(info) = self.fd.read_signal().map_err(Error::system("read a signal"))? else {
                return Ok(None);
            };
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
            if let Some(event) = signal.and_then(|signal| classify(signal, &mut self.requests)) {
                return Ok(Some(event));
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn classify(signal: Signal, requests: &mut u32) -> Option<Event> {
    match signal {
        Signal::SIGCHLD => Some(Event::Child),
        Signal::SIGWINCH => Some(Event::Resize),
        Signal::SIGTERM | Signal::SIGINT => {
            *requests += 1;
            Some(if *requests < PATIENCE { Event::Forward(signal) } else { Event::Kill })
        }
        signal if FORWARDED.contains(&signal) => Some(Event::Forward(signal)),
        _ => None,
    }
}

/// Reads a signal's name or number, as `STOPSIGNAL` and `kill` take it: `SIGTERM`, `term`, `15`.
///
/// # Errors
///
/// [`Error::Invalid`].
pub fn parse(text: &str) -> Result<Signal> {
    let invalid = || Error::invalid("signal", text, "no such signal");
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| invalid());
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse().map_err(|_| invalid())
}

/// Sends a signal to a process; one that has ended meanwhile is no error.
///
/// # Errors
///
/// [`Error::System`].
pub fn send(pid: i32, signal: Signal) -> Result<()> {
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => {
            Err(Error::System { operation: "signal the container", source: io::Error::from(errno) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_where_they_belong() {
        for (signal, event) in [
            (Signal::SIGCHLD, Some(Event::Child)),
            (Signal::SIGWINCH, Some(Event::Resize)),
            (Signal::SIGTERM, Some(Event::Forward(Signal::SIGTERM))),
            (Signal::SIGINT, Some(Event::Forward(Signal::SIGINT))),
            (Signal::SIGHUP, Some(Event::Forward(Signal::SIGHUP))),
            (Signal::SIGQUIT, Some(Event::Forward(Signal::SIGQUIT))),
            (Signal::SIGUSR1, Some(Event::Forward(Signal::SIGUSR1))),
            (Signal::SIGUSR2, Some(Event::Forward(Signal::SIGUSR2))),
            (Signal::SIGSEGV, None),
        ] {
            assert_eq!(classify(signal, &mut 0), event, "{signal}");
        }
    }

    #[test]
    fn the_third_request_to_end_kills() {
        let mut requests = 0;
        let events: Vec<_> = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]
            .into_iter()
            .filter_map(|signal| classify(signal, &mut requests))
            .collect();
        assert_eq!(
            events,
            [
                Event::Forward(Signal::SIGTERM),
                Event::Forward(Signal::SIGHUP),
                Event::Forward(Signal::SIGINT),
                Event::Kill,
            ],
            "other signals are not counted"
        );
    }

    #[test]
    fn names_and_numbers_are_read() {
        for (text, signal) in [
            ("SIGTERM", Some(Signal::SIGTERM)),
            ("term", Some(Signal::SIGTERM)),
            ("15", Some(Signal::SIGTERM)),
            ("SIGQUIT", Some(Signal::SIGQUIT)),
            ("", None),
            ("0", None),
            ("999", None),
            ("SIGNOTHING", None),
        ] {
            assert_eq!(parse(text).ok(), signal, "{text:?}");
        }
    }
}
