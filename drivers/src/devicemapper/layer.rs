//! A layer's device, in `device.json` beside its `layer.json`.

use std::os::fd::AsFd;

use cow::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::dm::{THIN_IDS, Thin, ThinId};
use super::volume::Used;
use crate::home::fs::{self, Durability};

/// The file's name.
pub(super) const FILE: &str = "device.json";
/// Its name before it takes the other's place.
const NEXT: &str = "device.json.new";
/// The version of its form.
const VERSION: u32 = 1;
/// The longest that is read.
const MAX_LEN: u64 = 64 << 10;

/// The contents of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    version: u32,
    /// Its number in the pool.
    device: ThinId,
    /// Its length in bytes.
    size: u64,
    /// The lengths of the files that were applied to it.
    #[serde(default)]
    pub(super) content: u64,
    /// What its file system had given out when the layer was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used: Option<Used>,
}

impl Device {
    /// A new layer's.
    pub(super) fn new(thin: Thin) -> Self {
        Self { version: VERSION, device: thin.id, size: thin.size, content: 0, used: None }
    }

    /// Its place in the pool.
    pub(super) fn thin(&self) -> Thin {
        Thin { id: self.device, size: self.size }
    }

    /// Reads the file in a layer's directory.
    pub(super) fn read(dir: impl AsFd) -> Result<Self> {
        Self::parse(&fs::read_file(dir, FILE, MAX_LEN)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let corrupt = |reason: String| Error::corrupt("read", FILE, reason);
        let device: Self = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
        if device.version != VERSION {
            return Err(corrupt(format!("version {} is not {VERSION}", device.version)));
        }
        if device.device >= THIN_IDS {
            return Err(corrupt("the device number has more than 24 bits".to_owned()));
        }
        Ok(device)
    }

    /// Puts the file in a layer's directory, whole or not at all; a commit makes it durable.
    pub(super) fn write(&self, dir: impl AsFd) -> Result<()> {
        let dir = dir.as_fd();
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::invalid("write", FILE, error.to_string()))?;
        fs::write_file(dir, NEXT, &bytes, Durability::Later)?;
        fs::rename(dir, NEXT, dir, FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_are_the_same_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let thin = Thin { id: 7, size: 1 << 30 };
        let used = Some(Used { bytes: 4096, inodes: 12 });
        let device = Device { used, content: 9, ..Device::new(thin) };
        device.write(&fd).unwrap();
        assert_eq!(Device::read(&fd).unwrap(), device);
        assert_eq!(device.thin(), thin);
        let sound = serde_json::to_string(&device).unwrap();
        for (from, to, reason) in [
            ("\"version\":1", "\"version\":3", "version 3"),
            ("\"device\":7", "\"device\":16777216", "24 bits"),
            ("}", "", "EOF"),
        ] {
            let error = Device::parse(sound.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
