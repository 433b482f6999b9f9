//! From a container's description to an OCI runtime description: pure, no system call.
//!
//! The defaults are Docker's: its capabilities, masked and read-only paths, `/dev`, `/proc` and
//! `/sys`, environment and host name. Two are stricter: `no_new_privileges` is always on (set-uid
//! programs gain nothing), and where no control group guards device nodes, `CAP_MKNOD` is withheld.

mod mounts;
mod process;
mod volume;

use std::path::{Path, PathBuf};

use layerd_api::types::Container;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, RootBuilder,
    Spec, SpecBuilder,
};

use crate::cgroup::View;
use crate::error::{Error, Result};
use crate::user::Identity;
pub use process::{CAPABILITIES, DEFAULT_PATH, working_dir};
pub use volume::Volume;

/// How many digits of an id are its short form.
const SHORT_ID: usize = 12;
/// What a container must not read: information about, or a way into, the host.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What a container must not write: settings of the host.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Whether a container has a network of its own, which is empty, or the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A new namespace with nothing but loopback.
    None,
    /// The host's namespace.
    Host,
}

impl Network {
    /// Reads [`layerd_api::types::ContainerSpec::network`]; empty is none.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for anything else.
    pub fn of(container: &Container) -> Result<Self> {
        match container.spec.network.as_str() {
            "" | "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            other => Err(Error::invalid("network", other, "must be none or host")),
        }
    }
}

/// What the container sees of control groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CgroupView {
    /// Nothing: the machine offers none.
    #[default]
    Nothing,
    /// One unified hierarchy.
    Unified,
    /// Groups of v1, to be bound.
    Bound(Vec<View>),
}

/// What has to be known of the machine and of the mounted root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where the root file system is mounted.
    pub rootfs: PathBuf,
    /// Who the process is.
    pub identity: Identity,
    /// Files that take the place of files of the image: source and path in the container.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// The container's view of control groups.
    pub cgroups: CgroupView,
    /// Whether a control group keeps the container from opening foreign device nodes.
    pub guards_devices: bool,
    /// Whether this kernel has cgroup namespaces.
    pub cgroup_namespace: bool,
}

/// The container's host name: its own, or the short id; the host's with the host's network.
pub fn hostname(container: &Container) -> &str {
    match container.spec.hostname.as_str() {
        "" => container.id.get(..SHORT_ID).unwrap_or(&container.id),
        name => name,
    }
}

/// Builds the description. It names no system-call filter and no limits: the
/// [executor](crate::executor) installs the one, [`crate::cgroup`] sets the others.
///
/// # Errors
///
/// [`Error::Invalid`] for a field of the container that cannot be honoured.
pub fn build(container: &Container, facts: &Facts) -> Result<Spec> {
    let root = RootBuilder::default()
        .path(facts.rootfs.clone())
        .readonly(container.spec.read_only)
        .build()?;
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .hostname(hostname(container))
        .process(process::build(container, facts)?)
        .mounts(mounts::build(container, facts)?)
        .linux(linux(container, facts)?)
        .build()?;
    // The builder's defaults for what is absent are not nothing.
    spec.set_hooks(None).set_domainname(None).set_annotations(None);
    Ok(spec)
}

fn linux(container: &Container, facts: &Facts) -> Result<Linux> {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(facts)?)
        .cgroups_path(Path::new("/layerd").join(&container.id))
        .masked_paths(owned(MASKED))
        .readonly_paths(owned(READ_ONLY))
        .rootfs_propagation("private")
        .build()?;
    linux.set_resources(None).set_seccomp(None).set_devices(None);
    Ok(linux)
}

/// The network is not among them: the runtime has entered the container's by itself.
fn namespaces(facts: &Facts) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as Type;
    let mut types = vec![Type::Pid, Type::Mount, Type::Ipc, Type::Uts];
    if facts.cgroup_namespace {
        types.push(Type::Cgroup);
    }
    let namespaces = types.into_iter().map(|typ| LinuxNamespaceBuilder::default().typ(typ).build());
    Ok(namespaces.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
