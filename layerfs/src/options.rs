//! Mount options: fuse-overlayfs's, in fuse-overlayfs's spelling, as typed after `-o`.

mod layers;

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::{IdMap, Ids};
use crate::union::{Access, Overrides, Times};
use layers::{path, split};

/// Long enough that the kernel never asks again; the union changes only through the mount.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What becomes of a directory from a lower layer that is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// It is renamed, and marked with where it came from.
    On,
    /// Marks are followed; the rename itself answers EXDEV.
    Follow,
    /// Marks are not even followed.
    Ignore,
}

/// What carries requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The ring where the kernel offers it and it can be set up, else the device.
    Auto,
    /// The ring, or no mount.
    Ring,
    /// `/dev/fuse` alone.
    Device,
}

/// A fault of the ring that only tests ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// The last thread cannot register its queues when the others have.
    Registration,
    /// A thread fails after so many requests.
    After(u64),
}

/// How the mount behaves, resolved from what was typed.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option that users know by name")]
pub struct Options {
    /// The lower layers, the topmost first.
    pub lower: Vec<PathBuf>,
    /// Layers below these that show no names: what only has its metadata above may have its data there.
    pub data: Vec<PathBuf>,
    /// Whether these came in one list.
    listed: bool,
    /// Where changes go; none for a read-only mount.
    pub upper: Option<PathBuf>,
    /// A directory on the upper's file system for what is not finished.
    pub work: Option<PathBuf>,
    /// How owners are translated.
    pub ids: Ids,
    /// Where the upper layer keeps owners and modes, if not in the inodes.
    pub xattr_permissions: Option<Overrides>,
    /// Whether POSIX ACLs are kept and honoured.
    pub acl: bool,
    /// Whether directories always have one link.
    pub static_nlink: bool,
    /// Whether inode numbers of layers on different file systems are kept apart by their high bits.
    pub xino: bool,
    /// Whether nothing is ever synced: a crash of the machine may lose the upper layer.
    pub volatile: bool,
    /// Whether what is copied up gets its name only when the disk has it.
    pub settled: bool,
    /// After how long without a further one the copies that the disk may not have are waited for; only tests are
    /// more patient.
    pub patience: Duration,
    /// How long the kernel may keep names and attributes.
    pub timeout: Duration,
    /// How many threads answer requests; none for a number that fits the machine.
    pub threads: Option<usize>,
    /// Whether extended attributes of files are shown.
    pub xattrs: bool,
    /// What renaming lower directories does.
    pub redirects: Redirects,
    /// Whether changes of metadata alone leave a file's data where it is.
    pub metacopy: bool,
    /// Whether hard links of lower layers stay together when one of them is copied up.
    pub index: bool,
    /// Whether our own marks are `user.` attributes even if `trusted.` ones could be written.
    pub userxattr: bool,
    /// Whether the kernel may collect writes, where passthrough is not used.
    pub writeback: bool,
    /// Whether open files are handed to the kernel, where it can take them.
    pub passthrough: bool,
    /// Whether directories are listed ahead of readers who look their names up one by one.
    pub prefetch: bool,
    /// Within which time the names of such a reader begin to come; only tests are more patient.
    pub burst: Duration,
    /// What carries requests.
    pub transport: Transport,
    /// Whether threads keep clients on their CPUs, or wait awake for one that is alone.
    pub spin: bool,
    /// How the ring fails, to test that.
    pub ring_fault: Option<RingFault>,
    /// Who may use the mount besides its owner.
    pub allow: Allow,
    /// Options that the kernel itself takes as mount flags (`nodev`, `noatime`, ...).
    pub flags: Vec<String>,
    /// Which reads of the upper layer change access times, by the same flags.
    pub times: Times,
    /// Whether a mount that is there gets other flags.
    pub remount: bool,
    /// The source that /proc/mounts shows.
    pub source: Option<String>,
    /// Whether the mount refuses changes although it has an upper layer.
    pub read_only: bool,
    /// Whether each request is logged.
    pub debug: bool,
}

/// Who may use a mount besides its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Everybody, if this process may grant that.
    Default,
    /// Everybody.
    Other,
    /// Nobody.
    Owner,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lower: Vec::new(),
            data: Vec::new(),
            listed: false,
            upper: None,
            work: None,
            ids: Ids::default(),
            xattr_permissions: None,
            acl: true,
            static_nlink: false,
            xino: true,
            volatile: false,
            settled: false,
            patience: Duration::from_millis(300),
            timeout: FOREVER,
            threads: None,
            xattrs: true,
            redirects: Redirects::On,
            metacopy: false,
            index: true,
            userxattr: false,
            writeback: true,
            passthrough: true,
            prefetch: true,
            burst: Duration::from_millis(2),
            transport: Transport::Auto,
            spin: true,
            ring_fault: None,
            allow: Allow::Default,
            flags: Vec::new(),
            times: Times::default(),
            remount: false,
            source: None,
            read_only: false,
            debug: false,
        }
    }
}

/// Every option by name, with what it does: the list that a refusal prints.
pub const KNOWN: &[(&str, &str)] = &[
    ("lowerdir=A:B[::C...]", "read-only layers, topmost first, and data layers; \\: is a colon"),
    ("lowerdir+=A, datadir+=C", "one more of either, without escapes"),
    ("upperdir=DIR", "the layer that takes changes; without it the mount is read-only"),
    ("workdir=DIR", "an empty directory on the upper's file system"),
    ("uidmapping=F:T:N[:...]", "shows owners F.. of the layers as T.."),
    ("gidmapping=F:T:N[:...]", "the same for groups"),
    ("squash_to_root", "shows everything as owned by 0:0"),
    ("squash_to_uid=N", "shows everything as owned by this user"),
    ("squash_to_gid=N", "shows everything as owned by this group"),
    ("xattr_permissions=0|1|2", "keeps owners and modes in security. (1) or user. (2) attributes"),
    ("noacl", "ignores POSIX ACLs"),
    ("static_nlink", "gives every directory one link"),
    ("xino=on|auto|off", "keeps inode numbers of different file systems apart"),
    ("ino32_t", "accepted; inode numbers are what the layers have"),
    ("volatile", "never syncs"),
    (
        "fsync=0|1|strict",
        "0 is volatile; strict syncs what is copied up before it gets its name (1)",
    ),
    ("timeout=SECONDS", "how long the kernel keeps names and attributes (a year)"),
    ("threaded=0|1", "0 answers with one thread"),
    ("threads=N", "answers with this many threads"),
    ("noxattrs=0|1", "shows no extended attributes"),
    ("redirect_dir=on|follow|nofollow|off", "whether lower directories can be renamed (on)"),
    ("index=on|off", "keeps lower hard links together on copy-up (on)"),
    ("metacopy=on|off", "leaves data below when only owner, mode or attributes change (off)"),
    ("userxattr", "writes user.overlay. attributes"),
    ("writeback=0|1", "lets the kernel collect writes where passthrough is not used (1)"),
    ("passthrough=0|1", "lets the kernel read and write the layers' files itself (1)"),
    ("prefetch=0|1", "lists directories whose names are looked up one by one (1)"),
    ("transport=auto|ring|device", "what carries requests: io_uring where it can be had (auto)"),
    ("spin=0|1", "waits for a single client on its CPU, or awake; gives way to clients (1)"),
    ("allow_other, allow_root", "who may use the mount"),
    ("context=..., fast_ino=..., nfs_export=off, uuid=...", "accepted"),
    ("clone_fd, max_idle_threads=N, max_threads=N, auto_unmount", "accepted"),
    ("ro, rw, [no]dev, [no]suid, [no]exec, [no]symfollow, sync, dirsync", "mount flags"),
    ("[no]atime, strictatime, relatime, [no]diratime", "which reads change access times"),
    ("remount", "gives a mount that is there other mount flags"),
    ("fsname=NAME, debug", "the source in /proc/mounts; logging of requests"),
];

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::option(format!("{name}={value}: not a number")))
}

fn switch(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "on" | "true" | "yes" | "" => Ok(true),
        "0" | "off" | "false" | "no" => Ok(false),
        _ => Err(Error::option(format!("{name}={value}: neither 0 nor 1"))),
    }
}

impl Options {
    /// Adds what one `-o` argument says.
    ///
    /// # Errors
    /// An option that is not known, with the list of those that are; a value that makes no sense.
    pub fn add(&mut self, text: &std::ffi::OsStr) -> Result<()> {
        let mut mapping: Option<bool> = None;
        for item in split(text.as_bytes(), b',') {
            if item.is_empty() {
                continue;
            }
            let (name, value) = match item.iter().position(|byte| *byte == b'=') {
                Some(at) => (&item[..at], &item[at + 1..]),
                None => (&item[..], &b""[..]),
            };
            let name = String::from_utf8_lossy(name).into_owned();
            // A mapping may go on after a comma: uidmapping=0:1000:1,1:110000:65536.
            if let Some(users) = mapping
                && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b':')
            {
                self.ids.side(users).extend(&name)?;
                continue;
            }
            mapping = match name.as_str() {
                "uidmapping" => Some(true),
                "gidmapping" => Some(false),
                _ => None,
            };
            self.set(&name, value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &[u8]) -> Result<()> {
        match name {
            "lowerdir" => return self.set_lower(value),
            "lowerdir+" | "datadir+" => return self.add_lower(name, value),
            "upperdir" => {
                self.upper = Some(path(value));
                return Ok(());
            }
            "workdir" => {
                self.work = Some(path(value));
                return Ok(());
            }
            _ => {}
        }
        let text = String::from_utf8_lossy(value).into_owned();
        self.set_behaviour(name, &text)
    }

    fn set_behaviour(&mut self, name: &str, text: &str) -> Result<()> {
        match name {
            "uidmapping" => self.ids.users = IdMap::parse(text)?,
            "gidmapping" => self.ids.groups = IdMap::parse(text)?,
            "squash_to_root" => {
                self.ids.squash_uid.get_or_insert(0);
                self.ids.squash_gid.get_or_insert(0);
            }
            "squash_to_uid" => self.ids.squash_uid = Some(number(name, text)?),
            "squash_to_gid" => self.ids.squash_gid = Some(number(name, text)?),
            "xattr_permissions" => {
                self.xattr_permissions = match text {
                    "0" => None,
                    "1" => Some(Overrides::Privileged),
                    "2" => Some(Overrides::User),
                    _ => return Err(Error::option(format!("xattr_permissions={text}"))),
                }
            }
            "noacl" => self.acl = false,
            "static_nlink" => self.static_nlink = true,
            "xino" => self.xino = text == "auto" || switch(name, text)?,
            "volatile" => self.volatile = true,
            "fsync" => {
                self.settled = text == "strict";
                self.volatile = !self.settled && !switch(name, text)?;
            }
            "timeout" => {
                let seconds: f64 = number(name, text)?;
                self.timeout = Duration::try_from_secs_f64(seconds)
                    .map_err(|_| Error::option(format!("timeout={text}: not a time")))?
                    .min(FOREVER);
            }
            "threaded" => {
                if !switch(name, text)? {
                    self.threads = Some(1);
                }
            }
            "threads" => self.threads = Some(number::<usize>(name, text)?.clamp(1, 64)),
            "noxattrs" => self.xattrs = !switch(name, text)?,
            "redirect_dir" => {
                self.redirects = match text {
                    "on" => Redirects::On,
                    "off" | "follow" => Redirects::Follow,
                    "nofollow" => Redirects::Ignore,
                    _ => return Err(Error::option(format!("redirect_dir={text}"))),
                }
            }
            "index" => self.index = switch(name, text)?,
            "userxattr" => self.userxattr = true,
            "writeback" => self.writeback = switch(name, text)?,
            "passthrough" => self.passthrough = switch(name, text)?,
            "prefetch" => self.prefetch = switch(name, text)?,
            "transport" => {
                self.transport = match text {
                    "auto" => Transport::Auto,
                    "ring" => Transport::Ring,
                    "device" => Transport::Device,
                    _ => return Err(Error::option(format!("transport={text}"))),
                }
            }
            "spin" => self.spin = switch(name, text)?,
            "x-layerfs.patience" => self.patience = Duration::from_secs(number(name, text)?),
            "x-layerfs.burst" => self.burst = Duration::from_secs(number(name, text)?),
            "x-layerfs.ring-fault" => {
                self.ring_fault = Some(match text {
                    "registration" => RingFault::Registration,
                    _ => RingFault::After(number(name, text)?),
                });
            }
            _ => return self.set_mount(name, text),
        }
        Ok(())
    }

    fn set_mount(&mut self, name: &str, text: &str) -> Result<()> {
        match name {
            "allow_other" | "allow_root" => self.allow = Allow::Other,
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "nodev" | "dev" | "nosuid" | "suid" | "noexec" | "exec" | "nosymfollow"
            | "symfollow" | "sync" | "dirsync" => self.flags.push(name.to_owned()),
            "noatime" | "atime" | "strictatime" | "nostrictatime" | "relatime" | "norelatime"
            | "nodiratime" | "diratime" => self.set_times(name),
            "remount" => self.remount = true,
            "fsname" => self.source = Some(text.to_owned()),
            "debug" => self.debug = true,
            "metacopy" => self.metacopy = switch(name, text)?,
            "nfs_export" => {
                if switch(name, text)? {
                    return Err(Error::option(format!("{name}=on is not supported")));
                }
            }
            "context"
            | "fscontext"
            | "defcontext"
            | "rootcontext"
            | "fast_ino"
            | "uuid"
            | "ino32_t"
            | "clone_fd"
            | "max_idle_threads"
            | "max_threads"
            | "auto_unmount"
            | "plugins"
            | "subtype"
            | "default_permissions"
            | "user_id"
            | "group_id"
            | "lazytime"
            | "nolazytime"
            | "iversion"
            | "noiversion"
            | "nomand"
            | "silent"
            | "loud"
            | "async"
            | "user"
            | "defaults"
            | "_netdev"
            | "nofail"
            | "auto"
            | "noauto" => {}
            other if other.starts_with("x-") => {}
            other => return Err(Error::unknown_option(other)),
        }
        Ok(())
    }

    /// Takes a flag that says which reads change access times.
    fn set_times(&mut self, name: &str) {
        match name {
            "noatime" => self.times.access = Some(Access::Never),
            "strictatime" => self.times.access = Some(Access::Always),
            "atime" | "relatime" | "nostrictatime" => {
                self.times.access = Some(Access::Relative);
            }
            "nodiratime" => self.times.no_dirs = true,
            "diratime" => self.times.no_dirs = false,
            _ => {}
        }
        self.flags.push(name.to_owned());
    }

    /// Checks what only the whole of the options can tell.
    ///
    /// # Errors
    /// No lower layer; an upper without a work directory.
    pub fn check(&self) -> Result<()> {
        if self.remount {
            return Ok(());
        }
        if self.lower.is_empty() {
            return Err(Error::option("lowerdir=... is missing"));
        }
        if self.lower.len() + self.data.len() > 500 {
            return Err(Error::option("more than 500 lower layers"));
        }
        // Where nothing is renamed, following is all there is to it.
        let follows = self.upper.is_none() && self.redirects == Redirects::Follow;
        let redirects = self.redirects == Redirects::On || follows;
        if self.metacopy && (!redirects || self.userxattr) {
            // The kernel refuses both, and what is written here is for it to read as well.
            return Err(Error::option("metacopy=on needs redirect_dir=on, and no userxattr"));
        }
        if self.xattr_permissions.is_some() && self.upper.is_none() {
            return Err(Error::option("xattr_permissions needs upperdir=..."));
        }
        if self.upper.is_some() && self.work.is_none() {
            return Err(Error::option("upperdir needs workdir=... on the same file system"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
