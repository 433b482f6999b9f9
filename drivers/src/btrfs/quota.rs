//! The space that a subvolume may take, and takes: its quota group, whose number is the subvolume's.
//!
//! A limit is one of *exclusive* space, what the layer alone has and would be free without it: the
//! image below does not count, as it does not with an overlay's upper directory. Simple quotas
//! (Linux 6.7) count each extent for the subvolume that wrote it, which is the same for a layer that
//! nobody snapshots, and cost nothing at a snapshot or a removal.
//!
//! The kernel removes the group of a deleted subvolume with it; older kernels (before 6.11) leave
//! it, and let it be removed.

use std::os::fd::AsFd;

use btrfs_uapi::quota::{
    QgroupLimitFlags, QgroupStatusFlags, qgroup_destroy, qgroup_limit, quota_enable,
    quota_rescan_wait,
};
use btrfs_uapi::tree_search::Key;
use cow::error::{Error, Result};

use super::options::Quota;
use super::search::{Batch, items, u64_at};

/// The tree of quota groups (`BTRFS_QUOTA_TREE_OBJECTID`) and the types of its items.
const TREE: u64 = 8;
const STATUS: u32 = 240;
const INFO: u32 = 242;
const LIMIT: u32 = 244;

/// What accounts for space on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accounting {
    /// Nothing.
    Off,
    /// Simple quotas.
    Simple,
    /// Quota groups.
    Full,
}

impl Accounting {
    /// As a person is told.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Simple => "simple",
            Self::Full => "full",
        }
    }
}

/// What one subvolume takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that it refers to, shared ones among them; with simple quotas those that it wrote.
    pub(super) referenced: u64,
    /// Bytes that it alone has; measured without quotas, those that it has written and no layer below has.
    pub(super) exclusive: u64,
    /// The limit of the exclusive bytes.
    pub(super) limit: Option<u64>,
}

/// What accounts for space now; off where it cannot be seen.
pub(super) fn accounting(dir: impl AsFd) -> Accounting {
    let mut found = Accounting::Off;
    let look = item(dir, STATUS, 0, |data| {
        let flags = QgroupStatusFlags::from_bits_truncate(word(data, 2));
        found = match () {
            () if !flags.contains(QgroupStatusFlags::ON) => Accounting::Off,
            () if flags.contains(QgroupStatusFlags::SIMPLE_MODE) => Accounting::Simple,
            () => Accounting::Full,
        };
    });
    // Without quotas there is no tree.
    look.map_or(Accounting::Off, |()| found)
}

/// Sees that space is accounted for, by turning quotas on for the whole file system if need be.
pub(super) fn turn_on(dir: impl AsFd, wanted: Quota) -> Result<Accounting> {
    let dir = dir.as_fd();
    match accounting(dir) {
        Accounting::Off => {}
        on => return Ok(on),
    }
    if wanted == Quota::Auto && quota_enable(dir, true).is_ok() {
        return Ok(Accounting::Simple);
    }
    let failed = |errno| Error::sys("turn quotas on", "", errno);
    quota_enable(dir, false).map_err(failed)?;
    quota_rescan_wait(dir).map_err(failed)?;
    Ok(Accounting::Full)
}

/// Limits what a subvolume may take by itself.
pub(super) fn limit(dir: impl AsFd, subvolume: u64, bytes: u64) -> Result<()> {
    qgroup_limit(dir.as_fd(), subvolume, QgroupLimitFlags::MAX_EXCL, 0, bytes)
        .map_err(|errno| Error::sys("limit space", "", errno))
}

/// What a subvolume takes; none where nothing accounts for it.
pub(super) fn taken(dir: impl AsFd, subvolume: u64) -> Option<Taken> {
    let dir = dir.as_fd();
    let mut taken = None;
    item(dir, INFO, subvolume, |data| {
        let (referenced, exclusive) = (word(data, 1), word(data, 3));
        taken = Some(Taken { referenced, exclusive, limit: None });
    })
    .ok()?;
    if let Some(taken) = &mut taken {
        let _ = item(dir, LIMIT, subvolume, |data| {
            let flags = QgroupLimitFlags::from_bits_truncate(word(data, 0));
            if flags.contains(QgroupLimitFlags::MAX_EXCL) {
                taken.limit = Some(word(data, 2));
            }
        });
    }
    taken
}

/// Removes the group of a subvolume that is gone. Best effort: where it must not be removed yet, the
/// kernel does it later.
pub(super) fn forget(dir: impl AsFd, subvolume: u64) {
    if let Err(errno) = qgroup_destroy(dir.as_fd(), subvolume) {
        tracing::trace!(subvolume, %errno, "the quota group is not removed here");
    }
}

/// Calls `f` with one item of the quota tree, if it is there.
fn item(dir: impl AsFd, item_type: u32, offset: u64, mut f: impl FnMut(&[u8])) -> Result<()> {
    let key = Key { objectid: 0, item_type, offset };
    items(dir.as_fd(), TREE, Batch::Small, (key, key), 0, |_, data| f(data))
}

/// The `n`th number of an item; 0 past its end.
fn word(data: &[u8], n: usize) -> u64 {
    u64_at(data, n * 8).unwrap_or(0)
}
