//! The words of mount(8), sorted by whom they concern.

use rustix::mount::{MountAttrFlags, MountFlags};

/// Which sort of bind mount is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bind {
    /// One mount.
    Single,
    /// With all mounts below.
    Recursive,
}

/// Sorted mount options.
#[derive(Debug)]
pub(super) struct Options<'a> {
    /// Properties of the mount.
    pub(super) attributes: MountAttrFlags,
    /// Flags of the superblock that every file system takes.
    pub(super) superblock: Vec<&'a str>,
    /// What only the file system understands.
    pub(super) fs: Vec<&'a str>,
    /// Whether this is a bind mount.
    pub(super) bind: Option<Bind>,
}

impl<'a> Options<'a> {
    /// Sorts options; a later word overrides an earlier one (`ro`, then `rw`).
    pub(super) fn sort(options: &'a [String]) -> Self {
        let mut sorted = Self {
            attributes: MountAttrFlags::empty(),
            superblock: Vec::new(),
            fs: Vec::new(),
            bind: None,
        };
        for option in options {
            sorted.add(option);
        }
        sorted
    }

    fn add(&mut self, option: &'a str) {
        use MountAttrFlags as Attr;
        let atime = Attr::MOUNT_ATTR__ATIME;
        let (off, on) = match option {
            "" | "defaults" => return,
            "ro" => {
                self.superblock.push(option);
                (Attr::empty(), Attr::MOUNT_ATTR_RDONLY)
            }
            "rw" => {
                self.superblock.retain(|flag| *flag != "ro");
                (Attr::MOUNT_ATTR_RDONLY, Attr::empty())
            }
            "sync" | "dirsync" | "lazytime" | "mand" => {
                self.superblock.push(option);
                return;
            }
            "bind" => {
                self.bind = self.bind.or(Some(Bind::Single));
                return;
            }
            "rbind" => {
                self.bind = Some(Bind::Recursive);
                return;
            }
            "nosuid" => (Attr::empty(), Attr::MOUNT_ATTR_NOSUID),
            "suid" => (Attr::MOUNT_ATTR_NOSUID, Attr::empty()),
            "nodev" => (Attr::empty(), Attr::MOUNT_ATTR_NODEV),
            "dev" => (Attr::MOUNT_ATTR_NODEV, Attr::empty()),
            "noexec" => (Attr::empty(), Attr::MOUNT_ATTR_NOEXEC),
            "exec" => (Attr::MOUNT_ATTR_NOEXEC, Attr::empty()),
            "nosymfollow" => (Attr::empty(), Attr::MOUNT_ATTR_NOSYMFOLLOW),
            "nodiratime" => (Attr::empty(), Attr::MOUNT_ATTR_NODIRATIME),
            "relatime" | "atime" => (atime, Attr::MOUNT_ATTR_RELATIME),
            "noatime" => (atime, Attr::MOUNT_ATTR_NOATIME),
            "strictatime" => (atime, Attr::MOUNT_ATTR_STRICTATIME),
            _ => {
                self.fs.push(option);
                return;
            }
        };
        self.attributes = self.attributes.difference(off).union(on);
    }

    /// The same properties as mount(2) takes them.
    pub(super) fn legacy_flags(&self) -> MountFlags {
        use MountAttrFlags as Attr;
        let table = [
            (Attr::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
            (Attr::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
            (Attr::MOUNT_ATTR_NODEV, MountFlags::NODEV),
            (Attr::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
            (Attr::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
            (Attr::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
            (Attr::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
            (Attr::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
        ];
        let attributes = table
            .into_iter()
            .filter(|(attribute, _)| self.attributes.contains(*attribute))
            .map(|(_, flag)| flag);
        let superblock = self.superblock.iter().map(|flag| match *flag {
            "sync" => MountFlags::SYNCHRONOUS,
            "dirsync" => MountFlags::DIRSYNC,
            "lazytime" => MountFlags::LAZYTIME,
            "mand" => MountFlags::PERMIT_MANDATORY_FILE_LOCKING,
            _ => MountFlags::RDONLY,
        });
        attributes.chain(superblock).fold(MountFlags::empty(), MountFlags::union)
    }
}
