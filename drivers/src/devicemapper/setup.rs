//! Where the pool comes from: given, made by LVM of raw devices, or files on loop devices.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use cow::error::{Error, ErrorKind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::dm::Dm;
use super::loops;
use super::lvm::Lvm;
use super::options::{Options, Source};
use super::tool;
use crate::home::fs;

/// The name of the file that says which devices are being made into a pool.
const INTENT: &str = "setup.json";
/// The longest of it that is read.
const MAX_INTENT: u64 = 64 << 10;

/// Where a pool comes from, as the home remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Setup {
    /// A pool that somebody else has made.
    Given {
        /// Its node.
        pool: PathBuf,
    },
    /// LVM's pool of raw devices.
    DirectLvm {
        /// Its names.
        lvm: Lvm,
        /// The devices that it was made of, and those added.
        devices: Vec<PathBuf>,
    },
    /// Files in the home.
    Loop {
        /// The name of the pool's device.
        name: String,
        /// The size of a block in bytes.
        block_size: u64,
    },
}

/// The devices that a set-up has begun with.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Intent {
    vg: String,
    devices: Vec<PathBuf>,
}

impl Setup {
    /// Makes or finds the pool that the options ask for.
    pub(super) fn make(dm: &Dm, home: BorrowedFd<'_>, options: &Options) -> Result<Self> {
        match &options.source {
            Source::Pool(pool) => Ok(Self::Given { pool: pool.clone() }),
            Source::DirectLvm(devices) => direct_lvm(home, devices, options),
            Source::Unsaid => Err(none()),
            Source::Loop => {
                tracing::warn!(
                    "devicemapper: usage of loopback devices is strongly discouraged for \
                     production use; give dm.directlvm_device or dm.thinpooldev"
                );
                loops::make(home, options)
            }
        }
        .inspect(|_| tracing::debug!(version = dm.version(), "device mapper"))
    }

    /// Sees that the options do not ask for another pool than the home has.
    pub(super) fn compare(&self, options: &Options) -> Result<()> {
        let other = |asked: String| {
            let reason = format!("the home has its pool already, {self}; it cannot be {asked}");
            Err(Error::invalid("open pool", "", reason))
        };
        match (self, &options.source) {
            (_, Source::Unsaid) | (Self::Loop { .. }, Source::Loop) => Ok(()),
            (_, Source::Loop) => other("files".to_owned()),
            (Self::Given { pool }, Source::Pool(asked)) if pool == asked => Ok(()),
            (Self::DirectLvm { devices, .. }, Source::DirectLvm(asked)) => {
                match asked.iter().find(|device| !devices.contains(device)) {
                    None => Ok(()),
                    Some(new) => {
                        let new = new.display();
                        let reason = format!(
                            "{new} is not part of the pool yet: layerctl pool add-device {new}"
                        );
                        Err(Error::invalid("open pool", "", reason))
                    }
                }
            }
            (_, Source::Pool(asked)) => other(asked.display().to_string()),
            (_, Source::DirectLvm(asked)) => other(format!("made of {asked:?}")),
        }
    }

    /// Sees that the pool's device is there, as large as the options say, and gives its name.
    pub(super) fn activate(
        &self,
        dm: &Dm,
        home: BorrowedFd<'_>,
        path: &Path,
        options: &Options,
    ) -> Result<String> {
        match self {
            Self::Given { pool } => dm.name_of(pool),
            Self::DirectLvm { lvm, .. } => {
                let name = lvm.device_name();
                if dm.info(&name)?.is_none() {
                    lvm.activate()?;
                }
                Ok(name)
            }
            Self::Loop { name, block_size } => {
                let grown = loops::grow(home, options)?;
                if dm.info(name)?.is_none() {
                    loops::activate(dm, home, path, name, *block_size)?;
                } else if grown {
                    loops::enlarge(dm, home, path, name, *block_size)?;
                }
                Ok(name.clone())
            }
        }
    }

    /// LVM's names of the pool, where LVM has it.
    pub(super) fn lvm(&self, dm: &Dm, device: &str) -> Option<Lvm> {
        match self {
            Self::Given { .. } if !dm.is_lvm(device).unwrap_or(false) => None,
            Self::Given { .. } => Lvm::of_device(device),
            Self::DirectLvm { lvm, .. } => Some(lvm.clone()),
            Self::Loop { .. } => None,
        }
    }

    /// Gives back what an open pool of loop devices holds, if nobody uses it.
    pub(super) fn release(&self, dm: &Dm, path: &Path) {
        let Self::Loop { name, .. } = self else { return };
        if dm.remove(name, false).is_ok() {
            loops::detach(path);
        }
    }
}

impl std::fmt::Display for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given { pool } => write!(f, "{}", pool.display()),
            Self::DirectLvm { lvm, devices } => {
                let devices: Vec<_> = devices.iter().map(|d| d.display().to_string()).collect();
                write!(f, "volume group {} on {}", lvm.vg, devices.join(", "))
            }
            Self::Loop { .. } => f.write_str("files on loop devices"),
        }
    }
}

/// Says what a pool can be made from.
pub(super) fn none() -> Error {
    let reason = "no pool: give dm.directlvm_device=DEVICE[,DEVICE...] (empty disks), \
                  dm.thinpooldev=POOL (one that exists) or dm.loopdatasize=SIZE (files, for trying \
                  out)";
    Error::invalid("set up pool", "", reason)
}

/// Makes raw devices into a pool. A crash leaves the intent, with which the next start goes on.
fn direct_lvm(home: BorrowedFd<'_>, devices: &[PathBuf], options: &Options) -> Result<Setup> {
    let lvm = Lvm::own(&options.vg_name);
    let intent = Intent { vg: options.vg_name.clone(), devices: devices.to_vec() };
    let bytes = serde_json::to_vec(&intent)
        .map_err(|error| Error::invalid("write", INTENT, error.to_string()))?;
    let begun = fs::read_file(home, INTENT, MAX_INTENT).is_ok_and(|there| there == bytes);
    if !begun {
        for device in devices {
            check_empty(device, options.force)?;
        }
        if lvm.group().is_ok() {
            let reason = format!(
                "a volume group {} exists already: name its pool by dm.thinpooldev, or give \
                 another name by dm.vgname",
                lvm.vg
            );
            return Err(Error::refused("set up pool", &lvm.vg, reason, ErrorKind::AlreadyExists));
        }
        fs::replace_file(home, INTENT, &bytes)?;
    }
    super::crash::point("setup begun");
    // What was forced has been wiped by the start that began.
    lvm.make(devices, &Options { force: options.force && !begun, ..options.clone() })?;
    Ok(Setup::DirectLvm { lvm, devices: devices.to_vec() })
}

/// Ends a set-up: the pool's own file has taken the intent's place.
pub(super) fn finished(home: BorrowedFd<'_>) {
    let _ = rustix::fs::unlinkat(home, INTENT, rustix::fs::AtFlags::empty());
}

/// Sees that a device is a whole, unused disk with nothing on it.
///
/// # Errors
/// `InvalidArgument` with what is there, `InUse` for a disk that is mounted or part of something.
pub(super) fn check_empty(device: &Path, force: bool) -> Result<()> {
    let stat = rustix::fs::stat(device).map_err(|errno| Error::sys("stat", device, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(Error::invalid("check device", device, "not a block device"));
    }
    // Only one can have a block device exclusively: a mount, LVM, RAID, or this look at it.
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, device, flags, Mode::empty()) {
        Ok(_) => {}
        Err(rustix::io::Errno::BUSY) => {
            let reason = "the device is in use: mounted, or part of a volume group or a RAID";
            return Err(Error::refused("check device", device, reason, ErrorKind::InUse));
        }
        Err(errno) => return Err(Error::sys("open", device, errno)),
    }
    let words = ["--probe", "--output", "export"].map(AsRef::as_ref);
    let ran = tool::run_any("blkid", &[&words[..], &[device.as_os_str()]].concat())?;
    match ran.code {
        Some(2) => Ok(()),
        Some(0 | 8) if force => Ok(()),
        Some(0 | 8) => {
            let found: Vec<_> = ran
                .stdout
                .lines()
                .filter(|line| {
                    ["TYPE=", "PTTYPE=", "LABEL="].iter().any(|key| line.starts_with(key))
                })
                .collect();
            let reason = format!(
                "the device is not empty: {}; to lose that, give dm.directlvm_device_force=true",
                if found.is_empty() { "several signatures".to_owned() } else { found.join(" ") }
            );
            Err(Error::invalid("check device", device, reason))
        }
        _ => Err(ran.failure()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::HomeCall;

    fn options(list: &[&str]) -> Options {
        let call = HomeCall { driver: super::super::NAME, op: "open" };
        Options::parse(call, list).unwrap()
    }

    #[test]
    fn a_home_keeps_its_pool() {
        let lvm = Lvm::own("layerd");
        let direct = Setup::DirectLvm { lvm, devices: vec!["/dev/a".into(), "/dev/b".into()] };
        let given = Setup::Given { pool: "/dev/mapper/p".into() };
        let cases: [(&Setup, &[&str], Option<&str>); 6] = [
            (&direct, &[], None),
            (&direct, &["dm.directlvm_device=/dev/b,/dev/a"], None),
            (&direct, &["dm.directlvm_device=/dev/a,/dev/c"], Some("add-device /dev/c")),
            (&direct, &["dm.thinpooldev=p"], Some("volume group layerd on /dev/a, /dev/b")),
            (&given, &["dm.thinpooldev=p"], None),
            (&given, &["dm.thinpooldev=q"], Some("/dev/mapper/p")),
        ];
        for (setup, list, refusal) in cases {
            let got = setup.compare(&options(list)).err().map(|error| error.to_string());
            assert_eq!(got.is_some(), refusal.is_some(), "{list:?}: {got:?}");
            let said = got.unwrap_or_default();
            assert!(said.contains(refusal.unwrap_or_default()), "{list:?}: {said}");
        }
    }

    #[test]
    fn only_a_block_device_is_taken() {
        for path in ["/dev/null", "/dev", "/no/such/device"] {
            assert!(check_empty(Path::new(path), true).is_err(), "{path}");
        }
    }

    #[test]
    fn setups_are_read_as_they_were_written() {
        let setup = Setup::Loop { name: "x".to_owned(), block_size: 65_536 };
        let text = serde_json::to_string(&setup).unwrap();
        assert_eq!(serde_json::from_str::<Setup>(&text).unwrap(), setup, "{text}");
        assert!(text.contains("\"kind\":\"loop\""), "{text}");
    }
}
