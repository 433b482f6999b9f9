//! One round trip: the stat of a name that is not there, asked of a file system on `fuser`'s session that
//! looks into an empty directory and answers, and of layerfs over both of its transports, which does the
//! same with an empty layer.
//!
//! fuser's threads are this process's own; layerfs is a session of its own, to which a machine that is
//! busy with something else gives less of its time. Only an idle machine compares the two.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use benches::rounds::{self, Contestant};
use benches::unions::{Maker, RING, Stand};
use benches::{Failure, cache};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, INodeNo,
    ReplyAttr, ReplyEntry, Request,
};
use rustix::fs::AtFlags;
use rustix::io::Errno as Code;

#[path = "../../layerfs/tests/union/uring.rs"]
#[allow(dead_code, reason = "the tests ask for more of it")]
mod uring;

const ROUNDS: usize = 11;
const TRIPS: u64 = 5_000;

/// A file system with nothing but its root, and a directory in which it looks names up.
struct Null(OwnedFd);

impl Filesystem for Null {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        reply.error(if found.is_ok() { Errno::EIO } else { Errno::ENOENT });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let now = std::time::SystemTime::UNIX_EPOCH;
        let attr = FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind: FileType::Directory,
            perm: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        };
        reply.attr(&Duration::from_secs(3600), &attr);
    }
}

fn null(point: &Path, lower: &Path, threads: usize) -> Result<BackgroundSession, Failure> {
    std::fs::create_dir_all(point)?;
    let mut config = Config::default();
    config.n_threads = Some(threads);
    config.clone_fd = threads > 1;
    let lower = std::fs::File::open(lower)?.into();
    Ok(fuser::spawn_mount(Null(lower), point, &config)?)
}

/// Asks for names that nobody has asked for before.
fn trips(point: &Path, next: &mut u64) -> Result<(), Failure> {
    for _ in 0..TRIPS {
        *next += 1;
        match rustix::fs::lstat(point.join(format!("missing-{next}"))) {
            Err(Code::NOENT) => {}
            answer => return Err(format!("{answer:?}").into()),
        }
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    std::fs::create_dir_all(cache())?;
    let dir = tempfile::tempdir_in(cache())?;
    let lower = dir.path().join("lower");
    std::fs::create_dir(&lower)?;
    let threads = std::thread::available_parallelism().map_or(2, usize::from) + 2;
    let one = null(&dir.path().join("fuser-1"), &lower, 1)?;
    let many = null(&dir.path().join("fuser-n"), &lower, threads)?;
    let mut points = vec![
        ("fuser, 1 thread", dir.path().join("fuser-1")),
        ("fuser, cores + 2 threads, cloned", dir.path().join("fuser-n")),
    ];
    let mut stands = Vec::new();
    let mut transports = vec![("layerfs, /dev/fuse", "transport=device")];
    let ring = uring::unavailable().is_none().then(uring::Enabled::hold).transpose()?;
    if ring.is_some() {
        transports.push(("layerfs, io_uring", RING));
    }
    for (name, option) in transports {
        let maker = Maker::Layerfs(option.to_owned());
        let mut stand =
            Stand::new(maker, std::slice::from_ref(&lower), dir.path().join(&option[10..]))?;
        stand.renew()?;
        points.push((name, stand.root()));
        stands.push(stand);
    }
    let mut contestants: Vec<_> = points
        .iter()
        .map(|(name, point)| {
            let mut next = 0;
            Contestant {
                name,
                work: Box::new(move || trips(point, &mut next)),
                reset: Box::new(|| Ok(())),
            }
        })
        .collect();
    let times = rounds::race(ROUNDS, &mut contestants)?;
    drop(contestants);
    rounds::table(&format!("{TRIPS} stats of a name that is not there"), &times);
    drop((one, many, stands, ring));
    Ok(())
}
