//! `layerfs -o lowerdir=A:B,upperdir=U,workdir=W MOUNTPOINT`.
//!
//! Exit codes: 0 mounted (or, with `-f`, unmounted again), 1 failed, 2 bad usage.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use layerfs::ahead::lister;
use layerfs::error::Error;
use layerfs::fs::Fs;
use layerfs::options::{KNOWN, Options};
use layerfs::{mount, transport};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::FileType;

/// Tells the process that stays that it is not the one that was typed.
const CHILD: &str = "LAYERFS_SERVES";

/// What was typed.
struct Typed {
    options: Options,
    point: PathBuf,
    foreground: bool,
}

fn usage() -> String {
    let mut text = String::from(
        "usage: layerfs [-f] [-d] -o lowerdir=A:B[,upperdir=U,workdir=W][,OPTION...] [SOURCE] \
         MOUNTPOINT\n\noptions after -o:\n",
    );
    for (name, what) in KNOWN {
        text.push_str(&format!("  {name:<36} {what}\n"));
    }
    text
}

/// Reads the arguments; none if only help or the version was wanted, which is then printed.
fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Typed>, Error> {
    let mut options = Options::default();
    let mut foreground = false;
    let mut places: Vec<OsString> = Vec::new();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        match text.as_str() {
            "-f" => foreground = true,
            "-s" => options.threads = Some(1),
            "-d" | "--debug" => {
                options.debug = true;
                foreground = true;
            }
            "-n" | "-v" => {}
            "-t" => drop(args.next()),
            "-o" => {
                let value = args.next().ok_or_else(|| Error::option("-o needs a value"))?;
                options.add(&value)?;
            }
            "-h" | "--help" => {
                print(&usage());
                return Ok(None);
            }
            "-V" | "--version" => {
                print(concat!("layerfs ", env!("CARGO_PKG_VERSION"), "\n"));
                return Ok(None);
            }
            text if text.starts_with("-o") => {
                use std::os::unix::ffi::OsStrExt as _;
                options.add(std::ffi::OsStr::from_bytes(&arg.as_encoded_bytes()[2..]))?;
            }
            text if text.starts_with('-') && text.len() > 1 => {
                return Err(Error::unknown_option(text));
            }
            _ => places.push(arg),
        }
    }
    let point = places.pop().ok_or_else(|| Error::option("a mount point is missing"))?;
    match (places.pop(), places.is_empty()) {
        (Some(source), true) => {
            options.source.get_or_insert(source.to_string_lossy().into_owned());
        }
        (None, _) => {}
        _ => return Err(Error::option("more than a source and a mount point")),
    }
    options.check()?;
    Ok(Some(Typed { options, point: point.into(), foreground }))
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "layerfs: {error:#}");
}

fn main() -> ExitCode {
    if std::env::var_os(lister::MARK).is_some() {
        return lister::run();
    }
    let typed = match parse(std::env::args_os().skip(1)) {
        Ok(Some(typed)) => typed,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.into());
            return ExitCode::from(2);
        }
    };
    if typed.options.remount {
        return match mount::remount(&typed.options, &typed.point) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error.into());
                ExitCode::FAILURE
            }
        };
    }
    let serves = std::env::var_os(CHILD).is_some();
    let done = if typed.foreground || serves { run(typed, serves) } else { detach() };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again to serve the mount, and ends when it is mounted.
fn detach() -> Result<()> {
    // The process that stays keeps nothing of whoever asked for the mount.
    cow_sys::descriptors::close_on_exec_from(3).context("close inherited files")?;
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the serving process")?;
    let mut ready = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut ready).context("wait for the mount")?;
    }
    if ready == b"mounted" {
        return Ok(());
    }
    // It has said why.
    let status = child.wait().context("wait for the serving process")?;
    std::process::exit(status.code().unwrap_or(1).max(1));
}

/// Leaves the terminal, and lets the starter know that the mount is there.
fn ready() -> Result<()> {
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/").context("change to /")?;
    std::io::stdout().write_all(b"mounted")?;
    std::io::stdout().flush()?;
    let nowhere = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    // A log that was set up by hand stays; a pipe would keep its reader waiting.
    let is_file = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode).is_file();
    if !rustix::fs::fstat(std::io::stderr()).is_ok_and(is_file) {
        rustix::stdio::dup2_stderr(&nowhere)?;
    }
    Ok(())
}

/// Standard error, as the log of a mount that nobody looks at: it ends before it fills the disk.
#[derive(Default)]
struct Bounded(AtomicUsize);

impl Bounded {
    const MOST: usize = 1 << 20;
}

impl std::io::Write for &Bounded {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let before = self.0.fetch_add(line.len(), Ordering::Relaxed);
        match before {
            0..Bounded::MOST if before + line.len() < Bounded::MOST => {
                std::io::stderr().write_all(line)?;
            }
            0..Bounded::MOST => std::io::stderr().write_all(b"the log is full\n")?,
            _ => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log(debug: bool, serves: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LAYERFS_LOG")
        .unwrap_or_else(|_| if debug { "debug" } else { "warn" }.into());
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    let _ = match serves {
        true => log.with_writer(Arc::new(Bounded::default())).try_init(),
        false => log.with_writer(std::io::stderr).try_init(),
    };
}

fn run(typed: Typed, serves: bool) -> Result<()> {
    log(typed.options.debug, serves);
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        signals.add(signal);
    }
    // Before any thread is there, so that all inherit it.
    signals.thread_block().context("block signals")?;
    let fs = Arc::new(Fs::new(typed.options.clone())?);
    let mounted = mount::mount(&typed.options, &typed.point)?;
    // Whoever unmounted may want to unmount the layers next: they are let go with the process, at
    // once, whatever number of nodes there is.
    let gone = || {
        cow_sys::schedule::none_gives_way();
        std::process::exit(0)
    };
    let started = transport::handshake(&fs, &mounted.device, &typed.options)
        .and_then(|session| session.start(&mounted.point, gone));
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            let _ = mount::unmount(&mounted.point);
            return Err(error.into());
        }
    };
    let point = mounted.point;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || attend(&signals, &point, &fs, serves))
        .context("start the signal thread")?;
    if serves {
        ready()?;
    }
    let ended = running.wait();
    cow_sys::schedule::none_gives_way();
    Ok(ended?)
}

fn attend(signals: &SigSet, point: &std::path::Path, fs: &Fs, quiet: bool) {
    while let Ok(signal) = signals.wait() {
        if signal == Signal::SIGUSR1 {
            report(fs, quiet);
        } else {
            fs.sync();
            if let Err(error) = mount::unmount(point) {
                complain(&error.into());
            }
        }
    }
}

/// Writes the counters to standard error, or, with no terminal, to a file in the run directory.
fn report(fs: &Fs, quiet: bool) {
    let (nodes, fds) = fs.sizes();
    let text = format!(
        "{}nodes            {nodes}\ndirectory fds    {fds}\nunsettled copies {}\n",
        fs.stats,
        fs.unsettled()
    );
    if !quiet {
        let _ = std::io::stderr().write_all(text.as_bytes());
        return;
    }
    let dir = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_else(|| "/run".into());
    let path = PathBuf::from(dir).join(format!("layerfs-{}.stats", std::process::id()));
    let _ = std::fs::write(path, text);
}
