//! The home's format file, `format.json`: which version of the layout, made by which driver, with
//! which features.
//!
//! Features follow ext4's three classes: a *compatible* one may be ignored by a program that does
//! not know it, a *read-only compatible* one only by a program that does not write, and an
//! *incompatible* one by none. As a driver's home is always opened for writing, both of the latter
//! are refused when unknown.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::call::HomeCall;
use crate::error::{ErrorKind, Result};

/// The version of the home's layout.
const VERSION: u32 = 1;

/// The contents of `format.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    version: u32,
    driver: String,
    #[serde(default)]
    compatible: BTreeSet<String>,
    #[serde(default)]
    read_only_compatible: BTreeSet<String>,
    #[serde(default)]
    incompatible: BTreeSet<String>,
}

impl Format {
    /// The format of a new home.
    pub(crate) fn new(driver: &str) -> Self {
        Self {
            version: VERSION,
            driver: driver.to_owned(),
            compatible: BTreeSet::new(),
            read_only_compatible: BTreeSet::new(),
            incompatible: BTreeSet::new(),
        }
    }

    /// Reads the file and refuses what the driver of `call`, which knows the features `known`,
    /// must not touch.
    pub(crate) fn parse(call: HomeCall, known: &[&str], bytes: &[u8]) -> Result<Self> {
        let format: Self = serde_json::from_slice(bytes).map_err(|error| {
            call.refused(ErrorKind::Corrupt, format!("{}: {error}", super::FORMAT))
        })?;
        let unsupported = |reason: String| call.refused(ErrorKind::Unsupported, reason);
        if format.version != VERSION {
            let found = format.version;
            return Err(unsupported(format!("the home has format {found}, not {VERSION}")));
        }
        if format.driver != call.driver {
            return Err(unsupported(format!("the home belongs to driver {}", format.driver)));
        }
        let must_know = format.incompatible.iter().chain(&format.read_only_compatible);
        let strange: Vec<_> =
            must_know.filter(|name| !known.contains(&name.as_str())).map(String::as_str).collect();
        if !strange.is_empty() {
            let list = strange.join(", ");
            return Err(unsupported(format!("the home uses unknown features: {list}")));
        }
        Ok(format)
    }

    /// The file's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Whether the home uses an incompatible feature.
    pub(crate) fn has(&self, feature: &str) -> bool {
        self.incompatible.contains(feature)
    }

    /// Notes the use of an incompatible feature; says whether that is news.
    pub(crate) fn add(&mut self, feature: &str) -> bool {
        self.incompatible.insert(feature.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: HomeCall = HomeCall { driver: "vfs", op: "open" };

    #[test]
    fn written_and_read_are_the_same() {
        let mut format = Format::new("vfs");
        assert!(format.add("redirect_dir") && !format.add("redirect_dir"));
        let read = Format::parse(CALL, &["redirect_dir"], &format.to_bytes()).unwrap();
        assert_eq!(read, format);
        assert!(read.has("redirect_dir"));
    }

    #[test]
    fn what_must_be_known_is_refused_when_unknown() {
        let file = |fields: &str| format!("{{\"version\":1,\"driver\":\"vfs\"{fields}}}");
        let cases = [
            (file(",\"compatible\":[\"new\"]"), None),
            (file(",\"read_only_compatible\":[\"new\"]"), Some(ErrorKind::Unsupported)),
            (file(",\"incompatible\":[\"new\"]"), Some(ErrorKind::Unsupported)),
            (file("").replace("vfs", "btrfs"), Some(ErrorKind::Unsupported)),
            (file("").replace(":1", ":2"), Some(ErrorKind::Unsupported)),
            (String::new(), Some(ErrorKind::Corrupt)),
        ];
        for (text, expected) in cases {
            let kind = Format::parse(CALL, &[], text.as_bytes()).err().map(|error| error.kind());
            assert_eq!(kind, expected, "{text}");
        }
    }
}
