//! The life of a container in the foreground: [`Prepared`], [`Created`], [`Running`], over.
//!
//! Each state is a type, and each step consumes the one before. Whatever step fails, dropping what
//! there is takes all of it away: processes, control groups, mounts, the runtime directory. A
//! runtime that is killed takes its container with it and leaves control groups and plain files to
//! the next run or [`sweep`].

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use layerd_api::types::Container;
use libcontainer::container::Container as Handle;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use rustix::io::Errno;

use crate::cgroup::Cgroup;
use crate::console::{Console, ConsoleSocket};
use crate::dirs::{self, RuntimeDir};
use crate::error::{Error, Result};
use crate::executor::{Exec, Failure};
use crate::rootfs::{Rootfs, leave_host};
use crate::signals::{self, Event, Signals};
use crate::spec::{self, CgroupView, Facts, Network, Volume};
use crate::{net, user};

/// What is added to a signal's number to make it an exit code.
const SIGNAL_EXIT: i32 = 128;

/// All that a container holds of the machine. The order of the fields is that of their removal.
#[derive(Debug)]
struct Sandbox {
    cgroup: Cgroup,
    rootfs: Rootfs,
    dir: RuntimeDir,
}

/// A container whose root file system is mounted and whose description is written.
#[derive(Debug)]
pub struct Prepared {
    sandbox: Sandbox,
    signals: Signals,
    container: Container,
    uid: u32,
}

/// A container whose first process waits to become the program.
pub struct Created {
    init: Init,
    handle: Handle,
    console: Option<Console>,
    signals: Signals,
    sandbox: Sandbox,
    id: String,
}

/// A container that runs.
#[derive(Debug)]
pub struct Running {
    init: Init,
    console: Option<Console>,
    signals: Signals,
    sandbox: Sandbox,
}

impl std::fmt::Debug for Created {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Created").field("id", &self.id).field("init", &self.init).finish()
    }
}

/// What came of a container.
#[derive(Debug)]
pub struct Over {
    /// Its exit code: 128 and the signal's number for one that was killed.
    pub code: i32,
    /// What went wrong at its end: output that could not be written to the terminal, something that could not be taken
    /// away.
    pub failures: Vec<Error>,
}

/// The container's first process: a child of this one, killed when dropped before it has ended.
#[derive(Debug)]
struct Init {
    pid: i32,
    ended: bool,
}

impl Prepared {
    /// Sets a container up, below the runtime directories in `base`.
    ///
    /// This process leaves its mount namespace, and with an own network for the container its
    /// network namespace, for good; it must have one thread only.
    ///
    /// # Errors
    ///
    /// Every kind but [`Error::Exec`] and [`Error::Daemon`].
    pub fn new(container: Container, base: &Path) -> Result<Self> {
        let network = Network::of(&container)?;
        let volumes = container.spec.volumes.iter().map(|volume| Volume::parse(volume));
        let volumes = volumes.collect::<Result<Vec<_>>>()?;
        let cwd = spec::working_dir(&container.spec)?;
        let mut dir = RuntimeDir::create(base, &container.id)?;
        let signals = Signals::take()?;
        leave_host(network == Network::None)?;
        if network == Network::None {
            net::loopback_up()?;
        }
        dir.set_stage()?;
        let target = dir.subdir("rootfs")?;
        let rootfs = Rootfs::mount(&container.mounts, &target, container.auto_remove)?;
        let identity = user::lookup(&rootfs, &container.spec.user)?;
        make_sources(&volumes)?;
        rootfs.make_working_dir(&cwd, &volumes)?;
        let cgroup = Cgroup::create(&container.id)?;
        let views = cgroup.hide(&dir)?;
        let cgroups = match views {
            views if !views.is_empty() => CgroupView::Bound(views),
            _ if cgroup.is_unified() => CgroupView::Unified,
            _ => CgroupView::Nothing,
        };
        let facts = Facts {
            rootfs: target,
            files: files(&container, network, &rootfs, &dir)?,
            cgroups,
            guards_devices: cgroup.guards_devices(),
            cgroup_namespace: Path::new("/proc/self/ns/cgroup").exists(),
            identity,
        };
        write_spec(&dir, &spec::build(&container, &facts)?)?;
        let uid = facts.identity.uid;
        Ok(Self { sandbox: Sandbox { cgroup, rootfs, dir }, signals, container, uid })
    }

    /// Forks the container's first process and has it set itself up to just before the program.
    ///
    /// # Errors
    ///
    /// [`Error::Exec`] if the program cannot be executed, [`Error::NoLimit`], or
    /// [`Error::Container`] with what the library says.
    pub fn create(mut self) -> Result<Created> {
        let spec = &self.container.spec;
        let dir = &self.sandbox.dir;
        let failed = library_error("create", &self.container.id);
        let socket = if spec.terminal { Some(ConsoleSocket::listen(dir)?) } else { None };
        let mut builder = ContainerBuilder::new(self.container.id.clone(), SyscallType::default())
            .with_executor(Exec { die_with_parent: true })
            .with_console_socket(socket.as_ref().map(|socket| socket.path().clone()))
            .with_root_path(dir.subdir("state")?)
            .map_err(&failed)?;
        if !spec.terminal {
            own_pipes(self.uid);
            if !spec.stdin {
                let null = File::open("/dev/null").map_err(Error::io("open", "/dev/null"))?;
                builder = builder.with_stdin(null);
            }
        }
        let builder = builder.as_init(dir.stage()).with_systemd(false).with_detach(true);
        self.sandbox.cgroup.join()?;
        let built = builder.build();
        self.sandbox.cgroup.leave()?;
        let handle = built.map_err(&failed)?;
        let pid = handle.pid().map(|pid| pid.as_raw()).ok_or_else(|| Error::Container {
            operation: "create",
            id: self.container.id.clone(),
            reason: "it has no process".to_owned(),
        })?;
        let init = Init { pid, ended: false };
        self.sandbox.cgroup.limit(spec)?;
        let console = match socket {
            Some(socket) => Some(Console::attach(socket.receive(self.uid)?, spec.stdin)?),
            None => None,
        };
        let Self { sandbox, signals, container, .. } = self;
        Ok(Created { init, handle, console, signals, sandbox, id: container.id })
    }
}

impl Created {
    /// The process id, on the host, of the container's first process.
    pub fn pid(&self) -> i32 {
        self.init.pid
    }

    /// Lets the first process become the program.
    ///
    /// # Errors
    ///
    /// [`Error::Container`].
    pub fn start(mut self) -> Result<Running> {
        self.handle.start().map_err(library_error("start", &self.id))?;
        let Self { init, console, signals, sandbox, .. } = self;
        Ok(Running { init, console, signals, sandbox })
    }
}

impl Running {
    /// The process id, on the host, of the container's first process.
    pub fn pid(&self) -> i32 {
        self.init.pid
    }

    /// Kills the container, whose end [`finish`](Self::finish) then finds.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn kill(&self) -> Result<()> {
        signals::send(self.init.pid, Signal::SIGKILL)
    }

    /// Passes signals and terminal data on until the container has ended, and takes away all that it held.
    ///
    /// # Errors
    ///
    /// [`Error::System`].
    pub fn finish(mut self) -> Result<Over> {
        let code = loop {
            if let Some(code) = self.init.try_wait()? {
                break code;
            }
            self.turn()?;
        };
        let drained = self.console.take().map_or(Ok(()), |mut console| console.drain());
        let Sandbox { cgroup, rootfs, dir } = self.sandbox;
        let ends = [drained, cgroup.remove(), rootfs.unmount()];
        drop(dir);
        Ok(Over { code, failures: ends.into_iter().filter_map(Result::err).collect() })
    }

    /// Waits for something to happen and does what it asks for.
    fn turn(&mut self) -> Result<()> {
        let ready: Vec<PollFlags> = {
            let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
            fds.extend(self.console.iter().flat_map(Console::interests));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::system("wait for the container")(errno)),
            }
            fds.iter().map(PollFd::revents).collect()
        };
        if let Some(console) = &mut self.console {
            console.copy(&ready[1..])?;
        }
        while let Some(event) = self.signals.read()? {
            match event {
                Event::Child => {}
                Event::Resize => self.console.iter().for_each(Console::resize),
                Event::Forward(signal) => signals::send(self.init.pid, signal)?,
                Event::Kill => signals::send(self.init.pid, Signal::SIGKILL)?,
            }
        }
        Ok(())
    }
}

impl Init {
    /// The exit code, if it has ended.
    fn try_wait(&mut self) -> Result<Option<i32>> {
        let status = waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG))
            .map_err(Error::system("wait for the container"))?;
        let code = match status {
            WaitStatus::Exited(_, code) => Some(code),
            WaitStatus::Signaled(_, signal, _) => Some(SIGNAL_EXIT + signal as i32),
            _ => None,
        };
        self.ended = code.is_some();
        Ok(code)
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if !self.ended {
            let _ = signals::send(self.pid, Signal::SIGKILL);
            let _ = waitpid(Pid::from_raw(self.pid), None);
        }
    }
}

/// Removes what killed runtimes left below `base`, and returns the ids of their containers.
///
/// # Errors
///
/// The first thing that cannot be removed.
pub fn sweep(base: &Path) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for (id, dir) in dirs::sweep(base)? {
        Cgroup::remove_stale(&id)?;
        // At once: nobody can run that container meanwhile.
        drop(dir);
        removed.push(id);
    }
    Ok(removed)
}

/// Makes a missing source an empty directory, as docker does.
fn make_sources(volumes: &[Volume]) -> Result<()> {
    for volume in volumes.iter().filter(|volume| !volume.source.exists()) {
        fs::create_dir_all(&volume.source).map_err(Error::io("make volume", &volume.source))?;
    }
    Ok(())
}

/// Writes what the container is to find as `/etc/hostname`, `hosts` and `resolv.conf`.
///
/// A bind mount needs something to be mounted on. Docker keeps empty files for that in a layer of
/// its own between image and container; here, so that the container's changes are its own only,
/// files are provided for those names that the image has as regular files.
fn files(
    container: &Container,
    network: Network,
    rootfs: &Rootfs,
    dir: &RuntimeDir,
) -> Result<Vec<(PathBuf, PathBuf)>> {
    let host = |path: &str| fs::read(path).unwrap_or_default();
    let hosts = match network {
        Network::Host => host("/etc/hosts"),
        Network::None => LOCALHOST.as_bytes().to_vec(),
    };
    let mut files = Vec::new();
    for (name, content) in [
        ("hostname", format!("{}\n", spec::hostname(container)).into_bytes()),
        ("hosts", hosts),
        ("resolv.conf", host("/etc/resolv.conf")),
    ] {
        let destination = Path::new("/etc").join(name);
        if rootfs.has_file(&destination) {
            let source = dir.write(name, &content)?;
            files.push((source, destination));
        }
    }
    Ok(files)
}

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

fn write_spec(dir: &RuntimeDir, spec: &Spec) -> Result<()> {
    let failed = |source| Error::Json { operation: "write", path: dir.join("config.json"), source };
    let text = serde_json::to_vec(spec).map_err(failed)?;
    dir.write("config.json", &text).map(drop)
}

/// Gives the pipes among the standard streams to the container's user: programs open `/dev/stdout`
/// by name. Files and terminals are somebody's and stay so.
fn own_pipes(uid: u32) {
    if uid == 0 {
        return;
    }
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let is_pipe = fstat(stream.as_fd())
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            let _ = fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>);
        }
    }
}

/// The library's error with all its causes, or the program's failure that it carries.
fn library_error<E: std::error::Error>(
    operation: &'static str,
    id: &str,
) -> impl Fn(E) -> Error + use<E> {
    let id = id.to_owned();
    move |error| {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !reason.contains(&text) {
                reason.push_str(": ");
                reason.push_str(&text);
            }
            cause = error.source();
        }
        match Failure::find(&reason) {
            Some(failure) => failure.into(),
            None => Error::Container { operation, id: id.clone(), reason },
        }
    }
}
