//! The fuse driver: layers merged by `layerfs`, a process of its own for each mount. See
//! [`overlay`](crate::overlay) for what is kept where.
//!
//! ```text
//! layers/<id>/layerfs.log    what the layerfs of the layer's last mount had to say; held locked by
//!                            that process, however it was started, until it has ended
//! ```
//!
//! The process outlives the daemon: the next one finds its mounts in the kernel's table. It ends
//! with the last use of its mount. What is left of one that died is a mount on which everything
//! fails with ENOTCONN; it is taken off when the layer is unmounted, and replaced when the layer is
//! mounted again. The upper directory is as a crash leaves it, which the next mount accepts.
//!
//! With the option `enable_uring` the kernel is told to offer its ring to FUSE mounts when the driver is
//! opened; without, its setting, which is the whole machine's, is left alone.

mod options;
mod program;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use cow::root::Root;
use cow::unsettled::{self, Found, RECORD, Record};
use cow::whiteout::XattrSpace;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::call::{Call, HomeCall};
use crate::error::{ErrorKind, Result};
use crate::home::mounts::MERGED;
use crate::home::{self, Home, fs};
use crate::id::LayerId;
use crate::overlay::{DIFF, Overlay, Stack, Trial, Union, in_user_namespace};
use crate::{backend, backing};
use options::Options;
use program::Program;

/// The work directory that layerfs makes in the layer's own.
const WORK: &str = "work/work";

/// How long another who mends a layer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The driver's name.
pub(crate) const NAME: &str = "fuse";

/// The log of a layer's layerfs, which is also the lock of its process.
const LOG: &str = "layerfs.log";

/// Opens a home, and sees by a trial mount that layerfs works in it.
pub(crate) fn open<S: AsRef<str>>(path: &Path, list: &[S]) -> Result<Overlay<LayerFs>> {
    let call = HomeCall { driver: NAME, op: "open" };
    let options = Options::parse(call, list)?;
    let unsupported = |reason: String| call.refused(ErrorKind::Unsupported, reason);
    let program = Program::find(options.program.as_deref()).map_err(unsupported)?;
    let home = Home::open(NAME, path, &[])?;
    backend::refuse_size(call, &home, options.size)?;
    if !backing::has_file_types(home.root()).map_err(|error| call.failed(error))? {
        let fs = backing::name(home.root());
        return Err(unsupported(format!("{fs} gives no file types in directories (d_type)")));
    }
    let marks = if in_user_namespace() { XattrSpace::User } else { XattrSpace::Trusted };
    if options.enable_uring {
        enable_uring().map_err(|error| unsupported(format!("option enable_uring: {error}")))?;
    }
    let union = LayerFs { program, options, marks };
    let trial = Trial::new(&home).map_err(|error| call.failed(error))?;
    trial.run(&union, union.options.renames).map_err(unsupported)?;
    drop(trial);
    home.forget_dead_mounts(|id| union.is_dead(&home, id))?;
    Ok(Overlay { home, union })
}

/// Has the kernel offer its ring to the mounts made from now on; nobody switches it off again.
fn enable_uring() -> std::io::Result<()> {
    // Opening the device loads the module, which has the setting; what lacks, the setting tells.
    drop(File::open("/dev/fuse"));
    cow_sys::fuse::enable_uring()
}

/// Sees whether the driver works below `dir`, without leaving anything there.
pub(crate) fn probe(dir: &Path) -> Result<()> {
    let call = HomeCall { driver: NAME, op: "probe" };
    home::try_in(call, dir, |home| open::<&str>(home, &[]).map(drop))
}

/// The program, as it is started in one home.
#[derive(Debug)]
pub(crate) struct LayerFs {
    program: Program,
    options: Options,
    marks: XattrSpace,
}

impl LayerFs {
    /// Makes copies whole that layerfs had not seen on the disk when it or the machine crashed.
    fn complete(&self, call: Call<'_>, home: &Home) -> Result<()> {
        let work = match home.open_in_layer(call.layer, WORK) {
            Ok(work) => work,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(call.failed(error)),
        };
        let deadline = Instant::now() + PATIENCE;
        let record = loop {
            match Record::find(&work).map_err(|errno| call.sys("open", RECORD, errno))? {
                Found::None => return Ok(()),
                Found::Left(record) => break record,
                // Who serves the mount made good what was to be when it began.
                Found::Held if is_layerfs(home, &home.layer_path(call.layer, MERGED)) => {
                    return Ok(());
                }
                Found::Held if Instant::now() > deadline => {
                    return Err(call.refused(ErrorKind::FailedPrecondition, STILL_USED));
                }
                // Another call is about it, or a process that is about to end.
                Found::Held => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let complete = || {
            let diff = home.open_in_layer(call.layer, DIFF)?;
            // All layers are on the home's file system.
            let root = Root::from_fd(diff, home.layer_path(call.layer, DIFF));
            unsettled::mend(&root, &record, &[home.root()], &XattrSpace::Trusted.attr("origin"))
        };
        let count = complete().map_err(|error| call.failed(error))?;
        tracing::info!(layer = %call.layer, count, "copies that were not seen on the disk are whole");
        record.forget(&work).map_err(|errno| call.sys("unlink", RECORD, errno))
    }

    /// The words after `-o`.
    fn words(&self, stack: &Stack) -> Vec<String> {
        let mut words = self.options.words(stack.upper.is_some());
        if self.marks == XattrSpace::User {
            words.push("userxattr".to_owned());
        }
        // The ids of layers and the names of their directories need no escapes.
        let text = |path: &Path| path.display().to_string();
        let lowers: Vec<_> = stack.lowers.iter().map(|path| text(path)).collect();
        words.push(format!("lowerdir={}", lowers.join(":")));
        if let Some((upper, work)) = &stack.upper {
            words.push(format!("upperdir={},workdir={}", text(upper), text(work)));
        }
        words
    }
}

impl Union for LayerFs {
    const CLIENT_MOUNTS: bool = false;

    fn marks(&self) -> XattrSpace {
        self.marks
    }

    fn volatile(&self) -> bool {
        self.options.volatile
    }

    fn attach(&self, call: Call<'_>, home: &Home, stack: &Stack, _: &OwnedFd) -> Result<()> {
        let log = open_log(home, call.layer, OFlags::CREATE).map_err(|error| call.failed(error))?;
        if !program::lock(&log).map_err(|errno| call.sys("flock", LOG, errno))? {
            return Err(call.refused(ErrorKind::InUse, STILL_USED));
        }
        let point = home.layer_path(call.layer, MERGED);
        self.program
            .start(&stack.base, &self.words(stack), &point, log)
            .map_err(|failure| call.refused(failure.kind, format!("mount: {}", failure.reason)))
    }

    fn private(&self, home: &Home, stack: &Stack) -> cow::Result<OwnedFd> {
        let scratch = home.scratch("mount")?;
        let target = fs::make_dir(scratch.dir(), MERGED, 0o700)?;
        drop(target);
        let log = log_in(scratch.dir(), Path::new(LOG), OFlags::CREATE)?;
        let path = scratch.path().join(MERGED);
        self.program
            .start(&stack.base, &self.words(stack), &path, log)
            .map_err(|failure| cow::Error::refused("mount", "", failure.reason, failure.kind))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, &path, flags, Mode::empty());
        cow_sys::mount::unmount(&path, true).map_err(|error| {
            let kind = ErrorKind::of_io(error.io());
            cow::Error::refused("unmount", "", error.to_string(), kind)
        })?;
        opened.map_err(|errno| cow::Error::sys("open", &path, errno))
    }

    /// Bind mounts of the tree, and copies of the mount in namespaces that were made meanwhile, live
    /// on with their process. When they are read-only, it does not matter for how long: with the log
    /// out of sight, nobody waits for its lock.
    fn freeze(&self, call: Call<'_>, home: &Home) {
        let path = home.layer_path(call.layer, MERGED);
        // It concerns a whole file system, and must never be another one.
        if !is_layerfs(home, &path) {
            return;
        }
        match rustix::mount::mount_remount(&path, MountFlags::RDONLY, "") {
            Ok(()) => {
                if let Ok(dir) = home.open_in_layer(call.layer, ".") {
                    self.forget(&dir);
                }
            }
            // A file is open for writing.
            Err(errno) => tracing::debug!(layer = %call.layer, %errno, "it is not frozen"),
        }
    }

    fn quiesce(&self, call: Call<'_>, home: &Home) -> Result<()> {
        let log = match open_log(home, call.layer, OFlags::empty()) {
            Ok(log) => log,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.complete(call, home),
            Err(error) => return Err(call.failed(error)),
        };
        match program::lock(&log) {
            Ok(true) => self.complete(call, home),
            Ok(false) => Err(call.refused(ErrorKind::FailedPrecondition, STILL_USED)),
            Err(errno) => Err(call.sys("flock", LOG, errno)),
        }
    }

    fn mend(&self, call: Call<'_>, home: &Home) -> Result<()> {
        self.complete(call, home)
    }

    /// The answer to statfs(2) is never the kernel's own, as attributes may be. While the connection is
    /// being torn down it is ECONNABORTED, or ECANCELED from a ring.
    fn is_dead(&self, home: &Home, id: &LayerId) -> bool {
        rustix::fs::statfs(home.layer_path(id, MERGED)).is_err_and(|errno| {
            matches!(errno, Errno::NOTCONN | Errno::CONNABORTED | Errno::CANCELED)
        })
    }

    fn forget(&self, dir: &OwnedFd) {
        let _ = rustix::fs::unlinkat(dir, LOG, rustix::fs::AtFlags::empty());
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        vec![("Mount Program", self.program.path().display().to_string())]
    }
}

/// Whether a file system of layerfs is mounted here.
fn is_layerfs(home: &Home, path: &Path) -> bool {
    let device = |stat: rustix::fs::Stat| stat.st_dev;
    let home = rustix::fs::fstat(home.root()).map(device);
    let here = rustix::fs::lstat(path).map(device);
    let of_fuse = rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == FUSE_SUPER_MAGIC);
    of_fuse && here.is_ok_and(|here| home.is_ok_and(|home| home != here))
}

/// The type of FUSE file systems, statfs(2).
const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;

/// What is told of a layer whose last mount does not end.
const STILL_USED: &str =
    "its last mount is still in use: a process or another mount of the same tree holds it";

fn open_log(home: &Home, id: &LayerId, flags: OFlags) -> cow::Result<File> {
    log_in(home.open_in_layer(id, ".")?, Path::new(LOG), flags)
}

/// Opens a log, to which each process appends.
fn log_in(dir: impl std::os::fd::AsFd, name: &Path, flags: OFlags) -> cow::Result<File> {
    let flags = flags | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mode = if flags.contains(OFlags::CREATE) { 0o600 } else { 0 };
    rustix::fs::openat2(dir, name, flags, Mode::from_raw_mode(mode), resolve)
        .map(File::from)
        .map_err(|errno| cow::Error::sys("open", name, errno))
}
