//! The end of a mount's file system, out of the way of whoever unmounts.
//!
//! When the last mount of an overlay goes, the kernel syncs the whole file system below it
//! (`ovl_sync_fs`), other people's dirty pages included: on a busy disk that takes from milliseconds
//! to seconds, for a layer that is often removed right after. So the driver keeps one more, private
//! mount of it, unmounts the visible one, which is then quick, and lets a thread close the private
//! one. Until that is done the directories are still in use for the kernel; who mounts or commits
//! the layer again waits for it.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Becomes true once, for all who wait.
#[derive(Debug, Default)]
pub(super) struct Latch {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    /// Waits until it is true.
    pub(super) fn wait(&self) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while !*done {
            done = self.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

/// A mount to be closed.
struct Closing {
    mount: OwnedFd,
    latch: Arc<Latch>,
}

/// The thread that closes mounts. Dropping it waits until all are closed.
#[derive(Debug)]
pub(super) struct Closer {
    queue: Option<Sender<Closing>>,
    thread: Option<JoinHandle<()>>,
}

impl Closer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no room for one more.
    pub(super) fn start() -> std::io::Result<Self> {
        let (queue, work) = channel::<Closing>();
        let thread = std::thread::Builder::new().name("unmounter".to_owned()).spawn(move || {
            while let Ok(Closing { mount, latch }) = work.recv() {
                drop(mount);
                latch.open();
            }
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Closes a mount soon; the latch opens when it is done.
    pub(super) fn close(&self, mount: OwnedFd) -> Arc<Latch> {
        let latch = Arc::new(Latch::default());
        let closing = Closing { mount, latch: Arc::clone(&latch) };
        // Without a thread, which only a panic could have ended, the mount is closed here.
        match self.queue.as_ref().map(|queue| queue.send(closing)) {
            Some(Ok(())) => {}
            Some(Err(back)) => drop(back),
            None => {}
        }
        latch
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_is_waited_for_is_closed() {
        let closer = Closer::start().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        closer.close(writer.into()).wait();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the other end is still open");
    }

    #[test]
    fn dropping_closes_everything() {
        let closer = Closer::start().unwrap();
        let pipes: Vec<_> = (0..20).map(|_| std::io::pipe().unwrap()).collect();
        let mut readers = Vec::new();
        for (reader, writer) in pipes {
            closer.close(writer.into());
            readers.push(reader);
        }
        drop(closer);
        for mut reader in readers {
            assert_eq!(reader.read(&mut [0]).unwrap(), 0, "a mount is left open");
        }
    }
}
