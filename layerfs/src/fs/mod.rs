//! The file system: what each request of the kernel does.
//!
//! [`Fs::dispatch`] takes a request as bytes and fills a reply, whatever transport brought them. One
//! file holds each group of operations.

mod attr;
mod batch;
mod create;
mod dir;
mod effort;
mod idle;
mod io;
mod link;
mod listings;
mod lookup;
mod open;
mod remove;
mod rename;
mod up;
mod xattr;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;

pub use effort::Effort;
pub use io::Stretch;

use crate::ahead::Ahead;
use crate::node::{Node, Table};
use crate::options::Options;
use crate::passthrough::Registry;
use crate::stats::Stats;
use crate::union::{Place, RealDir, Union};
use crate::wire::{Args, Capabilities, Header, InitIn, InitOut, Out, op, op_name};

/// The longest write that one request carries, and the longest read that is worth asking for.
pub const MAX_WRITE: u32 = 1 << 20;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered with what was filled in.
    Reply,
    /// It is answered with an error.
    Error(Errno),
    /// The protocol knows no answer to it.
    Silent,
}

/// A union, served.
#[derive(Debug)]
pub struct Fs {
    union: Arc<Union>,
    options: Options,
    table: Table,
    /// What was done so far.
    pub stats: Stats,
    listings: listings::Listings,
    helpers: batch::Helpers,
    /// How often a name was about to be removed or given to something else.
    removals: AtomicU64,
    device: OnceLock<Arc<OwnedFd>>,
    backings: OnceLock<Arc<Registry>>,
    idle: idle::Idle,
    ahead: Ahead,
    passthrough: AtomicBool,
    /// Whether the kernel keeps writes to itself for a while.
    collects: AtomicBool,
    /// Whether the kernel says with an attribute whether it drops the set-gid bit.
    long_setxattr: AtomicBool,
    /// Real files that are open here, and how many there may be.
    files: AtomicUsize,
    file_limit: usize,
    /// Whom new files belong to without being told.
    owner: (u32, u32),
}

/// Counts errors that no caller can have caused; everything else is an answer.
fn is_fault(error: Errno) -> bool {
    matches!(error, Errno::IO | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::BADF)
}

impl Fs {
    /// Opens the layers and prepares to serve them.
    ///
    /// # Errors
    /// What [`Union::open`] refuses.
    pub fn new(mut options: Options) -> crate::error::Result<Self> {
        let union = Union::open(&options)?;
        // An access list of the real file would speak of the real owner.
        options.acl &= !union.has_overrides();
        let roots = union.roots();
        let failed = |error: Errno| crate::error::Error::sys("statx", "", error);
        let stat_of = |dir: &Arc<RealDir>| {
            let fd = union.fds.get(dir)?;
            crate::union::stat(&fd, std::ffi::OsStr::new(""))
        };
        let top = stat_of(&roots[0]).map_err(failed)?;
        let lowest = &roots[roots.len() - 1];
        let lowest_stat = stat_of(lowest).map_err(failed)?;
        let id = union.id(lowest, &lowest_stat);
        let ino = union.shown(id);
        let root = crate::union::Found { id, ino, stat: top, place: Place::Dir(roots) };
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = usize::try_from(limit.unwrap_or(1 << 20)).unwrap_or(1 << 20);
        Ok(Self {
            table: Table::new(&root),
            union: Arc::new(union),
            helpers: batch::Helpers::new(options.threads),
            ahead: Ahead::new(options.prefetch, options.burst, options.timeout),
            options,
            stats: Stats::default(),
            listings: listings::Listings::default(),
            removals: AtomicU64::new(0),
            device: OnceLock::new(),
            backings: OnceLock::new(),
            idle: idle::Idle::default(),
            passthrough: AtomicBool::new(false),
            collects: AtomicBool::new(false),
            long_setxattr: AtomicBool::new(false),
            files: AtomicUsize::new(0),
            file_limit: limit / 4,
            owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        })
    }

    /// Answers the handshake: takes of what the kernel offers all that this mount makes use of.
    pub fn init(&self, offer: &InitIn, device: &Arc<OwnedFd>) -> InitOut {
        use Capabilities as C;
        let mut wanted = C::ASYNC_READ
            | C::BIG_WRITES
            | C::DONT_MASK
            | C::ATOMIC_O_TRUNC
            | C::DO_READDIRPLUS
            | C::READDIRPLUS_AUTO
            | C::PARALLEL_DIROPS
            | C::MAX_PAGES
            | C::CACHE_SYMLINKS
            | C::NO_OPENDIR_SUPPORT
            | C::EXPLICIT_INVAL_DATA
            | C::HANDLE_KILLPRIV_V2
            | C::SETXATTR_EXT
            | C::INIT_EXT;
        if self.options.acl && self.options.xattrs {
            wanted |= C::POSIX_ACL;
        }
        let passthrough =
            self.options.passthrough && offer.offered.has(C::PASSTHROUGH) && self.may_pass(device);
        if passthrough {
            wanted |= C::PASSTHROUGH;
        } else if self.options.writeback && self.union.work.is_some() {
            wanted |= C::WRITEBACK_CACHE;
        }
        self.passthrough.store(passthrough, Ordering::Relaxed);
        let collects = wanted & offer.offered.0 & C::WRITEBACK_CACHE != 0;
        self.collects.store(collects, Ordering::Relaxed);
        self.long_setxattr.store(offer.offered.has(C::SETXATTR_EXT), Ordering::Relaxed);
        let _ = self.device.set(Arc::clone(device));
        let _ = self.backings.set(Registry::new(Arc::clone(device)));
        InitOut {
            taken: Capabilities(wanted & offer.offered.0),
            max_readahead: offer.max_readahead.max(MAX_WRITE),
            max_write: MAX_WRITE,
            max_stack_depth: if passthrough { self.stack_depth() } else { 0 },
        }
    }

    /// Whether this process may register backing files at all.
    fn may_pass(&self, _device: &Arc<OwnedFd>) -> bool {
        rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
            && crate::ids::is_first_user_namespace()
    }

    /// How deep the stack of file systems below a backing file may be: 1 leaves room for an overlay on
    /// top of this mount; 2 is taken when a layer is on a stacked file system itself.
    fn stack_depth(&self) -> u32 {
        /// `OVERLAYFS_SUPER_MAGIC`.
        const OVERLAY: u64 = 0x794c_7630;
        let stacked = self.union.layers.iter().any(|layer| {
            let fd = self.union.fds.get(&layer.root);
            let stat = fd.and_then(|fd| rustix::fs::fstatfs(&*fd));
            stat.is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| kind == OVERLAY))
        });
        if stacked { 2 } else { 1 }
    }

    /// How many copies have their names, but perhaps not their data on the disk.
    pub fn unsettled(&self) -> usize {
        self.union.unsettled()
    }

    /// Says where the mount is.
    pub fn is_mounted_on(&self, point: &std::path::Path) {
        self.ahead.is_mounted_on(point);
    }

    /// How many nodes, and how many directory fds there are.
    pub fn sizes(&self) -> (usize, usize) {
        (self.table.len(), self.union.fds.len())
    }

    /// Carries out one request.
    ///
    /// `args` are the bytes after the header; `out` is empty and takes the body of the reply.
    pub fn dispatch(&self, header: &Header, args: Args<'_>, out: &mut Out) -> Verdict {
        self.stats.count(header.opcode);
        match header.opcode {
            op::FORGET => {
                let mut args = args;
                if let Ok(lookups) = args.u64() {
                    self.forget(header.node, lookups, out);
                }
                return Verdict::Silent;
            }
            op::BATCH_FORGET => {
                self.batch_forget(args, out);
                return Verdict::Silent;
            }
            op::INTERRUPT => return Verdict::Silent,
            _ => {}
        }
        match self.note(header, self.operate(header, args, out)) {
            Ok(()) => Verdict::Reply,
            Err(error) => Verdict::Error(error),
        }
    }

    /// Carries out one `READ` and puts the data where the transport wants it, without a copy; returns
    /// how much there is.
    ///
    /// # Errors
    /// What the request is answered with.
    pub fn dispatch_read(
        &self,
        header: &Header,
        args: Args<'_>,
        place: &mut [u8],
    ) -> Result<usize, Errno> {
        self.stats.count(header.opcode);
        self.note(header, self.read_into(header, args, place))
    }

    /// Logs and counts what became of a request.
    fn note<T: std::fmt::Debug>(
        &self,
        header: &Header,
        answer: Result<T, Errno>,
    ) -> Result<T, Errno> {
        if self.options.debug {
            tracing::debug!(op = op_name(header.opcode), node = header.node, ?answer);
        }
        if let Err(error) = &answer
            && is_fault(*error)
        {
            Stats::add(&self.stats.faults);
            let op = op_name(header.opcode);
            tracing::warn!(op, node = header.node, %error, "request failed");
        }
        answer
    }

    fn operate(&self, header: &Header, args: Args<'_>, out: &mut Out) -> Result<(), Errno> {
        if matches!(header.opcode, op::UNLINK | op::RMDIR | op::RENAME | op::RENAME2) {
            self.removals.fetch_add(1, Ordering::AcqRel);
        }
        match header.opcode {
            op::LOOKUP => self.op_lookup(header, args, out),
            op::GETATTR => self.op_getattr(header, out),
            op::SETATTR => self.op_setattr(header, args, out),
            op::READLINK => self.op_readlink(header, out),
            op::SYMLINK => self.op_symlink(header, args, out),
            op::MKNOD => self.op_mknod(header, args, out),
            op::MKDIR => self.op_mkdir(header, args, out),
            op::UNLINK => self.op_unlink(header, args, out),
            op::RMDIR => self.op_rmdir(header, args),
            op::RENAME | op::RENAME2 => self.op_rename(header, args),
            op::LINK => self.op_link(header, args, out),
            op::OPEN => self.op_open(header, args, out),
            op::READ => self.op_read(header, args, out),
            op::WRITE => self.op_write(header, args, out),
            op::STATFS => self.op_statfs(out),
            op::RELEASE => self.op_release(header, args),
            op::FSYNC => self.op_fsync(header, args),
            op::FSYNCDIR => self.op_fsyncdir(header),
            op::SETXATTR => self.op_setxattr(header, args),
            op::GETXATTR => self.op_getxattr(header, args, out),
            op::LISTXATTR => self.op_listxattr(header, args, out),
            op::REMOVEXATTR => self.op_removexattr(header, args),
            op::READDIR => self.op_readdir(header, args, out, false),
            op::READDIRPLUS => self.op_readdir(header, args, out, true),
            op::CREATE => self.op_create(header, args, out),
            op::TMPFILE => self.op_tmpfile(header, args, out),
            op::FALLOCATE => self.op_fallocate(header, args),
            op::LSEEK => self.op_lseek(header, args, out),
            op::COPY_FILE_RANGE => self.op_copy_file_range(header, args, out),
            // FLUSH, OPENDIR and RELEASEDIR are among these: answered so once, they are never sent
            // again. Locks are the kernel's own, for nobody else sees the union.
            _ => Err(Errno::NOSYS),
        }
    }

    fn forget(&self, node: u64, lookups: u64, out: &mut Out) {
        if let Some(rest) = self.table.forget(node, lookups) {
            out.later(rest);
        }
    }

    fn batch_forget(&self, mut args: Args<'_>, out: &mut Out) {
        let Ok(count) = args.u32() else { return };
        if args.u32().is_err() {
            return;
        }
        for _ in 0..count {
            let (Ok(node), Ok(lookups)) = (args.u64(), args.u64()) else { return };
            self.forget(node, lookups, out);
        }
    }

    /// Whether changes are refused.
    fn writable(&self) -> Result<(), Errno> {
        match self.union.work {
            Some(_) => Ok(()),
            None => Err(Errno::ROFS),
        }
    }

    /// The directories that a node merges.
    fn stack(&self, node: &Node) -> Result<Arc<[Arc<RealDir>]>, Errno> {
        match &node.state().place {
            Place::Dir(stack) => Ok(Arc::clone(stack)),
            Place::File { .. } => Err(Errno::NOTDIR),
        }
    }

    /// Lets go of what keeps the layers' file systems busy, after the mount is gone.
    pub fn release_layers(&self) {
        self.union.tidy();
        if let Some(backings) = self.backings.get() {
            backings.close_all();
        }
    }

    /// Syncs what was written, before the mount goes.
    pub fn sync(&self) {
        if let (Some(_), true, Some(layer)) =
            (&self.union.work, self.union.sync, self.union.layers.first())
            && let Ok(fd) = self.union.fds.get(&layer.root)
            && let Err(error) = rustix::fs::syncfs(&*fd)
        {
            tracing::warn!(%error, "the upper layer could not be synced");
        }
        self.union.finish();
    }
}
