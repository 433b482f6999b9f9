//! Threads for requests that would keep a ring's thread from its other requests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use cow_sys::fuse_ring::{Entry, Waker};
use rustix::io::Errno;

use super::{Answer, carry_out};
use crate::fs::Fs;
use crate::union::lock;
use crate::wire::{Args, Header, Out};

/// A request to be carried out elsewhere.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) header: Header,
    pub(super) args: Vec<u8>,
    /// Whether others may have to wait for locks that it holds.
    pub(super) copies: bool,
    pub(super) entry: Entry,
    pub(super) desk: Arc<Desk>,
}

/// A request that was carried out.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) entry: Entry,
    pub(super) error: Option<Errno>,
    pub(super) body: Vec<u8>,
}

/// Where a ring's thread, the only one that may reply on its ring, finds what others did for it.
#[derive(Debug)]
pub(super) struct Desk {
    done: Mutex<Vec<Done>>,
    waker: Waker,
}

impl Desk {
    pub(super) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self { done: Mutex::default(), waker })
    }

    fn lay_down(&self, done: Done) {
        lock(&self.done).push(done);
        self.waker.wake();
    }

    /// Takes what lies there.
    pub(super) fn clear(&self) -> Vec<Done> {
        std::mem::take(&mut *lock(&self.done))
    }
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// The threads, started as they are needed.
#[derive(Debug)]
pub(super) struct Pool {
    fs: Arc<Fs>,
    queue: Mutex<Queue>,
    work: Condvar,
    most: usize,
    copying: AtomicUsize,
}

impl Pool {
    /// A pool of at most this many threads.
    pub(super) fn new(fs: &Arc<Fs>, most: usize) -> Arc<Self> {
        Arc::new(Self {
            fs: Arc::clone(fs),
            queue: Mutex::default(),
            work: Condvar::new(),
            most,
            copying: AtomicUsize::new(0),
        })
    }

    /// Whether a job is there that holds locks for long.
    pub(super) fn is_copying(&self) -> bool {
        self.copying.load(Ordering::Acquire) > 0
    }

    /// Takes a job on; there are no more of them than the rings have entries.
    pub(super) fn give(self: &Arc<Self>, job: Job) {
        if job.copies {
            self.copying.fetch_add(1, Ordering::AcqRel);
        }
        let mut queue = lock(&self.queue);
        queue.jobs.push_back(job);
        if queue.jobs.len() <= queue.idle || queue.threads >= self.most {
            self.work.notify_one();
            return;
        }
        let pool = Arc::clone(self);
        let spawned =
            thread::Builder::new().name("layerfs-pool".to_owned()).spawn(move || pool.work());
        match spawned {
            Ok(_) => queue.threads += 1,
            Err(error) if queue.threads > 0 => tracing::warn!(%error, "no further thread"),
            Err(_) => {
                // Slow is better than never.
                let job = queue.jobs.pop_back();
                drop(queue);
                job.into_iter().for_each(|job| self.finish(job, &mut Out::default()));
            }
        }
    }

    fn work(&self) {
        // Not only on the CPU whose thread has work for it.
        crate::cpus::roam();
        let mut out = Out::default();
        loop {
            let mut queue = lock(&self.queue);
            let job = loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                queue.idle += 1;
                queue = self.work.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
                queue.idle -= 1;
            };
            drop(queue);
            self.finish(job, &mut out);
        }
    }

    fn finish(&self, job: Job, out: &mut Out) {
        let answer = carry_out(&self.fs, &job.header, Args::new(&job.args), out);
        if job.copies {
            self.copying.fetch_sub(1, Ordering::AcqRel);
        }
        let (error, body) = match answer {
            Answer::Done => (None, out.as_bytes().to_vec()),
            Answer::Failed(error) => (Some(error), Vec::new()),
            Answer::Silent => (None, Vec::new()),
        };
        job.desk.lay_down(Done { entry: job.entry, error, body });
        out.let_go();
    }
}
