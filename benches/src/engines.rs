//! layerd and its peers as processes of this benchmark, each on a root of its own below one directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Failure, program};

/// A daemon that ends with its owner.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// The socket that it listens on.
    pub socket: PathBuf,
    /// What it mounts and leaves mounted at its end.
    leaves: Option<PathBuf>,
}

impl Daemon {
    fn start(mut command: Command, socket: PathBuf, log: &Path) -> Result<Self, Failure> {
        let log = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let mut daemon = Self { child, socket, leaves: None };
        let patience = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(&daemon.socket).is_err() {
            if let Some(status) = daemon.child.try_wait()? {
                return Err(format!("{command:?}: {status}").into());
            }
            if Instant::now() > patience {
                return Err(format!("{command:?}: no socket after 30 s").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// The process, for reading its memory.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The greatest resident set so far, in KiB (`VmHWM` of proc(5)).
    ///
    /// # Errors
    /// When the process is gone.
    pub fn peak_memory(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.ok_or("no VmHWM")?.parse()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        if let Some(mount) = &self.leaves {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Starts layerd with a driver below `dir`.
///
/// # Errors
/// When it does not start.
pub fn layerd(dir: &Path, driver: &str) -> Result<Daemon, Failure> {
    let socket = dir.join("layerd.sock");
    let mut command = Command::new(program("layerd"));
    command.arg("serve").arg("--driver").arg(driver).arg("--root").arg(dir.join("layerd"));
    command.arg("--socket").arg(&socket);
    Daemon::start(command, socket, &dir.join("layerd.log"))
}

/// A layerctl that speaks to `daemon`.
pub fn layerctl(daemon: &Daemon) -> Command {
    let mut command = Command::new(program("layerctl"));
    command.arg("--socket").arg(&daemon.socket);
    command
}

/// Starts dockerd on overlay2 below `dir`, without networks.
///
/// # Errors
/// When it does not start.
pub fn dockerd(dir: &Path) -> Result<Daemon, Failure> {
    let socket = dir.join("docker.sock");
    let mut command = Command::new("dockerd");
    command.args(["--storage-driver", "overlay2", "--iptables=false", "--bridge=none"]);
    command
        .arg("--data-root")
        .arg(dir.join("docker"))
        .arg("--exec-root")
        .arg(dir.join("docker-run"));
    command.arg("-p").arg(dir.join("docker.pid")).arg("-H").arg(url(&socket));
    let mut daemon = Daemon::start(command, socket, &dir.join("dockerd.log"))?;
    // dockerd binds its data-root to itself.
    daemon.leaves = Some(dir.join("docker"));
    Ok(daemon)
}

/// A docker client that speaks to `daemon`.
pub fn docker(daemon: &Daemon) -> Command {
    let mut command = Command::new("docker");
    command.arg("-H").arg(url(&daemon.socket));
    command
}

/// Starts containerd below `dir`.
///
/// # Errors
/// When it does not start.
pub fn containerd(dir: &Path) -> Result<Daemon, Failure> {
    let socket = dir.join("containerd.sock");
    let config = dir.join("containerd.toml");
    let (root, state) = (dir.join("containerd"), dir.join("containerd-run"));
    fs::write(
        &config,
        format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\n[grpc]\naddress = {socket:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\ndisable_tcp_service = true\n"
        ),
    )?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(config);
    Daemon::start(command, socket, &dir.join("containerd.log"))
}

/// A ctr client that speaks to `daemon`.
pub fn ctr(daemon: &Daemon) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(&daemon.socket);
    command
}

fn url(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}
