//! A kernel of its own for what this machine's kernel lacks: user-mode Linux, booted for one program.
//!
//! The guest has the host's file tree, on which only the guest's own temporary directory is written;
//! `/run` and `/mnt` are in memory, `/etc/lvm` is a copy, and `TMPDIR` is an ext4 file system at
//! `/mnt/tmp`. It has one processor, and system calls cost ten times what they do outside.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::daemon::Finished;
use crate::host::provides;
use crate::xstate;

/// What a guest is booted with.
pub const PROGRAMS: [&str; 6] =
    ["linux.uml", "insmod", "lvcreate", "thin_check", "mkfs.ext4", "mkfs.xfs"];

/// The modules that the tests need, in the order in which they need each other.
const MODULES: [&str; 10] = [
    "drivers/md/dm-mod",
    "drivers/md/dm-bufio",
    "drivers/md/dm-bio-prison",
    "drivers/md/persistent-data/dm-persistent-data",
    "drivers/md/dm-thin-pool",
    "drivers/md/dm-flakey",
    "drivers/md/dm-log-writes",
    "drivers/md/dm-snapshot",
    "drivers/block/loop",
    "fs/overlayfs/overlay",
];

/// The disk for temporary files.
const SCRATCH: &str = "scratch";

/// Set in a guest for whatever runs there.
const INSIDE: &str = "LAYERD_TEST_GUEST";

/// Whether this program runs in a guest.
#[must_use]
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Whether a guest can be booted here; see [`provides`].
///
/// # Panics
/// With `CI=true`, when something is missing.
#[must_use]
pub fn available() -> bool {
    provides(&PROGRAMS)
}

/// A machine that is not booted yet.
#[derive(Debug)]
pub struct Guest {
    dir: TempDir,
    disks: Vec<PathBuf>,
    variables: Vec<(String, OsString)>,
    patience: Duration,
}

impl Guest {
    /// A machine without disks.
    ///
    /// # Panics
    /// When there is no room for its files.
    #[must_use]
    pub fn new() -> Self {
        let dir = TempDir::with_prefix("layerd-guest-").expect("a temporary directory");
        let patience = Duration::from_secs(240);
        let scratch = fs::File::create(dir.path().join(SCRATCH)).expect("a file for the disk");
        scratch.set_len(1 << 30).expect("a sparse file");
        Self { dir, disks: Vec::new(), variables: Vec::new(), patience }
    }

    /// Adds an empty disk: the first is `/dev/ubdb`, the next `/dev/ubdc`. What is written to it is
    /// there at the next boot.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn disk(mut self, mib: u64) -> Self {
        let path = self.dir.path().join(format!("disk{}", self.disks.len()));
        let file = fs::File::create(&path).expect("a file for the disk");
        file.set_len(mib << 20).expect("a sparse file");
        self.disks.push(path);
        self
    }

    /// Sets an environment variable for the program.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// How long the program may take before the machine is switched off, which is a failure.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A directory that host and guest both see.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the ignored tests of this program whose names hold `filter`, which must be there and pass;
    /// what they have printed.
    ///
    /// # Panics
    /// When one of them fails.
    #[track_caller]
    pub fn run_ignored(&self, filter: &str) -> String {
        let me = std::env::current_exe().expect("the path of this program");
        let words = ["--ignored", "--test-threads", "1", "--nocapture", filter];
        let finished = self.run(&me, words);
        // The kernel's errors are on the console.
        let console = || {
            String::from_utf8_lossy(&fs::read(self.dir().join("console")).unwrap_or_default())
                .into_owned()
        };
        assert_eq!(
            finished.code,
            Some(0),
            "{}\n{}\n{}",
            finished.stdout,
            finished.stderr,
            console()
        );
        let passed = finished.stdout.lines().find(|line| line.contains("test result: ok."));
        let some = passed.is_some_and(|line| !line.contains(" 0 passed"));
        assert!(some, "{filter}: {}\n{}", finished.stdout, finished.stderr);
        finished.stdout
    }

    /// Boots, runs a program, and switches off. The exit code is the program's; none when the machine
    /// ended before it.
    ///
    /// # Panics
    /// When the machine cannot be started.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Finished {
        let words = arguments.into_iter().map(|word| word.as_ref().to_owned());
        let words: Vec<OsString> = std::iter::once(program.into()).chain(words).collect();
        let init = self.dir().join("init");
        fs::write(&init, self.script(&words)).expect("the guest's init");
        for name in ["out", "err", "code"] {
            let _ = fs::remove_file(self.dir().join(name));
        }
        let mut machine = Machine::boot(self, &init);
        let ended = machine.wait(self.patience);
        let read = |name| {
            let bytes = fs::read(self.dir().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let mut stderr = read("err");
        if !ended {
            let _ = write!(stderr, "\nswitched off after {:?}", self.patience);
        }
        if read("code").is_empty() {
            let _ = write!(stderr, "\nthe console: {}", read("console"));
        }
        Finished { code: read("code").trim().parse().ok(), stdout: read("out"), stderr }
    }

    /// What the guest runs in the place of init.
    fn script(&self, words: &[OsString]) -> String {
        let dir = quoted(self.dir().as_os_str());
        let mut text = String::from("#!/bin/sh\n");
        for (fstype, at) in
            [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run"), ("tmpfs", "/mnt")]
        {
            let _ = writeln!(text, "mount -t {fstype} {fstype} {at}");
        }
        let _ = writeln!(text, "mkdir -p /mnt/tmp /run/lock /run/lvm-etc");
        let _ = writeln!(text, "mkfs.ext4 -q -F /dev/ubda && mount /dev/ubda /mnt/tmp");
        let _ =
            writeln!(text, "cp -a /etc/lvm/. /run/lvm-etc && mount --bind /run/lvm-etc /etc/lvm");
        let _ = writeln!(text, "modules=/usr/lib/uml/modules/$(uname -r)/kernel");
        for module in MODULES {
            let _ = writeln!(text, "insmod $modules/{module}.ko");
        }
        let _ = writeln!(text, "export TMPDIR=/mnt/tmp DM_DISABLE_UDEV=1 HOME=/root CI=true");
        let _ = writeln!(text, "export {INSIDE}=1");
        let _ = writeln!(
            text,
            "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        );
        for (name, value) in &self.variables {
            let _ = writeln!(text, "export {name}={}", quoted(value));
        }
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        let _ = writeln!(text, "cd {dir}");
        let _ = writeln!(text, "{} >out 2>err </dev/null", words.join(" "));
        let _ = writeln!(text, "echo $? >code; sync");
        let _ = writeln!(text, "echo o >/proc/sysrq-trigger; poweroff -f; sleep 5");
        text
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

/// A word as the shell takes it.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))
}

/// A booted machine; drop switches it off.
struct Machine(Child);

impl Machine {
    fn boot(guest: &Guest, init: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(init, fs::Permissions::from_mode(0o755)).expect("an executable");
        let dir = guest.dir();
        let console = fs::File::create(dir.join("console")).expect("a file for the console");
        let mut command = Command::new("linux.uml");
        command
            .args(["mem=1024M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "panic=-1"])
            .arg(format!("init={}", init.display()))
            .arg(format!("uml_dir={}/", dir.display()))
            .args(["umid=guest", "con=null", "con0=null,fd:1", "con1=fd:0,fd:1"]);
        command.arg(format!("ubda={}", dir.join(SCRATCH).display()));
        for (disk, letter) in guest.disks.iter().zip('b'..='h') {
            command.arg(format!("ubd{letter}={}", disk.display()));
        }
        if let Some(library) = xstate::library(dir) {
            command.env("LD_PRELOAD", library);
        }
        let child = command
            .env("TMPDIR", dir)
            .stdin(Stdio::null())
            .stderr(console.try_clone().expect("a descriptor"))
            .stdout(console)
            .process_group(0)
            .spawn();
        Self(child.expect("linux.uml runs"))
    }

    /// Whether it ended by itself.
    fn wait(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.0.try_wait().expect("a child").is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its processes are the guest's; they are a group of their own.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_in_a_guest_and_disks_stay() {
        if !available() {
            return;
        }
        let guest = Guest::new().disk(16).variable("WORD", "it's here");
        let script = "dmsetup targets | grep -q thin-pool && echo \"$WORD\" >&2 && \
                      printf persistent >/dev/ubdb && exit 7";
        let first = guest.run(Path::new("/bin/sh"), ["-c", script]);
        assert_eq!((first.code, first.stderr.as_str()), (Some(7), "it's here\n"), "{first:?}");
        let second = guest.run(Path::new("/usr/bin/head"), ["-c", "10", "/dev/ubdb"]);
        assert_eq!((second.code, second.stdout.as_str()), (Some(0), "persistent"), "{second:?}");
    }

    #[test]
    fn a_guest_that_hangs_is_switched_off() {
        if !available() {
            return;
        }
        let guest = Guest::new().patience(Duration::from_secs(8));
        let finished = guest.run(Path::new("/bin/sleep"), ["1000"]);
        assert_eq!(finished.code, None, "{finished:?}");
        assert!(finished.stderr.contains("switched off"), "{finished:?}");
    }
}
