//! Extended attributes, without those that are the union's own.
//!
//! A union inside of this one has marks under the same names; they are stored with `overlay.` put in
//! (`trusted.overlay.overlay.opaque`), as the kernel's overlay does.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::atomic::Ordering;

use cow_sys::xattr;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Fs;
use super::create::DEFAULT_ACL;
use crate::union::Overrides;
use crate::union::Place;
use crate::wire::{Args, Header, Out};

/// What is put into the name of a mark of an inner union.
const ESCAPE: &[u8] = b"overlay.";

/// What the kernel asks for before a file is written to or given to another owner. A file is made
/// without.
const CAPABILITY: &str = "security.capability";

/// `FUSE_SETXATTR_ACL_KILL_SGID`: who sets the ACL is neither in the file's group nor privileged.
const ACL_KILL_SGID: u32 = 1 << 0;

impl Fs {
    /// Whether an attribute of the layers is one that fuse-overlayfs, or this mount in its place, keeps
    /// for itself.
    fn is_own(&self, attr: &[u8]) -> bool {
        attr.starts_with(b"user.fuseoverlayfs.")
            || attr.starts_with(b"security.fuseoverlayfs.")
            || Overrides::is_one(attr) && self.union.has_overrides()
    }

    /// The name under which the layers keep an attribute of the mount.
    fn stored<'a>(&self, attr: &'a OsStr) -> Result<Cow<'a, OsStr>, Errno> {
        let bytes = attr.as_bytes();
        if self.is_own(bytes) {
            return Err(Errno::PERM);
        }
        let acl = bytes == b"system.posix_acl_access" || bytes == b"system.posix_acl_default";
        if !self.options.xattrs || acl && !self.options.acl {
            return Err(Errno::OPNOTSUPP);
        }
        let prefix = self.union.prefix.text().as_bytes();
        let Some(mark) = bytes.strip_prefix(prefix) else { return Ok(Cow::Borrowed(attr)) };
        let mut name = prefix.to_vec();
        name.extend_from_slice(ESCAPE);
        name.extend_from_slice(mark);
        Ok(Cow::Owned(OsString::from_vec(name)))
    }

    /// Adds the name that the mount shows for an attribute of the layers, if it shows one.
    fn add_shown(&self, attr: &[u8], list: &mut Vec<u8>) {
        if attr.is_empty() || self.is_own(attr) {
            return;
        }
        let prefix = self.union.prefix.text().as_bytes();
        match attr.strip_prefix(prefix) {
            None => list.extend_from_slice(attr),
            Some(mark) => {
                let Some(inner) = mark.strip_prefix(ESCAPE) else { return };
                list.extend_from_slice(prefix);
                list.extend_from_slice(inner);
            }
        }
        list.push(0);
    }

    pub(super) fn op_getxattr(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let size = args.u32()?;
        args.u32()?;
        let attr = self.stored(args.string()?)?;
        let node = self.table.get(header.node)?.live();
        if node.bare.load(Ordering::Acquire) && *attr == *CAPABILITY {
            return Err(Errno::NODATA);
        }
        let value = self.look_at(&node, |fd, name| xattr::get(fd, name, &attr))?;
        answer(&value, size, out)
    }

    pub(super) fn op_listxattr(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let size = args.u32()?;
        if !self.options.xattrs {
            return Err(Errno::OPNOTSUPP);
        }
        let node = self.table.get(header.node)?.live();
        let all = match self.look_at(&node, |fd, name| xattr::list(fd, name)) {
            Err(Errno::OPNOTSUPP) => Vec::new(),
            answer => answer?,
        };
        let mut list = Vec::with_capacity(all.len());
        for attr in all.split(|byte| *byte == 0) {
            self.add_shown(attr, &mut list);
        }
        answer(&list, size, out)
    }

    pub(super) fn op_setxattr(&self, header: &Header, mut args: Args<'_>) -> Result<(), Errno> {
        self.writable()?;
        let (size, flags) = (args.u32()?, args.u32()?);
        let more = match self.long_setxattr.load(Ordering::Relaxed) {
            true => (args.u32()?, args.u32()?).0,
            false => 0,
        };
        let attr = self.stored(args.string()?)?;
        let value = args.bytes(size as usize)?;
        let node = self.table.get(header.node)?.live();
        node.bare.store(false, Ordering::Release);
        self.copy_up_metadata(&node)?;
        let (fd, name) = self.place(&node.live())?;
        let flags = XattrFlags::from_bits_retain(flags);
        if !flags.is_empty() {
            // The wrapper below always replaces or creates, so that is asked first.
            let there = xattr::get(&*fd, &name, &attr).is_ok();
            if there && flags.contains(XattrFlags::CREATE) {
                return Err(Errno::EXIST);
            }
            if !there && flags.contains(XattrFlags::REPLACE) {
                return Err(Errno::NODATA);
            }
        }
        let done = xattr::set(&*fd, &name, &attr, value);
        if more & ACL_KILL_SGID != 0 && done.is_ok() {
            self.drop_set_gid(&node.live())?;
        }
        if *attr == *DEFAULT_ACL
            && let Place::Dir(stack) = &node.live().state().place
            && let Some(top) = stack.first()
        {
            top.default_acl_set();
        }
        done
    }

    pub(super) fn op_removexattr(&self, header: &Header, mut args: Args<'_>) -> Result<(), Errno> {
        self.writable()?;
        let attr = self.stored(args.string()?)?;
        let node = self.table.get(header.node)?.live();
        // Nothing is copied up to remove what is not there.
        self.look_at(&node, |fd, name| xattr::get(fd, name, &attr))?;
        self.copy_up_metadata(&node)?;
        let (fd, name) = self.place(&node.live())?;
        xattr::remove(&*fd, &name, &attr)
    }
}

/// Answers with a value, or with its length when none was asked for.
fn answer(value: &[u8], size: u32, out: &mut Out) -> Result<(), Errno> {
    let length = u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
    match size {
        0 => {
            out.u32(length);
            out.u32(0);
        }
        size if size < length => return Err(Errno::RANGE),
        _ => out.bytes(value),
    }
    Ok(())
}
