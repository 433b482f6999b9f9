//! What is done in the background: opening and reading the image, making views, extracting.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use cow::stack::Tree;

use super::app::{Effect, Event, Extracted, Extraction, Reading};
use super::image::{Header, Image};
use super::pager::{MOST, Pager};
use super::text::shown;
use super::view::{Spec, View};
use crate::commands::cp;
use crate::context::Session;
use crate::inspect::{self, Contents, Gauge, Kind, Subject, Target};

/// How often progress is told.
const OFTEN: Duration = Duration::from_millis(100);

/// How far reading has come, for the thread that draws to look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Arc<Mutex<(Reading, Gauge)>>);

impl Meter {
    /// Waits for the next event; without one, progress is it.
    pub(super) fn wait(&self, events: &Receiver<Event>) -> Event {
        match events.recv_timeout(OFTEN) {
            Ok(event) => event,
            Err(RecvTimeoutError::Disconnected) => Event::End,
            Err(RecvTimeoutError::Timeout) => {
                let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let (reading, gauge) = &*now;
                let read = gauge.read();
                let total = read.and(reading.total);
                Event::Reading(Reading { read: read.unwrap_or_default(), total, ..*reading })
            }
        }
    }

    fn set(&self, layer: usize, total: Option<u64>, gauge: Gauge) {
        let reading = Reading { layer, total, read: 0 };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (reading, gauge);
    }
}

/// The threads in the background, by what they are asked.
///
/// They are not waited for: whoever has seen enough need not wait until an archive is read.
#[derive(Debug)]
pub(super) struct Background {
    reader: Sender<Effect>,
    viewer: Sender<(u64, Spec, Arc<Image>)>,
    /// The newest view that was asked for.
    newest: Arc<AtomicU64>,
}

impl Background {
    /// Starts to open a target.
    pub(super) fn start(
        session: Session,
        target: Target,
        meter: &Meter,
        events: &Sender<Event>,
    ) -> anyhow::Result<Self> {
        let (reader, effects) = mpsc::channel();
        let meter = meter.clone();
        spawn("reader", events, move |events| read(&session, &target, &meter, &effects, events))?;
        let (viewer, specs) = mpsc::channel();
        let newest = Arc::new(AtomicU64::new(0));
        let wanted = Arc::clone(&newest);
        spawn("viewer", events, move |events| {
            make_views(&specs, &wanted, events);
            Ok(())
        })?;
        Ok(Self { reader, viewer, newest })
    }

    /// Does what the state asks for. A thread that is gone has said why.
    pub(super) fn perform(&self, effect: Effect) {
        match effect {
            Effect::Build(number, spec, image) => {
                self.newest.store(number, Ordering::Relaxed);
                drop(self.viewer.send((number, spec, image)));
            }
            effect => drop(self.reader.send(effect)),
        }
    }
}

/// Starts a thread whose failure, or panic, ends the explorer.
fn spawn(
    name: &str,
    events: &Sender<Event>,
    work: impl FnOnce(&Sender<Event>) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    struct Guard(Sender<Event>);
    impl Drop for Guard {
        fn drop(&mut self) {
            if thread::panicking() {
                drop(self.0.send(Event::Failed(anyhow!("the explorer has a fault, see above"))));
            }
        }
    }
    let guard = Guard(events.clone());
    let thread = thread::Builder::new().name(name.to_owned());
    let run = move || {
        if let Err(error) = work(&guard.0) {
            drop(guard.0.send(Event::Failed(error)));
        }
    };
    drop(thread.spawn(run).with_context(|| format!("start a thread for the {name}"))?);
    Ok(())
}

/// Makes the views that are asked for; those that are overtaken are left off.
fn make_views(
    specs: &Receiver<(u64, Spec, Arc<Image>)>,
    newest: &AtomicU64,
    events: &Sender<Event>,
) {
    while let Ok((number, spec, image)) = specs.recv() {
        let wanted = || newest.load(Ordering::Relaxed) == number;
        if let Some(view) = View::make(&image.forest, &spec, wanted)
            && events.send(Event::Built(number, view)).is_err()
        {
            return;
        }
    }
}

/// Opens and reads the image, then does what is asked.
fn read(
    session: &Session,
    target: &Target,
    meter: &Meter,
    effects: &Receiver<Effect>,
    events: &Sender<Event>,
) -> anyhow::Result<()> {
    let subject = inspect::open(session, target)?;
    let tell = |event| events.send(event).is_ok();
    tell(Event::Opened(Header::of(&subject)));
    let plain =
        |layer: &inspect::Layer| layer.blob.as_ref().is_some_and(|blob| blob.compression == "none");
    let several = subject.layers.len() > 1;
    // Headers of an uncompressed layer are read in no time: contents are compared later. What has to
    // be decompressed anyhow is read once.
    let quick = !several || subject.layers.iter().all(plain);
    if quick {
        tell(Event::Loaded(Arc::new(load(&subject, Contents::Skip, meter)?)));
        if several {
            let (target, meter) = (target.clone(), meter.clone());
            spawn("comparer", events, move |events| {
                let compared = inspect::open(&Session::new(None, false), &target)
                    .and_then(|subject| load(&subject, Contents::Digest, &meter));
                drop(events.send(match compared {
                    Ok(image) => Event::Loaded(Arc::new(image)),
                    // A damaged archive can be looked at nevertheless.
                    Err(error) => Event::Uncompared(printable(&error)),
                }));
                Ok(())
            })?;
        }
    } else {
        tell(Event::Loaded(Arc::new(load(&subject, Contents::Digest, meter)?)));
    }
    while let Ok(effect) = effects.recv() {
        let answer = match effect {
            Effect::Read(number, (layer, row), path, size) => {
                let content = content(&subject, layer, row, path, size);
                Event::Content(number, content.map_err(|error| printable(&error)))
            }
            Effect::Extract(extraction) => Event::Extracted(
                extract(&subject, extraction)
                    .unwrap_or_else(|error| Extracted::Failed(printable(&error))),
            ),
            _ => continue,
        };
        if !tell(answer) {
            break;
        }
    }
    Ok(())
}

fn printable(error: &anyhow::Error) -> String {
    shown(format!("{error:#}").as_bytes())
}

/// Reads all layers, one after the other.
fn load(subject: &Subject, contents: Contents, meter: &Meter) -> anyhow::Result<Image> {
    // A directory is read anew whenever it is asked for.
    let layers = if subject.kind == Kind::Directory { &[][..] } else { &subject.layers };
    for (at, layer) in layers.iter().enumerate() {
        let total = layer.blob.as_ref().map(|blob| blob.size);
        meter.set(at, total, subject.source.gauge());
        subject.source.index(at, contents)?;
    }
    Image::of(subject, contents)
}

/// Reads the beginning of a file.
fn content(
    subject: &Subject,
    layer: usize,
    row: usize,
    path: String,
    size: u64,
) -> anyhow::Result<Pager> {
    let stack = subject.stack(Contents::Skip)?;
    let index = stack.layers().get(layer).context("the layer is gone")?;
    let mut bytes = None;
    subject.source.read(layer, index, &[row], &mut |_, content| {
        let mut beginning = Vec::new();
        content.take(MOST).read_to_end(&mut beginning)?;
        bytes = Some(beginning);
        Ok(())
    })?;
    let bytes = bytes.with_context(|| format!("{path}: the content is not there"))?;
    Ok(Pager::new(path, size, bytes))
}

/// Extracts a file or directory as `layerctl cp` does; only a file is ever replaced, at once and as a
/// whole.
fn extract(subject: &Subject, extraction: Extraction) -> anyhow::Result<Extracted> {
    let tree = Tree::of(&subject.stack(Contents::Skip)?.lowest(extraction.layers));
    let top = tree.find(&extraction.path).context("no such file")?;
    let name = top.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut to = extraction.to.clone();
    if to.is_dir() && !name.is_empty() {
        to.push(OsStr::from_bytes(name));
    }
    let there = match fs::symlink_metadata(&to) {
        Ok(there) => Some(there),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| to.display().to_string()),
    };
    let left_out = match there {
        None => cp::copy(subject, &tree, top.path, &to)?,
        Some(there) if there.is_dir() || top.facts.is_dir() => {
            bail!("{} is there already: choose another name", to.display())
        }
        Some(_) if !extraction.replace => {
            return Ok(Extracted::Exists(Extraction { to, ..extraction }));
        }
        Some(_) => {
            let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty());
            let dir = dir.unwrap_or(Path::new("."));
            let beside = tempfile::Builder::new().prefix(".layerctl.").tempdir_in(dir);
            let beside = beside.with_context(|| format!("make a file in {}", dir.display()))?;
            let new = beside.path().join("new");
            let left_out = cp::copy(subject, &tree, top.path, &new)?;
            fs::rename(&new, &to).with_context(|| format!("replace {}", to.display()))?;
            left_out
        }
    };
    let mut told = format!("extracted to {}", shown(to.as_os_str().as_bytes()));
    if !left_out.is_empty() {
        told.push_str(&format!("; left out {} that are no files", left_out.len()));
    }
    Ok(Extracted::Done(told))
}
