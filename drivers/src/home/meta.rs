//! A layer's own metadata file, `layer.json`, beside its data.
//!
//! The file is the truth of a layer; everything in memory and in the catalogue is an index of it. It
//! is written whole under a temporary name and renamed into place. At creation it is not synced (an
//! active layer promises nothing), at commit it is.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cow::error::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::driver::{LayerInfo, LayerRecord, State, Usage};
use crate::id::LayerId;
use crate::id_map::IdMaps;

/// The version of the file's form. A reader refuses a higher one.
const VERSION: u32 = 1;

/// The longest metadata file that is read: labels and implicit directories are bounded elsewhere,
/// so anything longer is damage.
pub(crate) const MAX_LEN: u64 = 64 << 20;

/// The contents of `layer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    version: u32,
    /// The layer's id, which must be the name of its directory.
    pub(crate) id: LayerId,
    /// The layer below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<LayerId>,
    /// Where the layer is in its life.
    pub(crate) state: State,
    /// When it was made.
    pub(crate) created: Stamp,
    /// Its own space, from commit on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    /// The catalogue's record.
    #[serde(default)]
    pub(crate) record: LayerRecord,
    /// The greatest size of the writable layer in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    /// The ids that the layer's mount shows in place of those on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id_map: Option<IdMaps>,
    /// What the layer's tree was made from, as the driver's file system names it: a btrfs layer's
    /// snapshot was taken of the subvolume with this UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// The transaction of the file system from which on what is written in the tree is the layer's, where that is
    /// not the one in which the tree was made: a btrfs layer's snapshot was written to beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begun: Option<u64>,
    /// Directories that the layer's tar took for granted and that were made with default metadata,
    /// because the layer was applied without its parent: adopted from the parent at commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) implicit: Vec<PathText>,
}

impl Meta {
    /// The metadata of a layer made now.
    pub(crate) fn new(id: LayerId, parent: Option<LayerId>, state: State) -> Self {
        Self {
            version: VERSION,
            id,
            parent,
            state,
            created: Stamp::now(),
            usage: None,
            record: LayerRecord::default(),
            size: None,
            id_map: None,
            origin: None,
            begun: None,
            implicit: Vec::new(),
        }
    }

    /// Reads the file's bytes, which lie in the directory of layer `id`.
    ///
    /// # Errors
    /// `Corrupt` with the reason.
    pub(crate) fn parse(bytes: &[u8], id: &LayerId) -> Result<Self> {
        let corrupt = |reason: String| Error::corrupt("read", super::META, reason);
        if bytes.is_empty() {
            return Err(corrupt("empty: the layer was made right before a power cut".to_owned()));
        }
        let meta: Self =
            serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
        if meta.version > VERSION || meta.version == 0 {
            return Err(corrupt(format!("version {} is not {VERSION}", meta.version)));
        }
        if meta.id != *id {
            return Err(corrupt(format!("names layer {}", meta.id)));
        }
        if meta.parent.as_ref() == Some(id) {
            return Err(corrupt("the layer is its own parent".to_owned()));
        }
        if meta.state == State::Committed && meta.usage.is_none() {
            return Err(corrupt("committed without a usage".to_owned()));
        }
        Ok(meta)
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// `InvalidArgument` for a record that JSON cannot hold.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| Error::invalid("write", super::META, error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// What the contract shows of it.
    pub(crate) fn info(&self) -> LayerInfo {
        LayerInfo {
            id: self.id.clone(),
            parent: self.parent.clone(),
            state: self.state,
            created: self.created.to_time(),
            usage: self.usage,
            id_map: self.id_map.clone(),
            record: self.record.clone(),
        }
    }
}

/// A moment as seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    secs: u64,
    nanos: u32,
}

impl Stamp {
    /// The present.
    fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { secs: since.as_secs(), nanos: since.subsec_nanos() }
    }

    /// As the standard library has it; a moment past its end is the epoch.
    fn to_time(self) -> SystemTime {
        let nanos = self.nanos.min(999_999_999);
        UNIX_EPOCH.checked_add(Duration::new(self.secs, nanos)).unwrap_or(UNIX_EPOCH)
    }
}

/// A path in JSON: a string, or its bytes where it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum PathText {
    /// A path that is UTF-8.
    Text(String),
    /// Any other path.
    Bytes(Vec<u8>),
}

impl From<&Path> for PathText {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
    }
}

impl From<&PathText> for PathBuf {
    fn from(text: &PathText) -> Self {
        match text {
            PathText::Text(text) => text.into(),
            PathText::Bytes(bytes) => OsString::from_vec(bytes.clone()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> LayerId {
        text.parse().unwrap()
    }

    #[test]
    fn written_and_read_are_the_same() {
        let mut meta = Meta::new(id("2"), Some(id("1")), State::Active);
        meta.record.labels.insert("name".into(), "snapshot é \n".into());
        meta.implicit = vec![Path::new("usr/lib").into()];
        meta.implicit.push(PathText::from(Path::new(std::ffi::OsStr::from_bytes(b"\xff/x"))));
        let read = Meta::parse(&meta.to_bytes().unwrap(), &id("2")).unwrap();
        assert_eq!(read, meta);
        let paths: Vec<PathBuf> = read.implicit.iter().map(Into::into).collect();
        assert_eq!(paths[1].as_os_str().as_bytes(), b"\xff/x", "bytes that are no UTF-8");
    }

    #[test]
    fn damage_is_refused_with_its_reason() {
        let sound =
            String::from_utf8(Meta::new(id("2"), Some(id("1")), State::Active).to_bytes().unwrap())
                .unwrap();
        let cases = [
            (String::new(), "empty"),
            (sound[..sound.len() / 2].to_owned(), "EOF"),
            (sound.replace("\"version\":1", "\"version\":9"), "version 9"),
            (sound.replace("\"id\":\"2\"", "\"id\":\"3\""), "names layer 3"),
            (sound.replace("\"id\":\"2\"", "\"id\":\"../x\""), "not 1 to 64"),
            (sound.replace("\"parent\":\"1\"", "\"parent\":\"2\""), "own parent"),
            (sound.replace("active", "committed"), "without a usage"),
            (sound.replace("active", "frozen"), "unknown variant"),
        ];
        for (text, reason) in cases {
            let error = Meta::parse(text.as_bytes(), &id("2")).unwrap_err();
            assert_eq!(error.kind(), cow::ErrorKind::Corrupt, "{text:?}: {error}");
            assert!(error.to_string().contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_far_future_stamp_does_not_panic() {
        let stamp = Stamp { secs: u64::MAX, nanos: u32::MAX };
        assert_eq!(stamp.to_time(), UNIX_EPOCH);
    }
}
