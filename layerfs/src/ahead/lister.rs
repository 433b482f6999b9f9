//! The process that lists directories of the mount, so that the kernel learns their names.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cpus::Elsewhere;
use cow_sys::handle::{self, FileHandle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

/// The variable that tells this program to be that process.
pub const MARK: &str = "LAYERFS_LISTS";

/// How long it waits for another directory before it ends.
const IDLE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// What a name takes in the reply to a `READDIRPLUS`, of which the kernel asks for as much as we do.
const NAME: usize = 176;
/// The most that is asked for at once.
const LARGEST: usize = 64 << 10;
/// In how many directories the place is kept where the listing goes on.
const PLACES: usize = 64;
/// `FILEID_INO64_GEN`: the handle of a FUSE inode, the two halves of its node number and its generation.
const HANDLE: i32 = 0x81;

/// Lists what it is told on standard input, a mount point and then triples of node, number of names and the CPU
/// to keep off, and
/// says so with a byte on standard output, until the input ends or nothing came for some seconds.
///
/// Exit codes: 0, or 1 if it cannot do its work at all.
pub fn run() -> ExitCode {
    let _ = rustix::thread::set_name(c"layerfs-ahead");
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Fills a buffer from standard input; whether there was anything more.
fn take(buffer: &mut [u8]) -> Result<bool, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer[filled..]) {
            Ok(0) => return Ok(false),
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn serve() -> Result<(), Errno> {
    let mut length = [0; 8];
    take(&mut length)?;
    let mut point = vec![0; usize::from_ne_bytes(length).min(4096)];
    take(&mut point)?;
    let point = PathBuf::from(std::ffi::OsString::from_vec(point));
    // Where the listing of the directories of late goes on, if it does.
    let mut places: Vec<(u64, Option<u64>)> = Vec::with_capacity(PLACES);
    let mut buffer = vec![MaybeUninit::uninit(); LARGEST];
    // Where the server may run, for it began where a thread of that one was.
    let server = rustix::process::getppid().unwrap_or_else(rustix::process::getpid);
    let mut elsewhere = Elsewhere::of(server);
    loop {
        let input = rustix::stdio::stdin();
        if poll(&mut [PollFd::from_borrowed_fd(input, PollFlags::IN)], Some(&IDLE))? == 0 {
            return Ok(());
        }
        let mut wish = [[0; 8]; 3];
        if !take(wish.as_flattened_mut())? {
            return Ok(());
        }
        let [node, names, cpu] = wish.map(u64::from_ne_bytes);
        elsewhere.than(usize::try_from(cpu).ok());
        let at = places.iter().position(|(known, _)| *known == node);
        let from = at.map_or(Some(0), |at| places.remove(at).1);
        let listed = from.map_or(Ok(None), |from| list(&point, node, from, names, &mut buffer));
        match listed {
            Ok(place) => {
                places.truncate(PLACES - 1);
                places.insert(0, (node, place));
            }
            // The directory is gone, or the mount.
            Err(Errno::STALE | Errno::NOENT | Errno::NOTCONN | Errno::CONNABORTED) => {}
            Err(error) => return Err(error),
        }
        rustix::io::write(rustix::stdio::stdout(), &[0])?;
    }
}

/// Lists about this many names of a directory from a place on, with one call, and says at which it
/// ended; none at the end of the directory.
///
/// Everything is closed again: the file system is not kept after its last mount.
fn list(
    point: &Path,
    node: u64,
    from: u64,
    names: u64,
    buffer: &mut [MaybeUninit<u8>],
) -> Result<Option<u64>, Errno> {
    let dir = open(point, node)?;
    rustix::fs::seek(&dir, SeekFrom::Start(from))?;
    let wanted = usize::try_from(names).unwrap_or(usize::MAX).saturating_mul(NAME);
    let mut entries = RawDir::new(&dir, &mut buffer[..wanted.clamp(4096, LARGEST)]);
    let mut place = None;
    while let Some(entry) = entries.next() {
        place = Some(entry?.next_entry_cookie());
        if entries.is_buffer_empty() {
            break;
        }
    }
    Ok(place)
}

/// Opens a directory over a clone of the mount, by its number alone: no path is walked, and nothing
/// asked of the server.
fn open(point: &Path, node: u64) -> Result<OwnedFd, Errno> {
    let tree = rustix::mount::open_tree(
        rustix::fs::CWD,
        point,
        rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
            | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&tree, ".", flags, Mode::empty())?;
    // The upper half of the number first, whatever the order of bytes in each.
    let [low, high] = [node & u64::from(u32::MAX), node >> 32].map(u32::try_from);
    let halves = [high, low].map(|half| half.unwrap_or(0).to_ne_bytes());
    let bytes = [halves.as_flattened(), &[0; 4]].concat();
    handle::open(&root, &FileHandle { kind: HANDLE, bytes }, flags)
}
