//! Docker and containerd, started for one test each on directories of their own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{Finish as _, Finished};

/// How long an engine may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that one test started; drop ends it, under a panic too, and then shows its log.
#[derive(Debug)]
struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it and waits until its socket is answered on.
    fn start(name: &'static str, command: &mut Command, log: PathBuf, socket: &Path) -> Self {
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let stdout = file.try_clone().expect("a log file");
        let command = command.stdin(Stdio::null()).stdout(stdout).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut server = Self { name, child, log };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(socket).is_err() {
            let ended = server.child.try_wait().expect("a child");
            assert_eq!(ended, None, "{name} ended at its start");
            assert!(Instant::now() < deadline, "{name} opens no socket");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Asks it to end, and kills it when it does not.
    fn end(&mut self) -> bool {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return false;
        }
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(80)..].join("\n");
            eprintln!("--- the end of {}'s log ---\n{last}\n---", self.name);
        }
    }
}

/// A dockerd that keeps its layers in the layerd whose plugin is found in `/run/docker/plugins`.
///
/// Only one layerd at a time can be found there; a test that starts one holds [`plugin`].
#[derive(Debug)]
pub struct Docker {
    server: Server,
    dir: PathBuf,
}

impl Docker {
    /// Starts it on a directory, which may be that of one that has ended.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let socket = dir.join("docker.sock");
        // A pid file or socket of one that was killed is in the way.
        drop(fs::remove_file(dir.join("docker.pid")));
        let mut command = Command::new("dockerd");
        command.args(["--experimental", "-s", "layerd", "--iptables=false", "--bridge=none"]);
        command.arg("--config-file").arg(dir.join("daemon.json"));
        command.arg("--data-root").arg(dir.join("data"));
        command.arg("--exec-root").arg(dir.join("exec"));
        command.arg("-p").arg(dir.join("docker.pid"));
        command.arg("-H").arg(format!("unix://{}", socket.display()));
        fs::write(dir.join("daemon.json"), "{}").expect("a configuration");
        let server = Server::start("dockerd", &mut command, dir.join("docker.log"), &socket);
        let docker = Self { server, dir: dir.to_owned() };
        // It listens before it has loaded what it stores.
        docker.run(["version"]).ok();
        docker
    }

    /// Runs a command of docker.
    #[must_use]
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        self.command(arguments).finish()
    }

    /// A command of docker, to be run as the caller likes.
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.dir.join("docker.sock").display()));
        command.args(arguments);
        // The classic builder asks the storage driver for each step.
        command.env("DOCKER_BUILDKIT", "0").env("DOCKER_CONFIG", self.dir.join("client"));
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
        command
    }

    /// Ends it as its service manager would.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(mut self) {
        assert!(self.server.end(), "dockerd ends when it is asked to");
    }
}

/// A containerd with layerd as its proxy snapshotter `layerd`.
#[derive(Debug)]
pub struct Containerd {
    server: Server,
    dir: PathBuf,
}

impl Containerd {
    /// Starts it on a directory with the layerd at `socket`.
    ///
    /// Its collector runs at its start, when a command waits for it and a moment after something was removed, not after
    /// so many changes: it takes what a test has made and not yet referred to.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(dir: &Path, socket: &Path) -> Self {
        let path = |name: &str| dir.join(name).display().to_string();
        let address = path("containerd.sock");
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {address:?}\n\
             [plugins.\"io.containerd.gc.v1.scheduler\"]\nmutation_threshold = 0\n\
             [proxy_plugins.layerd]\ntype = \"snapshot\"\naddress = {layerd:?}\n",
            root = path("data"),
            state = path("state"),
            layerd = socket.display().to_string(),
        );
        let file = dir.join("config.toml");
        File::create(&file)
            .and_then(|mut file| file.write_all(config.as_bytes()))
            .expect("a configuration");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(file);
        let log = dir.join("containerd.log");
        let server = Server::start("containerd", &mut command, log, Path::new(&address));
        let containerd = Self { server, dir: dir.to_owned() };
        containerd.ctr(["version"]).ok();
        containerd
    }

    /// Runs a command of ctr; `--snapshotter layerd` is the default.
    #[must_use]
    pub fn ctr<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Finished {
        self.command(arguments).finish()
    }

    /// A command of ctr, to be run as the caller likes.
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.dir.join("containerd.sock")).args(arguments);
        command.env("CONTAINERD_SNAPSHOTTER", "layerd");
        command
    }

    /// Waits until it has found a layerd that was started anew; until then its calls fail.
    ///
    /// # Panics
    /// When it does not find it.
    pub fn find_layerd(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.ctr(["snapshot", "ls"]).code != Some(0) {
            assert!(Instant::now() < deadline, "containerd does not find layerd again");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Pulls the image of an OCI layout under a name, as clients do that unpack while they download.
    /// The answer is the media types of the blobs that were asked for.
    #[must_use]
    pub fn pull(&self, layout: &Path, name: &str) -> Vec<String> {
        let mut command = Command::new(suites().join("pull"));
        command.arg(self.dir.join("containerd.sock")).arg("layerd").arg(layout).arg(name);
        command.finish().ok().lines().map(str::to_owned).collect()
    }

    /// Ends it as its service manager would.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(mut self) {
        assert!(self.server.end(), "containerd ends when it is asked to");
    }
}

/// Leave to be the one layerd that dockerd finds.
pub fn plugin() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The directory of the engines' own suites and clients, compiled by the first test that asks.
///
/// # Panics
/// When they do not compile.
#[must_use]
pub fn suites() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = workspace.join(".work/suites");
        fs::create_dir_all(&dir).expect("a directory for the suites");
        Command::new(workspace.join("tests/engines/build.sh")).arg(&dir).finish().ok();
        dir
    })
}

/// Runs one of the [suites], which must pass with at least this many cases.
///
/// # Panics
/// When it does not.
pub fn passes(suite: &mut Command, what: &str, least: usize) {
    let done = suite.arg("-test.v").finish();
    let said = format!("{}\n{}", done.stdout, done.stderr);
    assert_eq!(done.code, Some(0), "{what}:\n{said}");
    let passed =
        done.stdout.lines().filter(|line| line.trim_start().starts_with("--- PASS")).count();
    assert!(passed >= least, "{what}: only {passed} of {least} cases passed:\n{said}");
}
