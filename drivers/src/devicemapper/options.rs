//! The driver's options, with Docker's names and defaults.

use std::path::PathBuf;

use super::state::Base;
use crate::call::HomeCall;
use crate::error::{ErrorKind, Result};
use crate::options::Given;

/// The names that the driver takes.
const KNOWN: [&str; 20] = [
    "basesize",
    "blkdiscard",
    "blocksize",
    "directlvm_device",
    "directlvm_device_force",
    "fs",
    "loopdatasize",
    "loopmetadatasize",
    "min_free_space",
    "mkfsarg",
    "mountopt",
    "thinp_autoextend_percent",
    "thinp_autoextend_threshold",
    "thinp_metapercent",
    "thinp_percent",
    "thinpooldev",
    "use_deferred_deletion",
    "use_deferred_removal",
    "vgname",
    "xfs_nospace_max_retries",
];

/// Docker's names that are refused, and why.
const REFUSED: [(&str, &str); 4] = [
    ("datadev", "give a whole pool by dm.thinpooldev, or raw devices by dm.directlvm_device"),
    ("metadatadev", "give a whole pool by dm.thinpooldev, or raw devices by dm.directlvm_device"),
    ("libdm_log_level", "libdm is not used; the daemon's own log has every step"),
    ("override_udev_sync_check", "the driver works with udev and without it"),
];

/// The file system of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// As mount(8) calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// Where the pool comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// What an earlier start has set up.
    Unsaid,
    /// Files on loop devices.
    Loop,
    /// A pool that exists.
    Pool(PathBuf),
    /// Raw devices, which LVM makes into a pool.
    DirectLvm(Vec<PathBuf>),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) source: Source,
    /// Take devices for direct-lvm that hold something.
    pub(super) force: bool,
    /// LVM's volume group.
    pub(super) vg_name: String,
    /// The size of a layer's file system in bytes; none leaves it as it is, at first 10 GiB.
    pub(super) base_size: Option<u64>,
    pub(super) fs: Option<FileSystem>,
    pub(super) mkfs_args: Vec<String>,
    pub(super) mount_options: Vec<String>,
    /// The size of a pool's block in bytes.
    pub(super) block_size: u64,
    /// How many per cent of data and of metadata must be free for a new layer.
    pub(super) min_free_percent: u64,
    pub(super) deferred_removal: bool,
    pub(super) deferred_deletion: bool,
    /// Whether a device's blocks are discarded before it is deleted; none for loop devices alone.
    pub(super) blk_discard: Option<bool>,
    /// How often xfs writes metadata again when there is no space; none leaves its own way.
    pub(super) xfs_retries: Option<u32>,
    /// How many per cent of the volume group become data and metadata at first.
    pub(super) data_percent: u64,
    pub(super) metadata_percent: u64,
    /// From how many per cent in use the pool grows, and by how many per cent of its size.
    pub(super) extend_threshold: u64,
    pub(super) extend_percent: u64,
    pub(super) loop_data_size: Option<u64>,
    pub(super) loop_metadata_size: Option<u64>,
}

/// The size of a layer's file system when nothing is said.
pub(super) const BASE_SIZE: u64 = 10 << 30;

impl Options {
    /// Reads the list of `name=value`.
    ///
    /// # Errors
    /// `InvalidArgument` or `Unsupported` for an option, by its name.
    pub(super) fn parse<S: AsRef<str>>(call: HomeCall, list: &[S]) -> Result<Self> {
        refuse_foreign(call, list)?;
        let given = Given::parse(call, &KNOWN, list)?;
        let read = Reader { call, given: &given };
        let options = Self {
            source: read.source()?,
            force: given.switch(call, "directlvm_device_force")?.unwrap_or(false),
            vg_name: read.vg_name()?,
            base_size: given.size(call, "basesize")?,
            fs: read.fs()?,
            mkfs_args: words(given.text("mkfsarg"), char::is_whitespace),
            mount_options: words(given.text("mountopt"), |c| c == ','),
            block_size: read.block_size()?,
            min_free_percent: read.percent("min_free_space", 0..=99)?.unwrap_or(10),
            deferred_removal: given.switch(call, "use_deferred_removal")?.unwrap_or(true),
            deferred_deletion: given.switch(call, "use_deferred_deletion")?.unwrap_or(true),
            blk_discard: given.switch(call, "blkdiscard")?,
            xfs_retries: read.number("xfs_nospace_max_retries")?,
            data_percent: read.percent("thinp_percent", 1..=99)?.unwrap_or(95),
            metadata_percent: read.percent("thinp_metapercent", 1..=50)?.unwrap_or(1),
            extend_threshold: read.percent("thinp_autoextend_threshold", 50..=100)?.unwrap_or(80),
            extend_percent: read.percent("thinp_autoextend_percent", 1..=1000)?.unwrap_or(20),
            loop_data_size: given.size(call, "loopdatasize")?,
            loop_metadata_size: given.size(call, "loopmetadatasize")?,
        };
        options.check(read)?;
        Ok(options)
    }

    /// Whether a base device can only be another one than is asked for: it can grow, and nothing else.
    pub(super) fn is_not(&self, base: &Base) -> bool {
        self.fs.is_some_and(|fs| fs != base.fs)
            || self.base_size.is_some_and(|size| size < base.size)
    }

    fn check(&self, read: Reader<'_>) -> Result<()> {
        if self.data_percent + self.metadata_percent > 99 {
            let (data, metadata) = (self.data_percent, self.metadata_percent);
            return Err(read.wrong(format!(
                "options thinp_percent and thinp_metapercent: {data} and {metadata} leave nothing \
                 of the volume group for a repair; together they must be below 100"
            )));
        }
        if self.deferred_deletion && !self.deferred_removal {
            return Err(read.wrong(
                "option use_deferred_deletion=true needs use_deferred_removal=true".to_owned(),
            ));
        }
        if self.base_size.is_some_and(|size| size < 16 << 20) {
            return Err(read.wrong("option basesize: less than 16 MiB".to_owned()));
        }
        Ok(())
    }
}

/// Refuses Docker's other options with the reason.
fn refuse_foreign<S: AsRef<str>>(call: HomeCall, list: &[S]) -> Result<()> {
    for text in list.iter().map(AsRef::as_ref) {
        let name = text.split('=').next().unwrap_or_default().trim();
        let bare = name.strip_prefix("dm.").or_else(|| name.strip_prefix("devicemapper."));
        if let Some((name, why)) = REFUSED.iter().find(|(name, _)| Some(*name) == bare) {
            let reason = format!("option {name}: {why}");
            return Err(call.refused(ErrorKind::Unsupported, reason));
        }
    }
    Ok(())
}

/// The non-empty words of an option's text.
fn words(text: Option<&str>, apart: impl Fn(char) -> bool) -> Vec<String> {
    let words = text.unwrap_or_default().split(apart).map(str::trim);
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Reads single options.
#[derive(Clone, Copy)]
struct Reader<'a> {
    call: HomeCall,
    given: &'a Given,
}

impl Reader<'_> {
    fn wrong(&self, reason: String) -> crate::Error {
        self.call.refused(ErrorKind::InvalidArgument, reason)
    }

    fn source(&self) -> Result<Source> {
        let devices = words(self.given.text("directlvm_device"), |c| c == ',');
        let pool = self.given.text("thinpooldev").map(|name| match name.contains('/') {
            true => PathBuf::from(name),
            false => super::dm::node(name),
        });
        let loops =
            ["loopdatasize", "loopmetadatasize"].iter().any(|n| self.given.text(n).is_some());
        match (pool, devices.is_empty()) {
            (None, true) if loops => Ok(Source::Loop),
            (Some(_), false) => Err(self
                .wrong("options thinpooldev and directlvm_device exclude each other".to_owned())),
            (Some(pool), true) => Ok(Source::Pool(pool)),
            (None, false) => Ok(Source::DirectLvm(devices.iter().map(PathBuf::from).collect())),
            (None, true) => Ok(Source::Unsaid),
        }
    }

    fn vg_name(&self) -> Result<String> {
        let name = self.given.text("vgname").unwrap_or("layerd");
        let good = |c: char| c.is_ascii_alphanumeric() || "_.+".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) || name.starts_with('.') {
            return Err(self.wrong(format!("option vgname: {name:?} is no name")));
        }
        Ok(name.to_owned())
    }

    fn fs(&self) -> Result<Option<FileSystem>> {
        match self.given.text("fs") {
            None => Ok(None),
            Some("ext4") => Ok(Some(FileSystem::Ext4)),
            Some("xfs") => Ok(Some(FileSystem::Xfs)),
            Some(other) => Err(self.wrong(format!("option fs: {other:?} is not ext4 or xfs"))),
        }
    }

    /// The kernel's bounds: 64 KiB to 1 GiB in steps of 64 KiB.
    fn block_size(&self) -> Result<u64> {
        let size = self.given.size(self.call, "blocksize")?.unwrap_or(64 << 10);
        if size % (64 << 10) != 0 || !((64 << 10)..=(1 << 30)).contains(&size) {
            let reason = "option blocksize: not a multiple of 64 KiB up to 1 GiB";
            return Err(self.wrong(reason.to_owned()));
        }
        Ok(size)
    }

    fn percent(&self, name: &str, lawful: std::ops::RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(text) = self.given.text(name) else { return Ok(None) };
        let number = text.strip_suffix('%').unwrap_or(text).parse::<u64>().ok();
        match number.filter(|number| lawful.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (low, high) = (lawful.start(), lawful.end());
                Err(self
                    .wrong(format!("option {name}: {text:?} is not a number from {low} to {high}")))
            }
        }
    }

    fn number(&self, name: &str) -> Result<Option<u32>> {
        let Some(text) = self.given.text(name) else { return Ok(None) };
        let wrong = |_| self.wrong(format!("option {name}: {text:?} is no number"));
        text.parse().map(Some).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: HomeCall = HomeCall { driver: super::super::NAME, op: "open" };

    #[test]
    fn options_are_read() {
        let list = [
            "dm.directlvm_device=/dev/a, /dev/b",
            "dm.thinp_percent=50",
            "devicemapper.basesize=2G",
            "dm.fs=xfs",
            "dm.mkfsarg=-m bigtime=1",
            "dm.mountopt=nodiscard,noatime",
            "dm.min_free_space=5%",
            "dm.blocksize=512K",
            "overlay2.size=1g",
        ];
        let options = Options::parse(CALL, &list).unwrap();
        let devices = ["/dev/a", "/dev/b"].map(PathBuf::from).to_vec();
        assert_eq!(options.source, Source::DirectLvm(devices));
        assert_eq!((options.data_percent, options.metadata_percent), (50, 1));
        assert_eq!(options.base_size, Some(2 << 30));
        assert_eq!(options.fs, Some(FileSystem::Xfs));
        assert_eq!(options.mkfs_args, ["-m", "bigtime=1"]);
        assert_eq!(options.mount_options, ["nodiscard", "noatime"]);
        assert_eq!((options.min_free_percent, options.block_size), (5, 512 << 10));
        assert!(options.deferred_removal && options.deferred_deletion, "deferral is the default");
        let named = Options::parse(CALL, &["dm.thinpooldev=vg-pool"]).unwrap();
        assert_eq!(named.source, Source::Pool("/dev/mapper/vg-pool".into()), "a bare name");
        assert_eq!(Options::parse::<&str>(CALL, &[]).unwrap().source, Source::Unsaid);
        let loops = Options::parse(CALL, &["dm.loopdatasize=1g"]).unwrap();
        assert_eq!((loops.source, loops.loop_data_size), (Source::Loop, Some(1 << 30)));
    }

    #[test]
    fn what_is_strange_or_not_honoured_is_refused_by_name() {
        use ErrorKind::{InvalidArgument, Unsupported};
        let cases: [(&[&str], &str, ErrorKind); 14] = [
            (&["dm.colour=red"], "colour", InvalidArgument),
            (&["dm.fs=ext2"], "fs", InvalidArgument),
            (&["dm.blocksize=100k"], "blocksize", InvalidArgument),
            (&["dm.basesize=1m"], "basesize", InvalidArgument),
            (&["dm.basesize=big"], "basesize", InvalidArgument),
            (&["dm.min_free_space=100%"], "min_free_space", InvalidArgument),
            (&["dm.thinp_percent=0"], "thinp_percent", InvalidArgument),
            (&["dm.thinp_percent=99"], "thinp_percent", InvalidArgument),
            (&["dm.xfs_nospace_max_retries=-1"], "xfs_nospace", InvalidArgument),
            (&["dm.vgname=../x"], "vgname", InvalidArgument),
            (&["dm.use_deferred_removal=false"], "use_deferred_removal", InvalidArgument),
            (&["dm.thinpooldev=a", "dm.directlvm_device=/b"], "thinpooldev", InvalidArgument),
            (&["dm.datadev=/dev/x"], "datadev", Unsupported),
            (&["dm.libdm_log_level=7"], "libdm_log_level", Unsupported),
        ];
        for (list, name, kind) in cases {
            let error = Options::parse(CALL, list).unwrap_err();
            assert_eq!(error.kind(), kind, "{list:?}: {error}");
            assert!(error.to_string().contains(name), "{list:?}: {error}");
        }
    }
}
