//! The options of the btrfs driver.

use crate::call::HomeCall;
use crate::error::{ErrorKind, Result};
use crate::options::Given;

/// The options that the driver takes.
const KNOWN: [&str; 5] = ["compression", "dedupe", "min_space", "quota", "stock"];

/// What compresses content, as the property `btrfs.compression` names it (btrfs-property(8)).
const COMPRESSIONS: [&str; 4] = ["zstd", "lzo", "zlib", "none"];

/// How space is accounted for a layer with a size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Quota {
    /// Simple quotas where the kernel has them, quota groups elsewhere.
    #[default]
    Auto,
    /// Quota groups: they know what is shared, and cost time at every snapshot and removal.
    Full,
}

/// The options as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// The compression of new bottom layers, which those above inherit.
    pub(super) compression: Option<String>,
    /// Whether equal files of different layers are to share their extents.
    pub(super) dedupe: bool,
    /// The least size that a layer may be limited to.
    pub(super) min_space: Option<u64>,
    /// What is turned on for the first layer with a size, if nothing is on.
    pub(super) quota: Quota,
    /// Whether snapshots of layers that are often built upon are made beforehand.
    pub(super) stock: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { compression: None, dedupe: false, min_space: None, quota: Quota::Auto, stock: true }
    }
}

impl Options {
    /// Reads `name=value` each.
    pub(super) fn parse<S: AsRef<str>>(call: HomeCall, list: &[S]) -> Result<Self> {
        let given = Given::parse(call, &KNOWN, list)?;
        let wrong = |name: &str, text: &str, known: &str| {
            let reason = format!("option {name}: {text:?} is none of {known}");
            call.refused(ErrorKind::InvalidArgument, reason)
        };
        let compression = match given.text("compression") {
            None => None,
            Some(text) if COMPRESSIONS.contains(&text) => Some(text.to_owned()),
            Some(text) => return Err(wrong("compression", text, &COMPRESSIONS.join(", "))),
        };
        let quota = match given.text("quota") {
            None | Some("auto") => Quota::Auto,
            Some("full") => Quota::Full,
            Some(text) => return Err(wrong("quota", text, "auto, full")),
        };
        let dedupe = given.switch(call, "dedupe")?.unwrap_or(false);
        let stock = given.switch(call, "stock")?.unwrap_or(true);
        Ok(Self { compression, dedupe, min_space: given.size(call, "min_space")?, quota, stock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: HomeCall = HomeCall { driver: "btrfs", op: "open" };

    #[test]
    fn options_are_read_or_refused_by_name() {
        let list = [
            "btrfs.min_space=10m",
            "compression=zstd",
            "btrfs.quota=full",
            "dm.fs=xfs",
            "dedupe=on",
            "btrfs.stock=off",
        ];
        let options = Options::parse(CALL, &list).unwrap();
        assert_eq!(
            options,
            Options {
                compression: Some("zstd".into()),
                dedupe: true,
                min_space: Some(10 << 20),
                quota: Quota::Full,
                stock: false
            }
        );
        assert_eq!(Options::parse::<&str>(CALL, &[]).unwrap(), Options::default());
        for bad in [
            "compression=rar",
            "dedupe=some",
            "quota=much",
            "min_space=little",
            "btrfs.colour=red",
            "stock=2",
        ] {
            let error = Options::parse(CALL, &[bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}: {error}");
            let name = bad.split('=').next().unwrap_or(bad).trim_start_matches("btrfs.");
            assert!(error.to_string().contains(name), "{bad}: {error}");
        }
    }
}
