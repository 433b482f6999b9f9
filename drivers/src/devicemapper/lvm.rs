//! A pool that LVM keeps: one volume group, in it one thin pool.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use cow::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::dm::SECTOR;
use super::options::Options;
use super::tool;

/// The name of the pool that is made.
const POOL: &str = "thinpool";

/// Where LVM keeps its configuration, unless the environment says otherwise.
const SYSTEM_DIR: &str = "/etc/lvm";

/// A pool by the names that LVM has for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lvm {
    pub(super) vg: String,
    pub(super) pool: String,
}

/// A volume group's space in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) extent: u64,
    pub(super) size: u64,
    pub(super) free: u64,
}

impl Lvm {
    /// The pool of a volume group that layerd has to itself.
    pub(super) fn own(vg: &str) -> Self {
        Self { vg: vg.to_owned(), pool: POOL.to_owned() }
    }

    /// The names of the pool behind a device of the device mapper; none when LVM does not know it.
    pub(super) fn of_device(name: &str) -> Option<Self> {
        let select = format!("lv_dm_path=/dev/mapper/{name}");
        let words = ["--noheadings", "-o", "vg_name,lv_name", "--select", &select];
        let text = run("lvs", words).ok()?;
        let mut words = text.split_whitespace();
        Some(Self { vg: words.next()?.to_owned(), pool: words.next()?.to_owned() })
    }

    /// The name of the pool's device: a hyphen in a name is doubled.
    pub(super) fn device_name(&self) -> String {
        let escape = |name: &str| name.replace('-', "--");
        format!("{}-{}", escape(&self.vg), escape(&self.pool))
    }

    fn path(&self) -> String {
        format!("{}/{}", self.vg, self.pool)
    }

    /// Whether LVM knows the volume group, and the pool in it.
    fn exists(&self) -> Result<(bool, bool)> {
        let names = run("vgs", ["--noheadings", "-o", "vg_name"])?;
        if !names.split_whitespace().any(|name| name == self.vg) {
            return Ok((false, false));
        }
        let pools = run("lvs", ["--noheadings", "-o", "lv_name", &self.vg])?;
        Ok((true, pools.split_whitespace().any(|name| name == self.pool)))
    }

    /// Makes the pool on raw devices. Each step that a start before this one has done is left as it
    /// is.
    pub(super) fn make(&self, devices: &[PathBuf], options: &Options) -> Result<()> {
        let (group, pool) = self.exists()?;
        for device in devices {
            self.make_physical(device, options.force)?;
            super::crash::point("physical volume made");
        }
        if !group {
            let mut words = vec![OsStr::new("--yes"), OsStr::new(&self.vg)];
            words.extend(devices.iter().map(|device| device.as_os_str()));
            run("vgcreate", words)?;
            super::crash::point("volume group made");
        }
        if !pool {
            self.make_pool(options)?;
            super::crash::point("pool made");
        }
        self.write_profile(options)
    }

    fn make_physical(&self, device: &Path, force: bool) -> Result<()> {
        let node = [OsStr::new("--noheadings"), OsStr::new("-o"), OsStr::new("pv_name")];
        if run("pvs", node.into_iter().chain([device.as_os_str()])).is_ok() && !force {
            return Ok(());
        }
        if force {
            tool::run("wipefs", &[OsStr::new("--all"), device.as_os_str()])?;
        }
        run("pvcreate", [OsStr::new("--yes"), device.as_os_str()]).map(drop)
    }

    fn make_pool(&self, options: &Options) -> Result<()> {
        let group = self.group()?;
        let data = format!("{}%VG", options.data_percent);
        // The kernel's bounds: 2 MiB, and what 32 bits of 4 KiB blocks address.
        let metadata = (group.size / 100 * options.metadata_percent).clamp(4 << 20, 15 << 30);
        let metadata = metadata.next_multiple_of(group.extent.max(SECTOR));
        let words = [
            "--yes",
            "--type",
            "thin-pool",
            "--name",
            &self.pool,
            "--extents",
            &data,
            "--poolmetadatasize",
            &format!("{metadata}b"),
            "--chunksize",
            &format!("{}b", options.block_size),
            // Nobody reads in a new block what a deleted layer wrote.
            "--zero",
            "y",
            "--discards",
            "passdown",
            &self.vg,
        ];
        run("lvcreate", words).map(drop)
    }

    /// Tells dmeventd, where it runs, to extend the pool as layerd does.
    fn write_profile(&self, options: &Options) -> Result<()> {
        let name = format!("{}-{}", self.vg, self.pool);
        let dir = std::env::var_os("LVM_SYSTEM_DIR").unwrap_or_else(|| OsString::from(SYSTEM_DIR));
        let dir = Path::new(&dir).join("profile");
        let text = format!(
            "activation {{\n\tthin_pool_autoextend_threshold={}\n\tthin_pool_autoextend_percent={}\n}}\n",
            options.extend_threshold, options.extend_percent
        );
        let path = dir.join(format!("{name}.profile"));
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|source| Error::sys("write", &path, source))?;
        run("lvchange", ["--metadataprofile", &name, &self.path()]).map(drop)
    }

    /// Makes the pool's device appear.
    pub(super) fn activate(&self) -> Result<()> {
        run("lvchange", ["--activate", "y", "--yes", &self.path()]).map(drop)
    }

    /// The volume group's space.
    pub(super) fn group(&self) -> Result<Group> {
        let fields = "vg_extent_size,vg_size,vg_free";
        let words = ["--noheadings", "--nosuffix", "--units", "b", "-o", fields, &self.vg];
        let text = run("vgs", words)?;
        parse_group(&text).ok_or_else(|| Error::refused("run", "vgs", text, cow::ErrorKind::Io))
    }

    /// The volume group's devices.
    pub(super) fn devices(&self) -> Result<Vec<PathBuf>> {
        let text = run("pvs", ["--noheadings", "-o", "pv_name,vg_name"])?;
        let pairs = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
        let own = pairs.filter(|(_, vg)| vg.trim() == self.vg);
        Ok(own.map(|(device, _)| PathBuf::from(device)).collect())
    }

    /// Adds a device to the volume group.
    pub(super) fn add(&self, device: &Path, force: bool) -> Result<()> {
        self.make_physical(device, force)?;
        run("vgextend", [OsStr::new("--yes"), OsStr::new(&self.vg), device.as_os_str()]).map(drop)
    }

    /// Extends the pool's data by this many extents.
    pub(super) fn extend_data(&self, extents: u64) -> Result<()> {
        let by = format!("+{extents}");
        run("lvextend", ["--yes", "--extents", &by, &self.path()]).map(drop)
    }

    /// Extends the pool's metadata.
    pub(super) fn extend_metadata(&self, bytes: u64) -> Result<()> {
        let by = format!("+{bytes}b");
        run("lvextend", ["--yes", "--poolmetadatasize", &by, &self.path()]).map(drop)
    }

    /// Decides whether writes fail at once when the pool is full, or wait for it to grow.
    pub(super) fn fail_when_full(&self, fail: bool) -> Result<()> {
        let word = if fail { "y" } else { "n" };
        match run("lvchange", ["--yes", "--errorwhenfull", word, &self.path()]) {
            // Somebody else decided the same meanwhile.
            Err(error) if error.to_string().contains("already set") => Ok(()),
            answer => answer.map(drop),
        }
    }
}

fn parse_group(text: &str) -> Option<Group> {
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    Some(Group { extent: numbers.next()??, size: numbers.next()??, free: numbers.next()?? })
}

/// Runs one of LVM's commands, which waits for udev where udev runs.
fn run<A: AsRef<OsStr>>(
    program: &'static str,
    words: impl IntoIterator<Item = A>,
) -> Result<String> {
    let mut all: Vec<OsString> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    if !Path::new("/run/udev/control").exists() {
        const ALONE: &str = "activation{udev_sync=0 udev_rules=0} \
                             devices{obtain_device_list_from_udev=0}";
        all.splice(0..0, ["--config".into(), ALONE.into()]);
    }
    tool::run(program, &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_lvm_does() {
        let lvm = Lvm { vg: "a-b".to_owned(), pool: "thin-pool".to_owned() };
        assert_eq!(lvm.device_name(), "a--b-thin--pool");
        assert_eq!(lvm.path(), "a-b/thin-pool");
    }

    #[test]
    fn a_groups_space_is_read() {
        let group = Group { extent: 4_194_304, size: 2_143_289_344, free: 0 };
        assert_eq!(parse_group("  4194304 2143289344 0\n"), Some(group));
        for strange in ["", "1 2", "a b c"] {
            assert_eq!(parse_group(strange), None, "{strange:?}");
        }
    }
}
