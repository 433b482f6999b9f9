//! What is written into the files of a group.

use std::os::fd::AsFd;

use layerd_api::types::ContainerSpec;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::tree::Version;
use crate::error::{Error, Result};

/// The period that CPU quotas are given for, in microseconds; the kernel's default.
const PERIOD: u64 = 100_000;
/// The smallest quota that the kernel takes, in microseconds.
const MIN_QUOTA: u64 = 1_000;
/// What `memory.limit_in_bytes` is rounded down to is a page; less than this starts nothing.
const MIN_MEMORY: u64 = 6 << 20;

/// Devices that a container may use, as in Docker: making nodes of any kind (`m`) is harmless, and
/// those that can be opened are null, zero, full, random, urandom, tty, console, ptmx, all
/// pseudo-terminals and tun.
const DEVICES: &[&str] = &[
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:200 rwm",
];

/// One limit: the same intent in the words of both versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// What the user asked to limit.
    pub(super) resource: &'static str,
    /// The controller that does it.
    pub(super) controller: &'static str,
    v1: Vec<Setting>,
    v2: Vec<Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    file: &'static str,
    value: String,
    /// Whether kernels may be built without this file (accounting of swap).
    optional: bool,
}

fn must(file: &'static str, value: impl ToString) -> Setting {
    Setting { file, value: value.to_string(), optional: false }
}

fn may(file: &'static str, value: impl ToString) -> Setting {
    Setting { file, value: value.to_string(), optional: true }
}

/// The limits that a container asks for.
///
/// # Errors
///
/// [`Error::Invalid`] for one that the kernel would not take.
pub(super) fn of(spec: &ContainerSpec) -> Result<Vec<Limit>> {
    let memory = spec.memory.map(memory).transpose()?;
    let cpus = spec.milli_cpus.map(cpus).transpose()?;
    Ok(memory.into_iter().chain(cpus).chain(spec.pids_limit.map(pids)).collect())
}

/// Swap is limited too, to as much again, as docker does.
fn memory(bytes: u64) -> Result<Limit> {
    if bytes < MIN_MEMORY {
        return Err(Error::invalid("memory", bytes.to_string(), "the minimum is 6 MiB"));
    }
    Ok(Limit {
        resource: "memory",
        controller: "memory",
        v1: vec![
            must("memory.limit_in_bytes", bytes),
            may("memory.memsw.limit_in_bytes", bytes.saturating_mul(2)),
        ],
        v2: vec![must("memory.max", bytes), may("memory.swap.max", bytes)],
    })
}

fn cpus(milli: u64) -> Result<Limit> {
    let quota = milli.saturating_mul(PERIOD / 1000);
    if quota < MIN_QUOTA {
        return Err(Error::invalid("cpus", format!("{milli}/1000"), "the minimum is 0.01"));
    }
    Ok(Limit {
        resource: "cpus",
        controller: "cpu",
        v1: vec![must("cpu.cfs_period_us", PERIOD), must("cpu.cfs_quota_us", quota)],
        v2: vec![must("cpu.max", format!("{quota} {PERIOD}"))],
    })
}

/// Zero and less are no limit, as docker has it.
fn pids(limit: i64) -> Limit {
    let value = if limit > 0 { limit.to_string() } else { "max".to_owned() };
    Limit {
        resource: "pids",
        controller: "pids",
        v1: vec![must("pids.max", &value)],
        v2: vec![must("pids.max", &value)],
    }
}

impl Limit {
    pub(super) fn apply(&self, version: Version, dir: impl AsFd) -> Result<()> {
        let settings = match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        };
        for setting in settings {
            match write(&dir, setting.file, &setting.value) {
                Ok(()) => {}
                Err(Errno::NOENT) if setting.optional => {}
                Err(errno) => {
                    let reason = format!("write {} to {}: {errno}", setting.value, setting.file);
                    return Err(Error::NoLimit { resource: self.resource, reason });
                }
            }
        }
        Ok(())
    }
}

/// Lets processes of a v1 group open the usual devices and no others.
pub(super) fn guard_devices(dir: impl AsFd) -> Result<()> {
    let failed =
        |file: &'static str| move |errno| Error::io("write devices control group", file)(errno);
    write(&dir, "devices.deny", "a").map_err(failed("devices.deny"))?;
    DEVICES
        .iter()
        .try_for_each(|device| write(&dir, "devices.allow", device))
        .map_err(failed("devices.allow"))
}

/// Gives a new cpuset the CPUs and memory nodes of the one above it.
pub(super) fn inherit_cpuset(parent: impl AsFd, dir: impl AsFd) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let failed = |errno| Error::io("fill control group", file)(errno);
        if read(&dir, file).map_err(failed)?.trim().is_empty() {
            let value = read(&parent, file).map_err(failed)?;
            write(&dir, file, value.trim()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Hands controllers down to the groups below a v2 group, as far as it goes: a limit that then
/// lacks its controller fails with its file's name.
pub(super) fn delegate(dir: impl AsFd, controllers: &[String]) {
    let wanted = ["cpu", "cpuset", "memory", "pids"];
    for controller in controllers.iter().filter(|name| wanted.contains(&name.as_str())) {
        let _ = write(&dir, "cgroup.subtree_control", &format!("+{controller}"));
    }
}

pub(super) fn write(dir: impl AsFd, file: &str, value: &str) -> Result<(), Errno> {
    let file = openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

pub(super) fn read(dir: impl AsFd, file: &str) -> Result<String, Errno> {
    let file = openat(dir, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(&file, &mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            length => text.extend_from_slice(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    fn limits_are_said_in_both_languages() {
        let spec = ContainerSpec {
            memory: Some(64 << 20),
            milli_cpus: Some(1500),
            pids_limit: Some(20),
            ..ContainerSpec::default()
        };
        let limits = of(&spec).expect("fine limits");
        let said: Vec<_> =
            limits.iter().map(|l| (l.controller, files(&l.v1), files(&l.v2))).collect();
        let text =
            |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).to_owned()).collect() };
        assert_eq!(
            said,
            [
                (
                    "memory",
                    text(&[
                        "memory.limit_in_bytes=67108864",
                        "memory.memsw.limit_in_bytes=134217728"
                    ]),
                    text(&["memory.max=67108864", "memory.swap.max=67108864"]),
                ),
                (
                    "cpu",
                    text(&["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"]),
                    text(&["cpu.max=150000 100000"]),
                ),
                ("pids", text(&["pids.max=20"]), text(&["pids.max=20"])),
            ],
            "files and values"
        );
    }

    #[test]
    fn absent_limits_need_no_controller() {
        assert!(of(&ContainerSpec::default()).expect("nothing").is_empty(), "nothing asked for");
    }

    #[test]
    fn unlimited_pids_are_said_so() {
        for limit in [0, -1] {
            assert_eq!(files(&pids(limit).v1), ["pids.max=max"], "{limit} is no limit");
        }
    }

    #[test]
    fn limits_that_the_kernel_refuses_are_refused_first() {
        let too_little = ContainerSpec { memory: Some(4096), ..ContainerSpec::default() };
        let error = of(&too_little).expect_err("4 KiB of memory").to_string();
        assert!(error.contains("minimum is 6 MiB"), "{error}");
        let too_slow = ContainerSpec { milli_cpus: Some(9), ..ContainerSpec::default() };
        let error = of(&too_slow).expect_err("a hundredth of a CPU").to_string();
        assert!(error.contains("minimum is 0.01"), "{error}");
    }
}
