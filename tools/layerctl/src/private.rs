//! A daemon for one command, for a machine on which none runs.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// A running `layerd serve --private`, ended by drop.
///
/// The daemon ends when its standard input does, so that it does not outlive this process however
/// that ends. It has a process group of its own: a control-C is for the command, or for the
/// container that it runs.
#[derive(Debug)]
pub(crate) struct PrivateDaemon {
    child: Child,
    stdin: Option<ChildStdin>,
    dir: TempDir,
}

impl PrivateDaemon {
    /// Starts the daemon on this user's store and waits until it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let dir = runtime_dir()?;
        let mut command = Command::new(program("layerd"));
        command
            .args(["serve", "--private", "--root"])
            .arg(root()?)
            .arg("--socket")
            .arg(dir.path().join("layerd.sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        let mut child =
            command.spawn().with_context(|| format!("run {}", command.get_program().display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let daemon = Self { child, stdin, dir };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line).context("read from it")?;
        }
        if line.trim_end() != "ready" {
            // It has said why on standard error.
            bail!("it ended before it was ready");
        }
        Ok(daemon)
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("layerd.sock")
    }
}

impl Drop for PrivateDaemon {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Nothing is lost by not knowing how it ended: each request has had its answer.
        drop(self.child.wait());
    }
}

/// The program of our own kind beside this one, else the one in PATH.
pub(crate) fn program(name: &str) -> OsString {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name(name));
    match beside {
        Some(path) if path.is_file() => path.into_os_string(),
        _ => name.into(),
    }
}

/// What LAYERD_ROOT says; else the system's store for root, the user's own for others.
fn root() -> anyhow::Result<PathBuf> {
    if let Some(root) = absolute_var("LAYERD_ROOT") {
        return Ok(root);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/layerd"));
    }
    if let Some(data) = absolute_var("XDG_DATA_HOME") {
        return Ok(data.join("layerd"));
    }
    let home = absolute_var("HOME").context("neither XDG_DATA_HOME nor HOME is set")?;
    Ok(home.join(".local/share/layerd"))
}

/// A directory for the socket that nobody else can enter.
fn runtime_dir() -> anyhow::Result<TempDir> {
    let parent = match absolute_var("XDG_RUNTIME_DIR") {
        Some(dir) => dir,
        None if rustix::process::geteuid().is_root() => PathBuf::from("/run"),
        None => std::env::temp_dir(),
    };
    in_dir(&parent).or_else(|_| in_dir(&std::env::temp_dir()))
}

fn in_dir(parent: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("layerctl.")
        .tempdir_in(parent)
        .with_context(|| format!("make a directory in {}", parent.display()))
}

/// The XDG base directory specification has relative paths ignored.
fn absolute_var(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}
