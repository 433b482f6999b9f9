//! Which hierarchies there are, and where this process is in them.

use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FsWord, statfs};

use crate::error::{Error, Result};

/// Controllers of v1 that a container gets a group of: what limits it, what guards devices, what
/// can freeze it, and what language runtimes insist on seeing before they believe a limit (Java
/// wants cpu, cpuacct, cpuset and memory). Every further one costs time at each start.
const WANTED: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer"];
/// `CGROUP2_SUPER_MAGIC`, statfs(2).
const CGROUP2_MAGIC: FsWord = 0x6367_7270;
/// `TMPFS_MAGIC`, statfs(2).
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// The two interfaces of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy a controller (or a few), cgroups(7).
    V1,
    /// One hierarchy for all.
    V2,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its interface.
    pub version: Version,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its controllers.
    pub controllers: Vec<String>,
    /// This process's group, relative to the mount point; empty at the top.
    own: PathBuf,
}

impl Hierarchy {
    /// Whether it has a controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// The mount point's last component, such as `cpu,cpuacct`.
    pub fn name(&self) -> &str {
        self.mount_point.file_name().and_then(|name| name.to_str()).unwrap_or("cgroup")
    }

    /// All names that programs look for it by: its own, then its controllers'.
    pub fn names(&self) -> Vec<String> {
        let own = self.name().to_owned();
        let others: Vec<_> =
            self.controllers.iter().filter(|name| **name != own).cloned().collect();
        std::iter::once(own).chain(others).collect()
    }

    /// This process's group as a path below the mount point.
    pub fn own_group(&self) -> &Path {
        if self.own.as_os_str().is_empty() { Path::new(".") } else { &self.own }
    }
}

/// The hierarchies to make groups in: all useful ones of v1, or else that of v2. Where both are
/// mounted ("hybrid"), v2 has no controllers.
///
/// # Errors
///
/// [`Error::Io`] if `/proc` cannot be read.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mut found = parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
    for hierarchy in found.iter_mut().filter(|found| found.version == Version::V2) {
        let file = hierarchy.mount_point.join("cgroup.controllers");
        let text = fs::read_to_string(file).unwrap_or_default();
        hierarchy.controllers = text.split_whitespace().map(str::to_owned).collect();
    }
    Ok(found)
}

/// Reads one of `/proc`'s files: a mount point may have any bytes in its name.
fn read(path: &str) -> Result<String> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Every mount point of control groups, deepest last.
///
/// # Errors
///
/// [`Error::Io`] if `/proc` cannot be read.
pub(super) fn mount_points() -> Result<Vec<PathBuf>> {
    let path = "/proc/self/mountinfo";
    let text = read(path)?;
    let groups = text.lines().filter_map(MountLine::parse).filter(|line| line.is_cgroup());
    Ok(groups.map(|line| line.point).collect())
}

/// Whether a path is where control groups are gathered: a `tmpfs` of v1 or a v2 mount, and not the
/// empty directory that sysfs has there.
pub(super) fn is_cgroup_root(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| matches!(stat.f_type, CGROUP2_MAGIC | TMPFS_MAGIC))
}

/// The pure half of [`hierarchies`]: over the text of `mountinfo` and `cgroup` of `/proc/self`.
fn parse(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let lines: Vec<_> = mountinfo.lines().filter_map(MountLine::parse).collect();
    let mut v1: Vec<Hierarchy> = Vec::new();
    for line in lines.iter().filter(|line| line.fstype == "cgroup") {
        let wanted = line.options.split(',').filter(|option| WANTED.contains(option));
        let controllers: Vec<_> = wanted.map(str::to_owned).collect();
        // A hierarchy may be mounted twice, as in a container that shows it to its own.
        let known = |name: &String| v1.iter().any(|other| other.has(name));
        if controllers.is_empty() || controllers.iter().any(known) {
            continue;
        }
        let group = own.lines().find_map(|own| own_group(own, Some(&controllers[0])));
        let Some(own) = group.and_then(|group| line.relative(group)) else { continue };
        v1.push(Hierarchy {
            version: Version::V1,
            mount_point: line.point.clone(),
            controllers,
            own,
        });
    }
    if !v1.is_empty() {
        return v1;
    }
    let unified = lines.iter().find(|line| line.fstype == "cgroup2");
    let group = own.lines().find_map(|own| own_group(own, None));
    let v2 = unified.zip(group).and_then(|(line, group)| {
        Some(Hierarchy {
            version: Version::V2,
            mount_point: line.point.clone(),
            controllers: Vec::new(),
            own: line.relative(group)?,
        })
    });
    v2.into_iter().collect()
}

/// The path in a line of `/proc/self/cgroup` (`id:controllers:path`) for a controller, or of v2.
fn own_group<'a>(line: &'a str, controller: Option<&str>) -> Option<&'a str> {
    let mut fields = line.splitn(3, ':');
    let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let found = match controller {
        Some(name) => controllers.split(',').any(|other| other == name),
        None => id == "0" && controllers.is_empty(),
    };
    found.then_some(path)
}

/// One line of proc_pid_mountinfo(5).
struct MountLine<'a> {
    root: &'a str,
    point: PathBuf,
    fstype: &'a str,
    options: &'a str,
}

impl<'a> MountLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (fstype, options) = (right.next()?, right.nth(1)?);
        // Octal escapes stand for blanks; no control group is mounted below a name with one.
        Some(Self { root, point: PathBuf::from(point), fstype, options })
    }

    fn is_cgroup(&self) -> bool {
        matches!(self.fstype, "cgroup" | "cgroup2")
    }

    /// A group's path below the mount point; none if the mount does not show it.
    fn relative(&self, group: &str) -> Option<PathBuf> {
        let below = Path::new(group).strip_prefix(self.root).ok()?;
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        plain.then(|| below.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, point: &str, fstype: &str, options: &str) -> String {
        format!("30 25 0:26 {root} {point} rw,relatime shared:5 - {fstype} none {options}\n")
    }

    #[test]
    fn hybrid_machines_are_run_by_v1() {
        let mounts = [
            mount("/", "/sys/fs/cgroup", "tmpfs", "rw,mode=755"),
            mount("/", "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            mount("/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
            mount("/", "/sys/fs/cgroup/systemd", "cgroup", "rw,name=systemd"),
            mount("/", "/sys/fs/cgroup/blkio", "cgroup", "rw,blkio"),
            mount("/", "/sys/fs/cgroup/unified", "cgroup2", "rw"),
            mount("/", "/mnt/again", "cgroup", "rw,memory"),
        ];
        let own = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n";
        let found = parse(&mounts.concat(), own);
        let names: Vec<_> = found.iter().map(Hierarchy::name).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory"], "useful ones, each once");
        assert_eq!(found[0].own_group(), Path::new("."), "at the top");
        assert_eq!(found[1].own_group(), Path::new("a/b"), "below it");
        assert_eq!(found[0].names(), ["cpu,cpuacct", "cpu", "cpuacct"], "with both its names");
    }

    #[test]
    fn unified_machines_are_run_by_v2() {
        let mounts = mount("/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate");
        let found = parse(&mounts, "0::/user.slice/session\n");
        assert_eq!(found.len(), 1, "one hierarchy");
        assert_eq!(found[0].version, Version::V2, "of version 2");
        assert_eq!(found[0].own_group(), Path::new("user.slice/session"), "own group");
    }

    #[test]
    fn inside_a_container_the_mount_root_is_taken_off() {
        let mounts = mount("/docker/abc", "/sys/fs/cgroup/pids", "cgroup", "rw,pids");
        let found = parse(&mounts, "8:pids:/docker/abc/x\n");
        assert_eq!(found[0].own_group(), Path::new("x"), "relative to what is mounted");
        let found = parse(&mounts, "8:pids:/elsewhere\n");
        assert!(found.is_empty(), "a group that the mount does not show cannot be gone back to");
    }

    #[test]
    fn machines_without_control_groups_have_none() {
        for (mounts, own) in [("", ""), ("garbage", "garbage"), ("1 2 3", "0::/")] {
            assert!(parse(mounts, own).is_empty(), "{mounts:?} {own:?}");
        }
        let outside = mount("/", "/sys/fs/cgroup", "cgroup2", "rw");
        assert!(parse(&outside, "0::/../../outside\n").is_empty(), "a group outside the namespace");
    }
}
