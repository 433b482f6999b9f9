//! The terminal of a container: the master end of its pseudo-terminal, and the user's own terminal.
//!
//! The container's first process makes the pseudo-terminal from its own devpts and sends the master
//! end over a socket. While it runs, the user's terminal is raw: keys, also those that would make
//! signals, go to the container's terminal, which has the line discipline.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, fcntl_setfl, openat};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::dirs::RuntimeDir;
use crate::error::{Error, Result};

/// The socket's name in the runtime directory.
const SOCKET: &str = "console.sock";
/// The most that is read at once, in bytes.
const CHUNK: usize = 32 << 10;
/// What a terminal reads as end of file, as a fresh one is set (`VEOF`): ^D.
const END_OF_FILE: u8 = 4;

/// Waits for a container's terminal.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens in the runtime directory.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn listen(dir: &RuntimeDir) -> Result<Self> {
        let path = dir.join(SOCKET);
        // A socket's name holds 108 bytes, and the directory may take them all: go by its fd.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = openat(CWD, dir.stage(), flags, Mode::empty())
            .map_err(Error::io("open", dir.stage()))?;
        let short = format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd());
        let listener = UnixListener::bind(short).map_err(Error::io("listen on", &path))?;
        Ok(Self { listener, path })
    }

    /// The path for the container to connect to.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Takes the master end, once the container is created, and gives the other end to `uid`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn receive(self, uid: u32) -> Result<OwnedFd> {
        let failed = |source: io::Error| Error::Io {
            operation: "receive the terminal over",
            path: self.path.clone(),
            source,
        };
        let (stream, _) = self.listener.accept().map_err(failed)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 64];
        let buffers = &mut [IoSliceMut::new(&mut name)];
        recvmsg(&stream, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(|errno| failed(errno.into()))?;
        let master = control
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .ok_or_else(|| failed(io::Error::other("no terminal came")))?;
        if uid != 0 {
            // Programs open /dev/stdout and the like by name.
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let slave = ioctl_tiocgptpeer(&master, flags).map_err(|errno| failed(errno.into()))?;
            fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>)
                .map_err(|errno| failed(errno.into()))?;
        }
        Ok(master)
    }
}

/// The user's terminal in raw mode; it is set back when this is dropped, also by a panic.
#[derive(Debug)]
struct RawMode {
    before: Termios,
}

impl RawMode {
    /// None if standard input is no terminal.
    fn enter() -> Result<Option<Self>> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        let before = tcgetattr(stdin()).map_err(Error::system("read the terminal's settings"))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)
            .map_err(Error::system("make the terminal raw"))?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Copies between the user's standard streams and the container's terminal.
#[derive(Debug)]
pub struct Console {
    master: OwnedFd,
    /// Whether standard input is still read.
    reading: bool,
    /// Input that the terminal has not taken yet: nothing further is read until it has.
    pending: VecDeque<u8>,
    /// Whether the container's end is open.
    open: bool,
    _raw: Option<RawMode>,
}

impl Console {
    /// Connects the user's streams; standard input only with `interactive`.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn attach(master: OwnedFd, interactive: bool) -> Result<Self> {
        // A container that does not read its input must not keep its output from being copied.
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)
            .map_err(Error::system("set up the terminal"))?;
        let raw = if interactive { RawMode::enter()? } else { None };
        let console =
            Self { master, reading: interactive, pending: VecDeque::new(), open: true, _raw: raw };
        console.resize();
        Ok(console)
    }

    /// Gives the container's terminal the size of the user's, if there is one.
    pub fn resize(&self) {
        let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin()));
        if let Ok(size) = size {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// What to wait for: the terminal, then standard input.
    pub fn interests(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::new();
        if self.open {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, !self.pending.is_empty());
            fds.push(PollFd::new(&self.master, flags));
            if self.reading && self.pending.is_empty() {
                fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
            }
        }
        fds
    }

    /// Copies what is ready, by the answer for [`Console::interests`].
    ///
    /// # Errors
    ///
    /// [`Error::System`]. That a stream has ended is none.
    pub fn copy(&mut self, ready: &[PollFlags]) -> Result<()> {
        let ready_at = |at: usize| ready.get(at).copied().unwrap_or(PollFlags::empty());
        if ready_at(0).intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.copy_output()?;
        }
        if ready_at(0).contains(PollFlags::OUT) {
            self.flush_input()?;
        }
        if !ready_at(1).is_empty() {
            self.read_input()?;
        }
        Ok(())
    }

    /// Copies what a container that has ended left in its terminal.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn drain(&mut self) -> Result<()> {
        while self.open && self.copy_output()? {}
        Ok(())
    }

    /// Copies one piece of output; false if there is none now.
    fn copy_output(&mut self) -> Result<bool> {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&self.master, &mut buffer) {
            // EIO: nobody has the other end open any more.
            Ok(0) | Err(Errno::IO) => self.open = false,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return Err(Error::system("read the terminal")(errno)),
            Ok(length) => write_all(stdout(), &buffer[..length])?,
        }
        Ok(true)
    }

    fn read_input(&mut self) -> Result<()> {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(0) | Err(Errno::IO) => {
                self.reading = false;
                self.pending.push_back(END_OF_FILE);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(Error::system("read standard input")(errno)),
            Ok(length) => self.pending.extend(&buffer[..length]),
        }
        self.flush_input()
    }

    fn flush_input(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.master, self.pending.make_contiguous()) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(Errno::IO) => self.pending.clear(),
                Err(errno) => return Err(Error::system("write to the terminal")(errno)),
            }
        }
        Ok(())
    }
}

/// Writes to a stream that may be non-blocking. That its reader is gone is no error: the container
/// runs on, as it would with nobody looking at its terminal.
fn write_all(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(stream, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            Err(Errno::PIPE | Errno::IO) => return Ok(()),
            Err(errno) => return Err(Error::system("write standard output")(errno)),
        }
    }
    Ok(())
}

impl AsFd for Console {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}
