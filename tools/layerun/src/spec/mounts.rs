//! What is mounted in the container, in order.

use std::path::Path;

use layerd_api::types::Container;
use oci_spec::runtime::{Mount, MountBuilder};

use super::{CgroupView, Facts, Volume};
use crate::cgroup::View;
use crate::error::Result;

/// Where the container finds its control groups.
const CGROUP: &str = "/sys/fs/cgroup";

pub(super) fn build(container: &Container, facts: &Facts) -> Result<Vec<Mount>> {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
        )?,
    ];
    cgroups(&facts.cgroups, &mut mounts)?;
    let mut later = Vec::new();
    for (source, destination) in &facts.files {
        later.push(bind(source, destination, container.spec.read_only)?);
    }
    for volume in &container.spec.volumes {
        let volume = Volume::parse(volume)?;
        later.push(bind(&volume.source, &volume.destination, volume.read_only)?);
    }
    // A mount hides what is mounted below it, so the shallow ones come first.
    later.sort_by_key(|mount| mount.destination().components().count());
    mounts.append(&mut later);
    Ok(mounts)
}

fn cgroups(view: &CgroupView, mounts: &mut Vec<Mount>) -> Result<()> {
    let flags = ["nosuid", "noexec", "nodev", "ro"];
    match view {
        CgroupView::Nothing => {}
        CgroupView::Unified => mounts.push(mount(CGROUP, "cgroup2", "cgroup", &flags)?),
        CgroupView::Bound(views) => {
            let options = ["nosuid", "noexec", "nodev", "mode=755", "size=64k"];
            mounts.push(mount(CGROUP, "tmpfs", "tmpfs", &options)?);
            for View { source, names } in views {
                for name in names {
                    let mut options = vec!["bind"];
                    options.extend(flags);
                    let destination = Path::new(CGROUP).join(name);
                    mounts.push(any(&destination, "bind", source, &options)?);
                }
            }
        }
    }
    Ok(())
}

fn bind(source: &Path, destination: &Path, read_only: bool) -> Result<Mount> {
    let mut options = vec!["rbind", "rprivate"];
    if read_only {
        // "ro" is for the mount itself, "rro" for those that come along with it.
        options.extend(["ro", "rro"]);
    }
    any(destination, "bind", source, &options)
}

fn mount(destination: &str, fstype: &str, source: &str, options: &[&str]) -> Result<Mount> {
    any(Path::new(destination), fstype, Path::new(source), options)
}

fn any(destination: &Path, fstype: &str, source: &Path, options: &[&str]) -> Result<Mount> {
    let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
    let mount = MountBuilder::default()
        .destination(destination)
        .typ(fstype)
        .source(source)
        .options(options)
        .build()?;
    Ok(mount)
}
