//! Applying the layers of an import, side by side where the driver can.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use drivers::{CreateOptions, LayerId};
use image::{LayerStream, Verified};

use super::made::{Commit, Made};
use super::plan::{Job, Plan};
use super::{Import, ImportProgress, LayerState};
use crate::catalogue::owner::Owner;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;

/// How many bytes of a layer's tar pass between two reports of progress.
const REPORT: u64 = 4 << 20;

/// A layer that is applied and proved.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) layer: LayerId,
    /// The layer that it was created on.
    pub(super) on: Option<LayerId>,
    pub(super) verified: Verified,
    pub(super) content_size: u64,
    /// How its tar is put together again.
    pub(super) recipe: Option<Vec<u8>>,
}

/// Set when one layer has failed: the others need not go on.
#[derive(Debug, Default)]
pub(super) struct Stop(AtomicBool);

/// What became of a job in the first round.
enum First {
    Applied(Applied),
    /// It must be applied on its parent.
    NeedsLower,
}

/// Applies all layers of a plan and commits them, parents first.
pub(super) fn all(import: &Import<'_>, plan: &Plan<'_>, made: &mut Made<'_, '_>) -> Result<()> {
    let mut first: Vec<Option<First>> = if import.driver.capabilities().rebase {
        side_by_side(import, plan, made)?
    } else {
        plan.jobs.iter().map(|_| None).collect()
    };
    let mut batch: Vec<Commit> = Vec::new();
    for (job, first) in plan.jobs.iter().zip(&mut first) {
        let applied = match first.take() {
            Some(First::Applied(applied)) => applied,
            Some(First::NeedsLower) | None => {
                made.commit(&batch)?;
                batch.clear();
                let below = below(job, made, &batch);
                one(import, made, &job.layer, below.as_ref(), &Stop::default())?
            }
        };
        let below = below(job, made, &batch);
        let (chain, diff_id, parent) = (job.chain, job.diff_id, job.parent);
        batch.push(Commit { chain, diff_id, parent, below, applied });
    }
    made.commit(&batch)
}

/// The layer below a job's in the driver: it was there, is committed, or is in the batch.
fn below(job: &Job, made: &Made<'_, '_>, batch: &[Commit]) -> Option<LayerId> {
    let parent = job.parent.as_ref()?;
    let waiting = batch.iter().find(|commit| commit.chain == *parent);
    job.below
        .clone()
        .or_else(|| made.layer_of(parent))
        .or_else(|| waiting.map(|commit| commit.applied.layer.clone()))
}

/// Applies every layer whose parent is not there without it, on several threads.
fn side_by_side(
    import: &Import<'_>,
    plan: &Plan<'_>,
    made: &Made<'_, '_>,
) -> Result<Vec<Option<First>>> {
    // The largest first: the last to end then ends early.
    let mut order: Vec<usize> = (0..plan.jobs.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(plan.jobs[at].layer.size()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = cores.max(2).min(order.len());
    let queue = Mutex::new(order.into_iter());
    let results: Vec<Mutex<Option<First>>> = plan.jobs.iter().map(|_| Mutex::default()).collect();
    let failure: Mutex<Option<Error>> = Mutex::default();
    let stop = Stop::default();
    let work = || {
        while !stop.0.load(Ordering::Relaxed) {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(at) = next else { return };
            let job = &plan.jobs[at];
            match first(import, made, job, &stop) {
                Ok(first) => {
                    *results[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
                }
                Err(error) => {
                    // Whoever is stopped fails too, but later.
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(error);
                    stop.0.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            // Without a thread the others do the work.
            let _ = std::thread::Builder::new().name("import".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let results = results.into_iter();
    Ok(results.map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

fn first(import: &Import<'_>, made: &Made<'_, '_>, job: &Job, stop: &Stop) -> Result<First> {
    match one(import, made, &job.layer, job.below.as_ref(), stop) {
        Ok(applied) => Ok(First::Applied(applied)),
        Err(Error::ImportLayer { source, .. })
            if matches!(&*source, Error::Driver { source, .. } if source.needs_lower())
                && job.below.is_none()
                && job.parent.is_some() =>
        {
            Ok(First::NeedsLower)
        }
        Err(error) => Err(error),
    }
}

/// Applies one layer on a committed one, or on nothing, and proves it.
///
/// When it fails the layer is gone, unless it cannot be removed.
pub(super) fn one(
    import: &Import<'_>,
    made: &Made<'_, '_>,
    layer: &image::Layer,
    below: Option<&LayerId>,
    stop: &Stop,
) -> Result<Applied> {
    let failed = |source: Error| Error::ImportLayer {
        file: import.file.to_owned(),
        index: layer.index(),
        diff_id: layer.diff_id(),
        source: Box::new(source),
    };
    let in_driver = |e| failed(Error::driver("apply", e));
    let in_image = |source| failed(Error::Image { op: "read", source });
    let labels = Owner::of_image(0).to_labels()?;
    let id = made.allot()?;
    let options = CreateOptions { labels, ..CreateOptions::active() };
    import.driver.create(&id, below, &options).map_err(in_driver)?;
    import.store.events.tell(Note::layer("create", import.driver.name(), &id));
    let stream = layer.open_recorded().map_err(in_image)?;
    let mut meter = Meter { stream, import, layer, stop, passed: 0, reported: 0 };
    meter.report(LayerState::Applying);
    let applied = match import.driver.apply(&id, &mut meter) {
        Ok(applied) => applied,
        Err(error) => {
            drop(meter);
            if let Err(error) = made.discard(&id) {
                tracing::warn!(layer = %id, %error, "layer left for the end of the import");
            }
            return Err(in_driver(error));
        }
    };
    meter.report(LayerState::Done);
    let (verified, recipe) = meter.stream.finish_recorded().map_err(in_image)?;
    import.store.metrics.imported.inc_by(verified.size);
    let content_size = applied.content_size;
    Ok(Applied { layer: id, on: below.cloned(), verified, content_size, recipe })
}

/// Passes a layer's tar on, tells how far it is, and ends when another layer has failed.
struct Meter<'m> {
    stream: LayerStream,
    import: &'m Import<'m>,
    layer: &'m image::Layer,
    stop: &'m Stop,
    passed: u64,
    reported: u64,
}

impl Meter<'_> {
    fn report(&self, state: LayerState) {
        let total = self.layer.size();
        let read = if state == LayerState::Done { total } else { self.stream.progress().read() };
        let (index, diff_id) = (self.layer.index(), self.layer.diff_id());
        (self.import.progress)(ImportProgress::Layer { index, diff_id, read, total, state });
    }
}

impl Read for Meter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.0.load(Ordering::Relaxed) {
            let reason = "stopped because another layer failed";
            return Err(cow::Error::refused("read", "", reason, ErrorKind::Io).into());
        }
        let length = self.stream.read(buffer)?;
        self.passed += length as u64;
        if self.passed - self.reported >= REPORT {
            self.reported = self.passed;
            self.report(LayerState::Applying);
        }
        Ok(length)
    }
}
