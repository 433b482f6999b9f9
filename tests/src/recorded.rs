//! A disk that remembers in which order it was written, so that a power cut can be played at any point.
//!
//! The disk is one file of a file system in user space, with a loop device on it. A write is remembered
//! with its bytes when it arrives, and a flush of the device (which reaches us as fsync) as a mark. After
//! a power cut a real disk holds everything that was written before the last flush that it answered, and
//! of the later writes any part, down to single sectors: so does [`Recorded::cut`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::daemon::Finish as _;
use crate::disk;
use crate::root::TempRoot;

/// The name of the disk's file.
const NAME: &str = "disk";
const DISK: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);
/// What a disk writes whole or not at all.
const SECTOR: usize = 4096;

/// One thing that the disk was asked.
#[derive(Debug)]
enum Event {
    Write { offset: u64, bytes: Vec<u8> },
    Flush,
}

#[derive(Debug)]
struct Shared {
    file: File,
    size: u64,
    log: Mutex<Vec<Event>>,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Vec<Event>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mounted file system on a disk that remembers. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Recorded {
    shared: Arc<Shared>,
    /// The disk as it was before the first write that is remembered.
    before: PathBuf,
    mounted: PathBuf,
    /// How often it was cut.
    cuts: AtomicUsize,
    session: Option<BackgroundSession>,
    root: TempRoot,
}

impl Recorded {
    /// A new file system of this kind, of so many MiB.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(fs: &str, mib: u64) -> Self {
        let root = TempRoot::in_memory("recorded");
        let (before, now) = (root.join("before"), root.join("now"));
        let (served, mounted) = (root.join("served"), root.join("mounted"));
        for dir in [&served, &mounted] {
            fs::create_dir(dir).expect("a mount point");
        }
        File::create(&before).and_then(|file| file.set_len(mib << 20)).expect("a disk");
        disk::make(fs, &before);
        sparse_copy(&before, &now);
        let file = File::options().read(true).write(true).open(&now).expect("the disk");
        let shared = Arc::new(Shared { file, size: mib << 20, log: Mutex::default() });
        let server = Server(Arc::clone(&shared));
        let session = fuser::spawn_mount(server, &served, &Config::default()).expect("fuse");
        let (session, cuts) = (Some(session), AtomicUsize::new(0));
        let recorded = Self { shared, before, mounted, cuts, session, root };
        let mut mount = Command::new("mount");
        mount.args(["-t", fs, "-o", "loop"]).arg(served.join(NAME));
        mount.arg(&recorded.mounted).finish().ok();
        recorded
    }

    /// Where the file system is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Unmounts the file system; the disk stays for [`cut`](Self::cut). Two file systems with one UUID
    /// must not be mounted at a time.
    ///
    /// # Panics
    /// When it is in use.
    pub fn unmount(&self) {
        crate::root::unmount(&self.mounted);
    }

    /// How much has been written: a point in time that [`cut`](Self::cut) takes.
    #[must_use]
    pub fn now(&self) -> usize {
        self.shared.log().len()
    }

    /// Makes a disk as a power cut at a point leaves it; `keeps` decides for each sector that was written
    /// since the last flush whether it came to the disk. The one before is removed.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn cut(&self, at: usize, mut keeps: impl FnMut() -> bool) -> PathBuf {
        // Never the same file: the loop device of the last one may let go of it a moment later, and whoever
        // mounts the file again gets that device, with what it has in memory.
        let number = self.cuts.fetch_add(1, Ordering::Relaxed);
        let disk = self.root.join(format!("cut-{number}"));
        sparse_copy(&self.before, &disk);
        if let Some(last) = number.checked_sub(1) {
            let _ = fs::remove_file(self.root.join(format!("cut-{last}")));
        }
        let file = File::options().write(true).open(&disk).expect("the disk");
        let log = self.shared.log();
        let flushed = log[..at].iter().rposition(|event| matches!(event, Event::Flush));
        for (number, event) in log[..at].iter().enumerate() {
            let Event::Write { offset, bytes } = event else { continue };
            let is_safe = flushed.is_some_and(|flush| number < flush);
            for (sector, bytes) in bytes.chunks(SECTOR).enumerate() {
                if is_safe || keeps() {
                    let offset = offset + (sector * SECTOR) as u64;
                    file.write_all_at(bytes, offset).expect("room in memory");
                }
            }
        }
        disk
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        // The file system before the disk that it is on.
        let flags = rustix::mount::UnmountFlags::empty();
        if rustix::mount::unmount(&self.mounted, flags).is_err() {
            crate::root::unmount_below(&self.mounted);
            let _ = rustix::mount::unmount(&self.mounted, rustix::mount::UnmountFlags::DETACH);
        }
        // Not joined: the loop device may let go of its file a moment later.
        drop(self.session.take());
    }
}

fn sparse_copy(from: &Path, to: &Path) {
    Command::new("cp").arg("--sparse=always").arg(from).arg(to).finish().ok();
}

/// The file system that holds the disk.
struct Server(Arc<Shared>);

impl Server {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_disk = ino == DISK;
        let size = if is_disk { self.0.size } else { 0 };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk { FileType::RegularFile } else { FileType::Directory },
            perm: if is_disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match parent == INodeNo::ROOT && name == NAME {
            true => reply.entry(&TTL, &self.attr(DISK), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self.0.file.read_at(&mut bytes, offset) {
            Ok(length) => reply.data(&bytes[..length]),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.0.log().push(Event::Write { offset, bytes: data.to_owned() });
        match (self.0.file.write_all_at(data, offset), u32::try_from(data.len())) {
            (Ok(()), Ok(length)) => reply.written(length),
            _ => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.log().push(Event::Flush);
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        // A disk that cannot discard.
        reply.error(Errno::EOPNOTSUPP);
    }
}
