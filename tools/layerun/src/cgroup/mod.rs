//! Control groups: `/layerd/<id>` in every hierarchy that matters, on cgroup v1, v2 and both.
//!
//! Starting a container is mostly waiting for control groups if one is not careful: writing a pid
//! to `cgroup.procs` takes a lock over all forks and exits of the machine, and taking it waits for
//! an RCU grace period, some 15 ms. A single-threaded process that moves *itself* by writing `0` to
//! a v1 `tasks` file needs no such lock. So the runtime steps into the new groups before it forks
//! the container and out again afterwards; limits are set while the container waits to be started.
//! (cgroup v2 has no such way for a process; there the wait is paid.)
//!
//! The container library would write pids to `cgroup.procs` regardless, so the runtime's mount
//! namespace [hides](Cgroup::hide) the hierarchies from it; everything here goes through directory
//! fds that were opened before.
//!
//! A machine without writable control groups runs containers too, as long as no limit is asked for.

mod limits;
mod tree;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerd_api::types::ContainerSpec;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::dirs::RuntimeDir;
use crate::error::{Error, Result};
pub use tree::{Hierarchy, Version, hierarchies};

/// The group that holds those of the containers. It stays, like docker's.
const PARENT: &str = "layerd";
/// Where control groups are mounted.
const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// How long a group may stay busy after the container's last process has ended.
const REMOVE_TRIES: u32 = 200;

/// One container's group in one hierarchy.
#[derive(Debug)]
struct Group {
    hierarchy: Hierarchy,
    parent: OwnedFd,
    dir: OwnedFd,
    /// The runtime's own group, where it goes back to.
    home: OwnedFd,
}

/// A container's control groups; removed when dropped.
#[derive(Debug)]
pub struct Cgroup {
    id: String,
    groups: Vec<Group>,
    /// Why there is no group in a hierarchy.
    refused: Vec<String>,
    joined: bool,
}

/// A control group that the container is to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where it can be bound from.
    pub source: PathBuf,
    /// Names in the container's `/sys/fs/cgroup`: the hierarchy's own first.
    pub names: Vec<String>,
}

impl Cgroup {
    /// Makes `/layerd/<id>` in all hierarchies that can be written, in place of leftovers.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the hierarchies cannot be listed. That a group cannot be made is no error
    /// until [`Cgroup::limit`] needs it.
    pub fn create(id: &str) -> Result<Self> {
        let mut cgroup =
            Self { id: id.to_owned(), groups: Vec::new(), refused: Vec::new(), joined: false };
        for hierarchy in hierarchies()? {
            match Group::create(hierarchy, id) {
                Ok(group) => cgroup.groups.push(group),
                Err(error) => cgroup.refused.push(error.to_string()),
            }
        }
        Ok(cgroup)
    }

    /// Removes the groups of a container whose runtime was killed, and kills what runs in them.
    ///
    /// # Errors
    ///
    /// As [`Cgroup::create`] and [`Cgroup::remove`].
    pub fn remove_stale(id: &str) -> Result<()> {
        Self::create(id)?.remove()
    }

    /// Whether device nodes are guarded: only cgroup v1 can do that without loading programs into
    /// the kernel. Without it, containers must not make device nodes at all.
    pub fn guards_devices(&self) -> bool {
        self.groups.iter().any(|group| group.hierarchy.has("devices"))
    }

    /// Whether the container sees a unified hierarchy, to be mounted as `cgroup2`.
    pub fn is_unified(&self) -> bool {
        self.groups.iter().any(|group| group.hierarchy.version == Version::V2)
    }

    /// Binds the groups that the container is to see on the stage, then takes all hierarchies
    /// out of this mount namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Mount`].
    pub fn hide(&self, dir: &RuntimeDir) -> Result<Vec<View>> {
        let elsewhere = tree::mount_points()?;
        let mut views = Vec::new();
        for group in self.groups.iter().filter(|group| group.hierarchy.version == Version::V1) {
            // A name that is no controller's: the container library looks for those.
            let source = dir.subdir(&format!("cgroup/{}", views.len()))?;
            let failed = |error: cow_sys::mount::MountError| Error::Mount {
                fstype: "bind".to_owned(),
                origin: group.hierarchy.name().to_owned(),
                target: source.clone(),
                reason: error.to_string(),
            };
            let bound = cow_sys::mount::bind(&group.dir, Path::new(""), false).map_err(failed)?;
            let target = open_dir(CWD, &source).map_err(Error::io("open", &source))?;
            cow_sys::mount::attach(bound, target).map_err(failed)?;
            views.push(View { names: group.hierarchy.names(), source });
        }
        for point in elsewhere.iter().filter(|point| !point.starts_with(MOUNT_POINT)) {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
        if tree::is_cgroup_root(Path::new(MOUNT_POINT)) {
            unmount(MOUNT_POINT, UnmountFlags::DETACH).map_err(Error::io("hide", MOUNT_POINT))?;
        }
        mount("none", MOUNT_POINT, "tmpfs", MountFlags::RDONLY, c"size=4k")
            .map_err(Error::io("mount an empty tmpfs on", MOUNT_POINT))?;
        Ok(views)
    }

    /// Moves this process, which must have one thread only, into the groups.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] naming the group's file.
    pub fn join(&mut self) -> Result<()> {
        self.joined = true;
        self.groups.iter().try_for_each(|group| group.enter(&group.dir))
    }

    /// Moves this process back to where it was.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] naming the group's file.
    pub fn leave(&mut self) -> Result<()> {
        if self.joined {
            self.groups.iter().try_for_each(|group| group.enter(&group.home))?;
            self.joined = false;
        }
        Ok(())
    }

    /// Sets what the container may use, and which devices.
    ///
    /// # Errors
    ///
    /// [`Error::NoLimit`] if a limit is asked for and its controller is not to be had.
    pub fn limit(&self, spec: &ContainerSpec) -> Result<()> {
        for group in &self.groups {
            if group.hierarchy.version == Version::V1 && group.hierarchy.has("devices") {
                limits::guard_devices(&group.dir)?;
            }
        }
        for limit in limits::of(spec)? {
            let group = self.groups.iter().find(|group| group.hierarchy.has(limit.controller));
            let group = group.ok_or_else(|| Error::NoLimit {
                resource: limit.resource,
                reason: self.why_not(limit.controller),
            })?;
            limit.apply(group.hierarchy.version, &group.dir)?;
        }
        Ok(())
    }

    fn why_not(&self, controller: &str) -> String {
        let reason = format!("this machine offers no writable {controller} control group");
        // They are all refused for the same reason.
        match self.refused.first() {
            None => reason,
            Some(refused) => format!("{reason} ({refused})"),
        }
    }

    /// Removes the groups; processes that are still in them are killed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for the first group that stays.
    pub fn remove(mut self) -> Result<()> {
        self.remove_all()
    }

    fn remove_all(&mut self) -> Result<()> {
        let mut answer = self.leave();
        let id = self.id.clone();
        for group in self.groups.drain(..) {
            let removed = group.remove(&id);
            if answer.is_ok() {
                answer = removed;
            }
        }
        answer
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.remove_all();
    }
}

impl Group {
    fn create(hierarchy: Hierarchy, id: &str) -> Result<Self> {
        let point = hierarchy.mount_point.clone();
        let group = point.join(PARENT).join(id);
        let failed = |errno: Errno| Error::io("make control group", &group)(errno);
        let top = open_dir(CWD, &point).map_err(failed)?;
        let home = open_dir(&top, hierarchy.own_group()).map_err(failed)?;
        make(&top, PARENT).map_err(failed)?;
        let parent = open_dir(&top, PARENT).map_err(failed)?;
        match hierarchy.version {
            // A new cpuset has no CPUs, and nothing can be put into it.
            Version::V1 if hierarchy.has("cpuset") => limits::inherit_cpuset(&top, &parent)?,
            Version::V1 => {}
            Version::V2 => {
                limits::delegate(&top, &hierarchy.controllers);
                limits::delegate(&parent, &hierarchy.controllers);
            }
        }
        if !make(&parent, id).map_err(failed)? {
            // Of a run that was killed: its limits, and perhaps its processes, must not stay.
            let dir = open_dir(&parent, id).map_err(failed)?;
            Self { hierarchy: hierarchy.clone(), parent, dir, home }.remove(id)?;
            return Self::create(hierarchy, id);
        }
        let dir = open_dir(&parent, id).map_err(failed)?;
        if hierarchy.version == Version::V1 && hierarchy.has("cpuset") {
            limits::inherit_cpuset(&parent, &dir)?;
        }
        Ok(Self { hierarchy, parent, dir, home })
    }

    fn enter(&self, dir: &OwnedFd) -> Result<()> {
        let file = match self.hierarchy.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        };
        limits::write(dir, file, "0").map_err(|source| Error::Io {
            operation: "move into a control group of",
            path: self.hierarchy.mount_point.join(file),
            source: source.into(),
        })
    }

    fn remove(&self, id: &str) -> Result<()> {
        for attempt in 0..REMOVE_TRIES {
            match unlinkat(&self.parent, id, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(self.stays(id, errno)),
            }
            // The last process is out of its group a moment after it can be waited for.
            if attempt > 2 {
                self.kill();
                std::thread::sleep(Duration::from_millis(u64::from(attempt.min(10))));
            }
        }
        Err(self.stays(id, Errno::BUSY))
    }

    fn stays(&self, id: &str, errno: Errno) -> Error {
        let path = self.hierarchy.mount_point.join(PARENT).join(id);
        Error::io("remove control group", path)(errno)
    }

    fn kill(&self) {
        let text = limits::read(&self.dir, "cgroup.procs").unwrap_or_default();
        for pid in text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn open_dir<P: rustix::path::Arg>(dir: impl AsFd, path: P) -> Result<OwnedFd, Errno> {
    openat(dir, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes a group; false if it was there.
fn make(dir: impl AsFd, name: &str) -> Result<bool, Errno> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}
