//! A real layerd on a store of its own, for one test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use layerd_api::Client;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::programs;
use crate::root::TempRoot;

/// How long a daemon may take to end before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running layerd in a temporary directory; drop ends it and clears everything away, under a
/// panic too, and then shows its log.
///
/// It is started with `--private`: it has said that it listens, and it ends with the test's process
/// whatever becomes of that.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    stdin: Option<ChildStdin>,
    dir: Option<TempDir>,
}

impl Daemon {
    /// A daemon with the driver that makes the fewest demands.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(["--driver", "vfs"])
    }

    /// A daemon with these arguments besides root and socket.
    #[must_use]
    pub fn start_with<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::start_in(TempDir::new().expect("a temporary directory"), arguments)
    }

    /// A daemon whose root is in a directory of the test's own, which outlives it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_on<A: AsRef<OsStr>>(
        root: &TempRoot,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::start_in(TempDir::new_in(root.path()).expect("a directory"), arguments)
    }

    /// A daemon on the directory of one that was [killed](Self::kill).
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_in<A: AsRef<OsStr>>(dir: TempDir, arguments: impl IntoIterator<Item = A>) -> Self {
        let log = File::options().create(true).append(true).open(dir.path().join("log"));
        let mut child = command(dir.path())
            .arg("--private")
            .args(arguments)
            .env("RUST_LOG", "layerd=debug,info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log file"))
            .spawn()
            .expect("layerd runs");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("its output is piped");
        let daemon = Self { child, stdin, dir: Some(dir) };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("its output");
        assert_eq!(line, "ready\n", "layerd starts");
        daemon
    }

    /// The directory that holds root, socket and log.
    ///
    /// # Panics
    /// Never: it is there until the daemon is killed or dropped.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("a living daemon").path()
    }

    /// The root of the store.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("layerd.sock")
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// Never: a child has a process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id")
    }

    /// A client of its own.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Runs layerctl against it, with nothing on standard input.
    #[must_use]
    pub fn layerctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        layerctl().arg("--socket").arg(self.socket()).args(arguments).finish()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the daemon has ended by itself.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the daemon lives");
    }

    /// Closes its standard input, as the end of the process that started it does.
    pub fn hang_up(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child).expect("the daemon ends")
    }

    /// Kills it as a crash would, and gives its directory for another one.
    ///
    /// # Panics
    /// When it has ended by itself.
    #[must_use]
    pub fn kill(self) -> TempDir {
        self.end(Signal::KILL)
    }

    /// Asks it to end, as its service manager does, and gives its directory for another one.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn stop(self) -> TempDir {
        self.end(Signal::TERM)
    }

    fn end(self, signal: Signal) -> TempDir {
        self.signal(signal);
        self.buried()
    }

    /// Waits for the end of one that was killed or told to end, and gives its directory for another one.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn buried(mut self) -> TempDir {
        self.wait();
        self.dir.take().expect("a living daemon")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.hang_up();
        if wait(&mut self.child).is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        let Some(dir) = &self.dir else { return };
        if thread::panicking() {
            let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            eprintln!("--- the daemon's log ---\n{log}---");
        }
        unmount_below(dir.path());
    }
}

/// `layerd serve` on the root and socket in `dir`, for tests of its start.
#[must_use]
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(programs::path("layerd"));
    command.args(["serve", "--root"]).arg(dir.join("root"));
    command.arg("--socket").arg(dir.join("layerd.sock"));
    command
}

/// layerctl without a choice of daemon.
#[must_use]
pub fn layerctl() -> Command {
    let mut command = Command::new(programs::path("layerctl"));
    command.env_remove("LAYERD_SOCKET").env_remove("LAYERD_ROOT");
    command
}

/// What a program did, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output of a program that must have succeeded.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

/// Running a command to its end.
pub trait Finish {
    /// Runs it with nothing on standard input.
    fn finish(&mut self) -> Finished;
}

impl Finish for Command {
    fn finish(&mut self) -> Finished {
        let Output { status, stdout, stderr } =
            self.stdin(Stdio::null()).output().expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Finished { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("a child") {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(2));
    }
    None
}

/// Takes off what a killed daemon left mounted, the last mount first.
fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let below: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    for point in below.into_iter().rev() {
        let _ = unmount(point, UnmountFlags::DETACH);
    }
}
