//! Requests of a FUSE mount over io_uring (`linux/fuse.h`, Linux 6.14): the memory that is shared with
//! the kernel, and who may touch it when.
//!
//! The kernel has one queue of requests for each possible CPU. A server gives each of them *entries*: a
//! header block and a payload buffer, named in a `REGISTER` command. The command completes when a
//! request lies in the entry; `COMMIT_AND_FETCH` hands the reply over and the entry back. The kernel
//! touches an entry only while it holds it, and only from the thread that enters the ring.
//!
//! An entry of a [`Ring`] lies in memory as
//!
//! ```text
//! page 0   0  fuse_uring_req_header: in/out header 128, first argument 128, fuse_uring_ent_in_out 32
//!        512  iovec[2]: the header block, the payload
//!       3968  room for the first argument, so that all arguments are one slice
//! page 1   0  payload
//! ```

use std::fmt;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use memmap2::{MmapMut, MmapRaw};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, Result};

/// `FUSE_IO_URING_CMD_REGISTER`.
const REGISTER: u32 = 1;
/// `FUSE_IO_URING_CMD_COMMIT_AND_FETCH`.
const COMMIT_AND_FETCH: u32 = 2;

/// `sizeof(struct fuse_in_header)` and `sizeof(struct fuse_out_header)`.
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
/// `FUSE_URING_OP_IN_OUT_SZ`: the most that a first argument takes.
const FIRST: usize = 128;
/// `offsetof(struct fuse_uring_req_header, op_in)`, and of `ring_ent_in_out` and its fields.
const OP_IN: usize = 128;
const COMMIT_ID: usize = 256 + 8;
const PAYLOAD_SIZE: usize = 256 + 16;
/// `sizeof(struct fuse_uring_req_header)`.
const HEADERS: usize = 288;
/// Where an entry's iovecs lie.
const VECTORS: usize = 512;
/// Where an entry's payload lies.
const PAYLOAD: usize = 4096;
/// Marks the completion of the read that other threads end to wake the owner.
const WAKE: u64 = u64::MAX;

/// A request that the kernel has handed over, until [`Ring::commit`] takes it back.
///
/// Whoever drops one leaves its caller waiting until the connection ends.
#[derive(Debug)]
#[must_use = "the request's caller waits for its commit"]
pub struct Entry(usize);

/// What [`Ring::wait`] saw.
#[derive(Debug)]
pub enum Event {
    /// A request is there.
    Request(Entry),
    /// A [`Waker`] was used since the last wait.
    Woken,
    /// An entry is lost: with `NOTCONN` or `CONNABORTED` because the mount is gone, else by a fault
    /// after which the requests of its queue can hang.
    Lost(Errno),
}

/// Ends a [`Ring::wait`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the owner's present or next wait return.
    pub fn wake(&self) {
        // Fails only when 2^64 wakes are pending.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// Who may touch an entry's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Nobody: it was never registered, or it is lost.
    Nobody,
    Kernel,
    /// The owner of the ring; the number names the request to the kernel.
    Server(u64),
}

/// The entries of one or more queues, with the ring on which one thread serves them.
///
/// It stays with the thread that made it: the kernel lets no other submit.
pub struct Ring {
    // Before the memory, so that the kernel lets go of that first.
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    memory: Option<MmapRaw>,
    device: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    /// The queue and the holder of each entry.
    entries: Vec<(u16, Holder)>,
    payload: usize,
    /// Completions that came while entries were registered.
    early: Vec<(u64, i32)>,
    armed: bool,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, payload, .. } = self;
        f.debug_struct("Ring").field("entries", entries).field("payload", payload).finish()
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl Ring {
    /// A ring for `depth` entries in each of these queues of the mount behind `device`, each entry with
    /// `payload` bytes; nothing is registered yet.
    ///
    /// # Errors
    /// `PERM` and `NOSYS` where io_uring is not to be had, `INVAL` before Linux 6.1, `NOMEM`.
    pub fn new(
        device: &Arc<OwnedFd>,
        queues: &[u16],
        depth: usize,
        payload: usize,
    ) -> Result<Self> {
        let entries: Vec<_> = queues
            .iter()
            .flat_map(|queue| std::iter::repeat_n((*queue, Holder::Nobody), depth))
            .collect();
        let payload = payload.next_multiple_of(4096);
        let size = (PAYLOAD + payload).checked_mul(entries.len() + 1).ok_or(Errno::NOMEM)?;
        let memory = MmapRaw::from(MmapMut::map_anon(size).map_err(|error| errno(&error))?);
        // A touched page must not bring in the 2 MiB around it.
        let _ = memory.advise(memmap2::Advice::NoHugePage);
        let places = u32::try_from(entries.len() + 1).map_err(|_| Errno::INVAL)?;
        let ring = IoUring::<squeue::Entry128, cqueue::Entry>::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(places.next_power_of_two())
            .map_err(|error| errno(&error))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self {
            ring,
            memory: Some(memory),
            device: Arc::clone(device),
            wake: Arc::new(wake),
            entries,
            payload,
            early: Vec::new(),
            armed: false,
        })
    }

    /// A handle with which other threads end a wait.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }

    /// How many bytes of reply an entry takes.
    pub fn payload_size(&self) -> usize {
        self.payload
    }

    /// The first byte of an entry's memory; one past the last entry is the owner's own page.
    fn base(&self, entry: usize) -> *mut u8 {
        let memory = self.memory.as_ref().map_or(std::ptr::null_mut(), MmapRaw::as_mut_ptr);
        memory.wrapping_add(entry * (PAYLOAD + self.payload))
    }

    fn command(&self, entry: usize, operation: u32, commit_id: u64) -> squeue::Entry128 {
        let mut command = [0; 80];
        // struct fuse_uring_cmd_req: flags, commit_id, qid.
        command[8..16].copy_from_slice(&commit_id.to_ne_bytes());
        command[16..18].copy_from_slice(&self.entries[entry].0.to_ne_bytes());
        opcode::UringCmd80::new(types::Fd(self.device.as_raw_fd()), operation)
            .cmd(command)
            .addr(Some(self.base(entry).wrapping_add(VECTORS) as u64))
            .build()
            .user_data(entry as u64)
    }

    /// Gives the entries to the kernel, which sends requests this way when every queue of the mount has
    /// one; returns how many it took.
    ///
    /// # Errors
    /// The kernel's first refusal when it took none: `OPNOTSUPP` while `enable_uring` is off, `AGAIN`
    /// before the handshake is answered, `INVAL` for a queue that it does not have or a payload that is
    /// too small for its largest request.
    pub fn register(&mut self) -> Result<usize> {
        for entry in 0..self.entries.len() {
            let base = self.base(entry);
            let vectors = [
                libc::iovec { iov_base: base.cast(), iov_len: HEADERS },
                libc::iovec { iov_base: base.wrapping_add(PAYLOAD).cast(), iov_len: self.payload },
            ];
            // SAFETY: the place is inside the entry's first page of the mapping and aligned, and the
            // kernel does not hold the entry yet.
            unsafe { base.add(VECTORS).cast::<[libc::iovec; 2]>().write(vectors) };
            let mut command = self.command(entry, REGISTER, 0);
            // The crate has no setter for the number of iovecs.
            // SAFETY: `Entry128` is `struct io_uring_sqe` with room for a command behind it, all plain
            // numbers; its 32-bit field `len` is at 24 (linux/io_uring.h).
            unsafe { (&raw mut command).cast::<u8>().add(24).cast::<u32>().write(2) };
            self.push(&command)?;
            self.entries[entry].1 = Holder::Kernel;
        }
        self.ring.submit().map_err(|error| errno(&error))?;
        let early: Vec<_> =
            self.ring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect();
        let mut refused = None;
        for (entry, result) in early {
            if result < 0 {
                refused.get_or_insert(Errno::from_raw_os_error(-result));
                self.set_holder(entry, Holder::Nobody);
            } else {
                self.early.push((entry, result));
            }
        }
        let taken = self.entries.iter().filter(|(_, holder)| *holder == Holder::Kernel).count();
        match refused {
            Some(error) if taken == 0 => Err(error),
            _ => Ok(taken),
        }
    }

    fn set_holder(&mut self, entry: u64, holder: Holder) {
        let entry = usize::try_from(entry).ok().and_then(|entry| self.entries.get_mut(entry));
        if let Some(entry) = entry {
            entry.1 = holder;
        }
    }

    fn push(&mut self, command: &squeue::Entry128) -> Result<()> {
        // SAFETY: every command that is built here points into `memory`, which outlives the ring (see
        // `Drop`), at the part of one entry that nobody else touches until the command completes.
        unsafe { self.ring.submission().push(command) }.map_err(|_| Errno::BUSY)
    }

    /// Hands over what was committed and waits until something happens; adds it to `events`.
    ///
    /// # Errors
    /// What io_uring_enter(2) says; the ring is of no use then.
    pub fn wait(&mut self, events: &mut Vec<Event>) -> Result<()> {
        if !self.armed {
            let number = self.base(self.entries.len());
            let read = opcode::Read::new(types::Fd(self.wake.as_raw_fd()), number, 8);
            self.push(&read.build().user_data(WAKE).into())?;
            self.armed = true;
        }
        let mut seen = std::mem::take(&mut self.early);
        while seen.is_empty() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(&error)),
            }
            seen.extend(self.ring.completion().map(|cqe| (cqe.user_data(), cqe.result())));
        }
        for (entry, result) in seen.drain(..) {
            events.push(self.event(entry, result));
        }
        // Keeps the memory for the next wait.
        self.early = seen;
        Ok(())
    }

    fn event(&mut self, entry: u64, result: i32) -> Event {
        if entry == WAKE {
            self.armed = false;
            return Event::Woken;
        }
        let Some(index) = usize::try_from(entry).ok().filter(|entry| *entry < self.entries.len())
        else {
            return Event::Lost(Errno::BADE);
        };
        if result < 0 {
            self.entries[index].1 = Holder::Nobody;
            return Event::Lost(Errno::from_raw_os_error(-result));
        }
        // SAFETY: the command of this entry has completed, so that the kernel does not touch the entry
        // before the next command; the place is inside the mapping and aligned.
        let id = unsafe { self.base(index).add(COMMIT_ID).cast::<u64>().read() };
        self.entries[index].1 = Holder::Server(id);
        Event::Request(Entry(index))
    }

    /// The request in an entry: the `fuse_in_header`, and all arguments after it as one slice.
    ///
    /// # Errors
    /// `INVAL` for an entry of another ring, or a request whose lengths contradict each other.
    pub fn request(&mut self, entry: &Entry) -> Result<(&[u8], &[u8])> {
        let base = self.held(entry)?.0;
        // SAFETY: the server holds the entry, so that nobody writes to it while `self` is borrowed; all
        // places are inside the entry's part of the mapping, aligned, and initialised, for anonymous
        // memory begins as zeros.
        let (total, payload) = unsafe {
            (
                base.cast::<u32>().read() as usize,
                base.add(PAYLOAD_SIZE).cast::<u32>().read() as usize,
            )
        };
        let first = total.checked_sub(IN_HEADER + payload).filter(|first| *first <= FIRST);
        let first = first.filter(|_| payload <= self.payload).ok_or(Errno::INVAL)?;
        // SAFETY: as above; source and target do not overlap, and the target is the room that the
        // layout keeps before the payload for exactly this.
        unsafe {
            let room = base.add(PAYLOAD - first);
            room.copy_from_nonoverlapping(base.add(OP_IN), first);
            let arguments = std::slice::from_raw_parts(room, first + payload);
            Ok((std::slice::from_raw_parts(base, IN_HEADER), arguments))
        }
    }

    /// The payload of an entry, to be filled in place with a reply; the request's arguments are gone
    /// from the moment it is written to.
    ///
    /// # Errors
    /// `INVAL` for an entry of another ring.
    pub fn payload_mut(&mut self, entry: &Entry) -> Result<&mut [u8]> {
        let base = self.held(entry)?.0;
        // SAFETY: the server holds the entry, and `self` is exclusively borrowed as long as the slice
        // lives; the payload is inside the entry's part of the mapping and initialised.
        Ok(unsafe { std::slice::from_raw_parts_mut(base.add(PAYLOAD), self.payload) })
    }

    fn held(&self, entry: &Entry) -> Result<(*mut u8, u64)> {
        match self.entries.get(entry.0) {
            Some((_, Holder::Server(id))) => Ok((self.base(entry.0), *id)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Answers a request with an error (0 for none, else a negated errno) and the first `length` bytes of
    /// the entry's payload, and gives the entry back; the next [`Self::wait`] hands it over.
    ///
    /// # Errors
    /// `INVAL` for an entry of another ring, or for more bytes than there are.
    pub fn commit(&mut self, entry: Entry, error: i32, length: usize) -> Result<()> {
        let (base, id) = self.held(&entry)?;
        if length > self.payload {
            return Err(Errno::INVAL);
        }
        let size = u32::try_from(length).map_err(|_| Errno::INVAL)?;
        let total = u32::try_from(OUT_HEADER + length).map_err(|_| Errno::INVAL)?;
        // SAFETY: the server holds the entry; all places are inside its part of the mapping and aligned:
        // struct fuse_out_header is len, error, unique, and lies where fuse_in_header lay.
        unsafe {
            base.cast::<u32>().write(total);
            base.add(4).cast::<i32>().write(error);
            base.add(8).cast::<u64>().write(id);
            base.add(PAYLOAD_SIZE).cast::<u32>().write(size);
        }
        let command = self.command(entry.0, COMMIT_AND_FETCH, id);
        self.push(&command)?;
        self.entries[entry.0].1 = Holder::Kernel;
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel lets go of a closed ring's commands when it comes to it, not at once; what it may
        // still hold is never given to anybody else.
        let held = self.entries.iter().any(|(_, holder)| *holder == Holder::Kernel);
        if let Some(memory) = self.memory.take()
            && (held || self.armed)
        {
            std::mem::forget(memory);
        }
    }
}

#[cfg(test)]
mod tests;
