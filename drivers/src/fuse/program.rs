//! Starting `layerfs`, and knowing when it has ended.
//!
//! The contract is the option string of `docs/layerfs.md`. The program comes back when the mount is
//! there, and leaves behind a process in a session of its own, with nothing of this process but its
//! log as standard error. The log is locked (flock(2)) through the file description that the two
//! share, so that whoever can lock it knows that the process has ended, in this daemon or the next.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::ErrorKind;
use crate::spawning;

/// The name of the program.
const LAYERFS: &str = "layerfs";
/// How much of what it says is told.
const MAX_SAID: usize = 2000;
/// How long the end of a process is waited for whose mount is gone: it may be waiting for the disk to have what it
/// copied up last. As long it takes to refuse a layer of which somebody else has a mount.
const PATIENCE: Duration = Duration::from_secs(10);
/// The variables of the environment that it gets.
const ENVIRONMENT: [&str; 3] = ["PATH", "LAYERFS_LOG", "XDG_RUNTIME_DIR"];

/// The program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program(PathBuf);

/// Why a mount could not be made.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) reason: String,
}

impl Program {
    /// The program at `path`; with none, the one beside this program, or else in `PATH`.
    pub(super) fn find(path: Option<&Path>) -> Result<Self, String> {
        if let Some(path) = path {
            let found = path.is_file().then(|| Self(path.to_owned()));
            return found.ok_or_else(|| format!("option program: {} is no file", path.display()));
        }
        let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = beside.into_iter().chain(std::env::split_paths(&path));
        let found = dirs.map(|dir| dir.join(LAYERFS)).find(|file| file.is_file());
        found.map(Self).ok_or_else(|| {
            "layerfs is neither beside this program nor in PATH; install it, or say where it is \
             with the option fuse.program=/PATH"
                .to_owned()
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts on `point`, with the words after `-o` and the directory that paths in them are
    /// relative to. The process that stays keeps `log`.
    pub(super) fn start(
        &self,
        base: &Path,
        words: &[String],
        point: &Path,
        log: File,
    ) -> Result<(), Failure> {
        let io = |step: &str, error: std::io::Error| Failure {
            kind: ErrorKind::of_io(&error),
            reason: format!("{step}: {error}"),
        };
        let mut reader = log.try_clone().map_err(|error| io("dup", error))?;
        // What the last process said is of no use any more.
        log.set_len(0).map_err(|error| io("truncate layerfs.log", error))?;
        let mut command = Command::new(&self.0);
        command.arg("-o").arg(words.join(",")).arg(point).current_dir(base);
        // A signal for the daemon's terminal is not for it, even before it has its own session.
        command.process_group(0);
        command.env_clear();
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let ended = spawning::spawn(&mut command).and_then(|mut child| child.wait());
        let status = ended.map_err(|error| Failure {
            kind: ErrorKind::Unsupported,
            reason: format!("start {}: {error}", self.0.display()),
        })?;
        if status.success() {
            return Ok(());
        }
        let said = reader
            .seek(SeekFrom::Start(0))
            .and_then(|_| {
                let mut said = Vec::new();
                reader.take(MAX_SAID as u64).read_to_end(&mut said)?;
                Ok(said)
            })
            .unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let words: Vec<_> = said.split_whitespace().collect();
        let kind =
            if status.code() == Some(2) { ErrorKind::InvalidArgument } else { ErrorKind::Io };
        let reason = match words.is_empty() {
            true => format!("layerfs: {status}"),
            false => words.join(" "),
        };
        Err(Failure { kind, reason })
    }
}

/// Takes the lock of a log; a process whose mount is gone gets the time to end.
///
/// Returns whether it was taken. It is given back with the file, or with the process that the file
/// is given to.
pub(super) fn lock(log: &File) -> Result<bool, Errno> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        match rustix::fs::flock(log, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() > deadline => return Ok(false),
            // flock(2) knows no timeout.
            Err(Errno::WOULDBLOCK) => std::thread::sleep(pause),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_path_alone_where_one_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other");
        let error = Program::find(Some(&path)).unwrap_err();
        assert!(error.contains("other") && error.contains("program"), "{error}");
        std::fs::write(&path, "").unwrap();
        assert_eq!(Program::find(Some(&path)).unwrap(), Program(path));
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let dir = tempfile::tempdir().unwrap();
        let cases = [
            (
                "echo 'layerfs: no such' >&2; echo option >&2; exit 2",
                "no such option",
                ErrorKind::InvalidArgument,
            ),
            ("exit 3", "exit status: 3", ErrorKind::Io),
        ];
        for (script, words, kind) in cases {
            let path = dir.path().join("program");
            // Written by another process: what other tests start meanwhile would hold our file open for
            // writing, and a program that is being written cannot be started.
            let write = r##"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 755 "$2""##;
            let mut writer = Command::new("sh");
            writer.args(["-c", write, "sh", script]).arg(&path);
            assert!(writer.status().unwrap().success(), "{script}: written");
            let log = tempfile::tempfile().unwrap();
            let failure = Program(path).start(dir.path(), &[], dir.path(), log).unwrap_err();
            assert!(failure.reason.contains(words), "{script}: {}", failure.reason);
            assert_eq!(failure.kind, kind, "{script}");
        }
        let log = tempfile::tempfile().unwrap();
        let failure = Program(dir.path().join("none")).start(dir.path(), &[], dir.path(), log);
        let failure = failure.unwrap_err();
        assert!(failure.reason.contains("start") && failure.reason.contains("none"), "{failure:?}");
    }

    #[test]
    fn a_lock_is_free_when_its_holder_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let held = File::create(&path).unwrap();
        assert!(lock(&held).unwrap(), "nobody holds it");
        let mut holder = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(held)
            .spawn()
            .unwrap();
        let ours = File::open(&path).unwrap();
        let flag = FlockOperation::NonBlockingLockExclusive;
        assert_eq!(rustix::fs::flock(&ours, flag), Err(Errno::WOULDBLOCK), "the process holds it");
        drop(holder.stdin.take());
        assert!(lock(&ours).unwrap(), "the process has ended");
        holder.wait().unwrap();
    }
}
