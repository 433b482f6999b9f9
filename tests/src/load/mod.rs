//! Many clients at once, each leading snapshots through their lives: for a test and a benchmark.
//!
//! A life is what an engine does for a step of a build: a snapshot is prepared, mounted, written to,
//! unmounted and committed; a second one on top of it is mounted and shows what the first was given;
//! both are removed. The dialects take turns among the clients, each of which has a connection of its
//! own.

mod dialects;
mod figures;

use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use cow_sys::mount;
use dialects::{Connection, target};

pub use dialects::{Dialect, SNAPSHOTTER};
pub use figures::{Op, Sample, percentile};

/// What stopped a client.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The snapshot below all others, one in each dialect.
const BASE: &str = "base";
/// A file of the base, which every life overwrites.
const COMMON: &str = "common";

/// A load on one daemon.
#[derive(Clone, Debug)]
pub struct Load {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// A directory for mount points.
    pub dir: PathBuf,
    /// How many clients there are.
    pub clients: usize,
}

/// What the clients did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Lives led to their end.
    pub lives: usize,
    /// How long each call took.
    pub samples: Vec<Sample>,
    /// Why clients ended before they were asked to.
    pub failures: Vec<String>,
    /// What clients that failed may have left.
    left: Vec<Left>,
}

/// What one client may have left: its keys, the uppermost last.
#[derive(Debug)]
struct Left {
    dialect: Dialect,
    keys: Vec<String>,
}

impl Load {
    /// Makes the base of every dialect.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn prepare(&self) -> Result<(), Failure> {
        for dialect in Dialect::ALL {
            let mut client = Client::open(self, dialect, usize::MAX, &|| {})?;
            client.write(BASE, None, "of the base")?;
            client.connection.commit(BASE)?;
        }
        Ok(())
    }

    /// Removes what [`Load::prepare`] made.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn remove(&self) -> Result<(), Failure> {
        for dialect in Dialect::ALL {
            let mut connection = Connection::open(dialect, &self.socket)?;
            let name = connection.committed(BASE);
            connection.remove(&name)?;
        }
        Ok(())
    }

    /// Lets all clients live until `more`, which is given the lives of a client and of all so far, says
    /// that it is enough, or until they fail.
    #[must_use]
    pub fn run(&self, more: impl Fn(usize, usize) -> bool + Sync) -> Outcome {
        self.run_counting(more, || {})
    }

    /// The same, with `called` run after every call that was answered.
    #[must_use]
    pub fn run_counting(
        &self,
        more: impl Fn(usize, usize) -> bool + Sync,
        called: impl Fn() + Sync,
    ) -> Outcome {
        let lives = AtomicUsize::new(0);
        let clients = thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients)
                .map(|number| {
                    let (more, lives, called) = (&more, &lives, &called);
                    scope.spawn(move || self.client(number, lives, more, called))
                })
                .collect();
            let clients = clients.into_iter();
            clients.map(|client| client.join().expect("a client")).collect::<Vec<_>>()
        });
        let mut outcome = Outcome { lives: lives.into_inner(), ..Outcome::default() };
        for client in clients {
            outcome.samples.extend(client.samples);
            outcome.failures.extend(client.failures);
            outcome.left.extend(client.left);
        }
        outcome
    }

    fn client(
        &self,
        number: usize,
        lives: &AtomicUsize,
        more: &dyn Fn(usize, usize) -> bool,
        called: &dyn Fn(),
    ) -> Outcome {
        let dialect = Dialect::ALL[number % Dialect::ALL.len()];
        let mut outcome = Outcome::default();
        let mut client = match Client::open(self, dialect, number, called) {
            Ok(client) => client,
            Err(error) => {
                outcome.failures.push(format!("{dialect:?} client {number}: {error}"));
                return outcome;
            }
        };
        let mut own = 0;
        while more(own, lives.load(Ordering::Relaxed)) {
            if let Err(error) = client.life(own) {
                outcome.failures.push(format!("{dialect:?} client {number}: {error}"));
                break;
            }
            lives.fetch_add(1, Ordering::Relaxed);
            own += 1;
        }
        outcome.samples = mem::take(&mut client.samples);
        outcome.left.push(Left { dialect, keys: mem::take(&mut client.keys) });
        outcome
    }

    /// Takes away what clients that failed have left, by a daemon that may be another one.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn clear(&self, outcome: &Outcome) -> Result<(), Failure> {
        for left in &outcome.left {
            let mut connection = Connection::open(left.dialect, &self.socket)?;
            // The uppermost first.
            for key in left.keys.iter().rev() {
                connection.clear(key).map_err(|error| format!("clear {key}: {error}"))?;
            }
        }
        Ok(())
    }
}

/// One client.
struct Client<'a> {
    connection: Connection,
    called: &'a dyn Fn(),
    dialect: Dialect,
    number: usize,
    target: PathBuf,
    samples: Vec<Sample>,
    /// Keys that may exist, the uppermost last.
    keys: Vec<String>,
}

impl<'a> Client<'a> {
    fn open(
        load: &Load,
        dialect: Dialect,
        number: usize,
        called: &'a dyn Fn(),
    ) -> Result<Self, Failure> {
        let connection = Connection::open(dialect, &load.socket)?;
        let target = target(load.dir.join(format!("mount-{number}")))?;
        let (samples, keys) = (Vec::new(), Vec::new());
        Ok(Self { connection, called, dialect, number, target, samples, keys })
    }

    fn life(&mut self, life: usize) -> Result<(), Failure> {
        let step = format!("{}-{life}", self.number);
        let base = self.connection.committed(BASE);
        self.write(&step, Some(&base), &step)?;
        // Until the answer is there, it has either key.
        let name = self.connection.committed(&step);
        let at = self.keys.len() - 1;
        self.keys.push(name.clone());
        self.timed(Op::Commit, |connection| connection.commit(&step))?;
        self.keys.remove(at);
        let above = format!("{step}-above");
        self.look(&above, &name, &step)?;
        for key in [above, name] {
            self.timed(Op::Remove, |connection| connection.remove(&key))?;
            self.keys.pop();
        }
        Ok(())
    }

    /// Makes a snapshot and writes to it.
    fn write(&mut self, key: &str, parent: Option<&str>, text: &str) -> Result<(), Failure> {
        let dir = self.show(key, parent)?;
        fs::write(dir.join(COMMON), text)?;
        fs::write(dir.join("own"), text.repeat(1000))?;
        self.hide(key)
    }

    /// Makes a snapshot and looks whether it shows what was written to the one below.
    fn look(&mut self, key: &str, parent: &str, text: &str) -> Result<(), Failure> {
        let dir = self.show(key, Some(parent))?;
        let found = (fs::read_to_string(dir.join(COMMON))?, fs::read_to_string(dir.join("own"))?);
        if found != (text.to_owned(), text.repeat(1000)) {
            return Err(format!("{key}: shows {:?} in place of {text:?}", found.0).into());
        }
        self.hide(key)
    }

    fn show(&mut self, key: &str, parent: Option<&str>) -> Result<PathBuf, Failure> {
        self.keys.push(key.to_owned());
        self.timed(Op::Prepare, |connection| connection.prepare(key, parent))?;
        let tree = self.timed(Op::Mounts, |connection| connection.mounts(key))?;
        let target = self.target.clone();
        self.timed(Op::Mount, |_| tree.show(&target))
    }

    fn hide(&mut self, key: &str) -> Result<(), Failure> {
        let target = self.target.clone();
        self.timed(Op::Unmount, |connection| connection.hide(key, &target))
    }

    fn timed<T>(
        &mut self,
        op: Op,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let outcome = work(&mut self.connection).map_err(|error| format!("{op:?}: {error}"))?;
        self.samples.push(Sample { dialect: self.dialect, op, took: start.elapsed() });
        (self.called)();
        Ok(outcome)
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        // Left by a life that broke off.
        let _ = mount::unmount(&self.target, true);
        let _ = fs::remove_dir(&self.target);
    }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open file descriptors.
    pub fds: usize,
    /// The resident set in KiB.
    pub resident: u64,
}

impl Footprint {
    /// What a process holds now (proc(5): `fd`, `VmRSS`).
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: u32) -> io::Result<Self> {
        let proc = Path::new("/proc").join(pid.to_string());
        let fds = fs::read_dir(proc.join("fd"))?.count();
        let status = fs::read_to_string(proc.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = line.and_then(|line| line.split_whitespace().next());
        let resident = resident.and_then(|number| number.parse().ok()).unwrap_or(0);
        Ok(Self { fds, resident })
    }
}
