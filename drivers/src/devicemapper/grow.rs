//! Keeps the pool from being full: it grows when its use reaches a threshold, data and metadata each.
//!
//! One thread waits for the kernel's events (the pool tells once when its low water mark is crossed,
//! when metadata runs low, and when nothing is left) and looks by itself now and then. LVM's
//! dmeventd may run as well: who comes second finds it done.
//!
//! While the volume group has space, a writer that finds the pool full waits for it to grow; when the
//! group is used up, writes fail at once with ENOSPC. Metadata is never let run out on purpose: a
//! device can always be deleted while there is some.

use std::collections::VecDeque;
use std::io::PipeWriter;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cow::error::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::crash;
use super::dm::Dm;
use super::lvm::{Group, Lvm};
use super::options::Options;
use super::pool::{Fill, Mode, Pool, mib};

/// How often the pool is looked at when it is far from its threshold, and when it is near.
const CALM: Duration = Duration::from_secs(5);
const NEAR: Duration = Duration::from_millis(250);
/// How near that is, in per cent.
const NEAR_PERCENT: u64 = 15;

/// How far apart samples of the use are, and how many are kept: half a day.
const SAMPLE_EVERY: Duration = Duration::from_secs(60);
const SAMPLES: usize = 720;

/// The least that metadata grows by.
const LEAST_METADATA: u64 = 4 << 20;

/// How a pool grows.
#[derive(Debug)]
pub(super) struct Growth {
    pool: Arc<Pool>,
    lvm: Option<Lvm>,
    threshold: u64,
    percent: u64,
    /// What the volume group had free when it was last asked.
    spare: AtomicU64,
    /// Held while something is changed.
    working: Mutex<()>,
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl Growth {
    /// Of a pool, which LVM has or has not.
    pub(super) fn new(pool: Arc<Pool>, lvm: Option<Lvm>, options: &Options) -> Self {
        Self {
            pool,
            lvm,
            threshold: options.extend_threshold,
            percent: options.extend_percent,
            spare: AtomicU64::new(0),
            working: Mutex::default(),
            samples: Mutex::default(),
        }
    }

    /// LVM's names of the pool.
    pub(super) fn lvm(&self) -> Option<&Lvm> {
        self.lvm.as_ref()
    }

    /// From how many per cent the pool grows; none for one that cannot.
    pub(super) fn threshold(&self) -> Option<u64> {
        // As for LVM, 100 is never.
        (self.lvm.is_some() && self.threshold < 100).then_some(self.threshold)
    }

    /// What the pool can still grow by.
    pub(super) fn spare(&self) -> u64 {
        match self.threshold() {
            Some(_) => self.spare.load(Ordering::Relaxed),
            None => 0,
        }
    }

    /// Asks the volume group what it has free.
    fn ask(&self, lvm: &Lvm) -> Result<Group> {
        let group = lvm.group()?;
        self.spare.store(group.free, Ordering::Relaxed);
        Ok(group)
    }

    /// Has writes to a full pool fail at once if the pool cannot grow any more, and wait otherwise.
    pub(super) fn settle_policy(&self) {
        let settle = || {
            let fails = self.pool.fill()?.fails_when_full;
            match &self.lvm {
                Some(lvm) => {
                    let group = self.ask(lvm)?;
                    let fail = self.threshold().is_none() || group.free < group.extent;
                    if fail == fails { Ok(()) } else { lvm.fail_when_full(fail) }
                }
                None if fails => Ok(()),
                None => self.fail_by_table(),
            }
        };
        if let Err(error) = settle() {
            tracing::warn!(%error, "writes to a full pool do not fail at once");
        }
    }

    /// The same for a pool that is nobody's but the kernel's.
    fn fail_by_table(&self) -> Result<()> {
        let (length, target, params) = self.pool.dm.table(&self.pool.name)?;
        let table = [(0, length, target, with_feature(&params, "error_if_no_space"))];
        self.pool.dm.reload(&self.pool.name, &table)
    }

    /// Looks at the pool once, and extends what has reached the threshold.
    pub(super) fn tend(&self) -> Result<Fill> {
        let fill = self.pool.fill()?;
        self.sample(fill.data_used);
        let Some(lvm) = self.lvm.as_ref().filter(|_| self.threshold().is_some()) else {
            return Ok(fill);
        };
        let metadata = percent(fill.metadata_used, fill.metadata_total) >= self.threshold;
        let data = percent(fill.data_used, fill.data_total) >= self.threshold
            || fill.mode == Mode::OutOfData;
        // With nothing left there is nothing to do until a device is added.
        if !(metadata || data) || self.spare() == 0 {
            return Ok(fill);
        }
        let _working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        if metadata {
            self.extend_metadata(lvm, &fill)?;
        }
        if data {
            self.extend_data(lvm, &fill)?;
        }
        let group = self.ask(lvm)?;
        if group.free < group.extent {
            tracing::warn!("the volume group is used up: writes to a full pool will fail");
            self.spare.store(0, Ordering::Relaxed);
            lvm.fail_when_full(true)?;
        }
        self.pool.fill()
    }

    fn extend_metadata(&self, lvm: &Lvm, fill: &Fill) -> Result<()> {
        let group = self.ask(lvm)?;
        let by = (fill.metadata_total / 100 * self.percent).max(LEAST_METADATA);
        let by = by.next_multiple_of(group.extent.max(1)).min(group.free);
        if by == 0 {
            return Ok(());
        }
        lvm.extend_metadata(by)?;
        tracing::info!(by = mib(by), of = mib(fill.metadata_total), "metadata extended");
        Ok(())
    }

    fn extend_data(&self, lvm: &Lvm, fill: &Fill) -> Result<()> {
        let group = self.ask(lvm)?;
        let by = (fill.data_total / 100 * self.percent).div_ceil(group.extent.max(1));
        let by = by.max(1).min(group.free / group.extent.max(1));
        if by == 0 {
            return Ok(());
        }
        crash::point("pool to be extended");
        lvm.extend_data(by)?;
        crash::point("pool extended");
        let (by, of) = (mib(by * group.extent), mib(fill.data_total));
        tracing::info!(by, of, "data extended");
        Ok(())
    }

    /// Takes another device, and lets writers wait for space again.
    pub(super) fn add_device(&self, device: &std::path::Path, force: bool) -> Result<()> {
        let Some(lvm) = &self.lvm else {
            let reason = "the pool is not LVM's: extend it as it was made";
            return Err(Error::refused("add device", device, reason, ErrorKind::Unsupported));
        };
        {
            let _working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
            lvm.add(device, force)?;
            crash::point("device added");
            self.ask(lvm)?;
        }
        if self.pool.fill()?.fails_when_full && self.threshold().is_some() {
            lvm.fail_when_full(false)?;
        }
        self.tend().map(drop)
    }

    fn sample(&self, used: u64) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= SAMPLE_EVERY) {
            samples.push_back((now, used));
            if samples.len() > SAMPLES {
                samples.pop_front();
            }
        }
    }

    /// By how many bytes a day the use has grown since the oldest sample; none before there is one
    /// that is old enough to say something.
    pub(super) fn per_day(&self, used: u64) -> Option<i64> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, then) = samples.front()?;
        rate(*then, used, at.elapsed())
    }

    /// When the pool is to be looked at again.
    fn pause(&self, fill: Option<Fill>) -> Duration {
        let near = |used, total| percent(used, total) + NEAR_PERCENT >= self.threshold;
        match fill {
            Some(fill) if self.spare() > 0 && near(fill.data_used, fill.data_total) => NEAR,
            _ => CALM,
        }
    }
}

/// Bytes a day.
fn rate(then: u64, now: u64, elapsed: Duration) -> Option<i64> {
    let seconds = i64::try_from(elapsed.as_secs()).ok().filter(|&seconds| seconds >= 30)?;
    let grown = i64::try_from(now).ok()?.saturating_sub(i64::try_from(then).ok()?);
    Some(grown.saturating_mul(86_400) / seconds)
}

fn percent(used: u64, total: u64) -> u64 {
    used.saturating_mul(100).checked_div(total).unwrap_or(0)
}

/// A pool's parameters with one more feature: metadata device, data device, block size, low water
/// mark, number of features, features.
fn with_feature(params: &str, feature: &str) -> String {
    let mut words: Vec<&str> = params.split_whitespace().collect();
    let features = words.split_off(words.len().min(4));
    let mut features: Vec<&str> = features.into_iter().skip(1).collect();
    features.push(feature);
    let number = features.len().to_string();
    words.push(&number);
    words.extend(features);
    words.join(" ")
}

/// The thread that watches. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch.
    pub(super) fn start(growth: Arc<Growth>) -> Result<Self> {
        let failed = |source| Error::sys("start thread", "", source);
        let listener = Dm::listener()?;
        let (stopped, stop) = std::io::pipe().map_err(failed)?;
        let watch = move || {
            loop {
                // Armed before the look: what happens after the look wakes the wait.
                if let Err(error) = listener.arm() {
                    tracing::debug!(%error, "no events, only looks");
                }
                let fill = growth.tend().inspect_err(|error| {
                    tracing::warn!(%error, "the pool cannot be extended");
                });
                if let Err(error) = growth.pool.delete_deferred() {
                    tracing::debug!(%error, "deferred deletion");
                }
                let pause = growth.pause(fill.ok());
                let timeout = Timespec {
                    tv_sec: i64::try_from(pause.as_secs()).unwrap_or(1),
                    tv_nsec: pause.subsec_nanos().into(),
                };
                let mut waits = [
                    PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
                    PollFd::from_borrowed_fd(listener.file().as_fd(), PollFlags::IN),
                ];
                let _ = rustix::event::poll(&mut waits, Some(&timeout));
                if !waits[0].revents().is_empty() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("pool".to_owned()).spawn(watch);
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(failed)?) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_counted() {
        let cases = [
            ("253:0 253:1 128 0 0", "253:0 253:1 128 0 1 error_if_no_space"),
            (
                "253:0 253:1 128 0 1 skip_block_zeroing",
                "253:0 253:1 128 0 2 skip_block_zeroing error_if_no_space",
            ),
            ("253:0 253:1 128 0", "253:0 253:1 128 0 1 error_if_no_space"),
        ];
        for (params, expected) in cases {
            assert_eq!(with_feature(params, "error_if_no_space"), expected, "{params}");
        }
    }

    #[test]
    fn a_rate_needs_time() {
        let minute = Duration::from_secs(60);
        assert_eq!(rate(0, 100, Duration::from_secs(1)), None, "a second says nothing");
        assert_eq!(rate(0, 60, minute), Some(86_400));
        assert_eq!(rate(60, 0, minute), Some(-86_400), "space was given back");
        assert_eq!(rate(0, u64::MAX, minute), None, "no such size");
    }

    #[test]
    fn percentages_do_not_overflow() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(80, 100), 80);
        assert!(percent(u64::MAX, u64::MAX) <= 100);
    }
}
