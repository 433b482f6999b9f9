//! Listing directories ahead of readers who look their names up one by one.
//!
//! A name that was never listed costs a round trip, a name out of a listing costs none: `READDIRPLUS`
//! tells the kernel of two hundred at once. But programs that know what they want (a build, an
//! interpreter's imports, a restored backup) never list. So when one directory is asked for name after
//! name (`watch`), somebody lists it over the mount, as any user might, and the kernel knows the next
//! names before they are wanted.
//!
//! That somebody is a process of its own ([`lister`]), for a server that waits for its own mount can
//! hang for good: killed, it keeps the device open until the request is answered that it was to answer
//! itself. The process is started when it is first wanted and ends when it was idle for a while. It
//! works over a clone of the mount that is attached nowhere, so that it never keeps anybody from
//! unmounting; that needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH, without which nothing is listed ahead.

pub mod lister;
mod watch;

use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::cpus::Elsewhere;
use watch::Watch;
pub use watch::Wish;

/// More wishes than these do not wait: by then their readers have gone on.
const WAITING: usize = 16;
/// Names that the kernel keeps for less are not worth fetching before they are asked for.
const SHORTEST: Duration = Duration::from_secs(1);

/// Notices what will be wanted, and has it listed.
#[derive(Debug)]
pub struct Ahead {
    off: Arc<AtomicBool>,
    watch: Watch,
    point: OnceLock<PathBuf>,
    wishes: OnceLock<Option<SyncSender<Wish>>>,
}

impl Ahead {
    /// Lists ahead, if that is wanted, for a mount whose names the kernel keeps for as long as `kept`;
    /// a series of names begins within `burst`.
    pub fn new(wanted: bool, burst: Duration, kept: Duration) -> Self {
        Self {
            off: Arc::new(AtomicBool::new(!wanted || kept < SHORTEST)),
            watch: Watch::new(burst),
            point: OnceLock::new(),
            wishes: OnceLock::new(),
        }
    }

    /// Says where the mount is; before that nothing is listed.
    pub fn is_mounted_on(&self, point: &Path) {
        let _ = self.point.set(point.to_owned());
    }

    /// Notes that a name was looked up in directory `node` and found, and answers with what is worth
    /// listing now; `parent` is asked for the directory above `node` when it is new.
    pub fn found(&self, node: u64, parent: impl FnOnce() -> Option<u64>) -> Option<Wish> {
        match self.off.load(Ordering::Relaxed) {
            true => None,
            false => self.watch.found(node, parent),
        }
    }

    /// Has a directory listed, behind the caller's back.
    pub fn list(&self, wish: Wish) {
        let start =
            || self.point.get().and_then(|point| start(point.clone(), Arc::clone(&self.off)));
        if let Some(wishes) = self.wishes.get_or_init(start) {
            let _ = wishes.try_send(wish);
        }
    }
}

/// Starts the thread that passes wishes on.
fn start(point: PathBuf, off: Arc<AtomicBool>) -> Option<SyncSender<Wish>> {
    let (sender, wishes) = sync_channel(WAITING);
    let run = move || {
        // Beside the reader that asked for it, and so do the processes that it starts.
        crate::cpus::roam();
        if let Err(error) = pass_on(&wishes, &point) {
            tracing::debug!(%error, "nothing is listed ahead any more");
        }
        off.store(true, Ordering::Relaxed);
    };
    let spawned = std::thread::Builder::new().name("layerfs-ahead".to_owned()).spawn(run);
    spawned.is_ok().then_some(sender)
}

/// Passes wishes on to the process that lists, one at a time; it is started whenever there is none.
///
/// # Errors
/// It cannot be started, or has nothing that it could do.
fn pass_on(wishes: &Receiver<Wish>, point: &Path) -> io::Result<()> {
    let mut process: Option<Lister> = None;
    let mut elsewhere = Elsewhere::of(rustix::process::getpid());
    while let Ok(mut wish) = wishes.recv() {
        // The reader has gone on meanwhile: what it asked for last is what it will ask for next.
        while let Ok(later) = wishes.try_recv() {
            wish = later;
        }
        elsewhere.than(wish.cpu);
        if let Some(lister) = &mut process
            && lister.list(wish).is_ok()
        {
            continue;
        }
        if let Some(lister) = process.take() {
            lister.end()?;
        }
        // It begins where this thread may run.
        elsewhere.than(None);
        let mut fresh = Lister::start(point)?;
        elsewhere.than(wish.cpu);
        // A second failure is told by its exit code, the next time.
        let _ = fresh.list(wish);
        process = Some(fresh);
    }
    Ok(())
}

/// The process that lists.
struct Lister {
    child: Child,
    wishes: ChildStdin,
    done: ChildStdout,
}

impl Lister {
    fn start(point: &Path) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .env_clear()
            .env(lister::MARK, "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(mut wishes), Some(done)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        // Not an argument: who looks for the server of a mount among the processes finds one.
        let point = point.as_os_str().as_bytes();
        wishes.write_all(&(point.len() as u64).to_ne_bytes())?;
        wishes.write_all(point)?;
        Ok(Self { child, wishes, done })
    }

    /// Has a directory listed and waits for it.
    fn list(&mut self, wish: Wish) -> io::Result<()> {
        self.wishes.write_all(wish.words().as_flattened())?;
        self.done.read_exact(&mut [0])
    }

    /// Takes note of its end; one that ended because it was idle is well.
    fn end(mut self) -> io::Result<()> {
        drop((self.wishes, self.done));
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(io::Error::other(status.to_string())),
        }
    }
}
