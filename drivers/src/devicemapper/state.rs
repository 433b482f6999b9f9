//! What the driver remembers of its pool, in `pool.json` of the home.
//!
//! Numbers of thin devices are given out from a *window*, which the file names before any of them is
//! used. A number of the window that no layer has, after a crash, may be of a device that no layer
//! came to have; one outside of it cannot, because all layers of older windows were made durable
//! before the window was moved. The pool's transaction id counts the windows: a pool that was put
//! back to an older state, or that somebody else works with, does not fit the file.

use std::os::fd::AsFd;

use cow::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::dm::{THIN_IDS, Thin, ThinId};
use super::options::FileSystem;
use super::setup::Setup;
use crate::home::fs;

/// The file's name.
pub(super) const FILE: &str = "pool.json";
/// The version of its form.
const VERSION: u32 = 1;
/// The longest file that is read.
const MAX_LEN: u64 = 1 << 20;
/// How many numbers a window has: one sync of the home for so many layers.
const WINDOW: ThinId = 64;

/// The device that layers without a parent are snapshots of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    pub(super) device: ThinId,
    /// In bytes.
    pub(super) size: u64,
    pub(super) fs: FileSystem,
}

impl Base {
    /// Its place in the pool.
    pub(super) fn thin(&self) -> Thin {
        Thin { id: self.device, size: self.size }
    }
}

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PoolFile {
    version: u32,
    /// What the names of this home's devices begin with, so that homes never meet in `/dev/mapper`.
    pub(super) tag: String,
    /// Where the pool comes from.
    pub(super) setup: Setup,
    /// The transaction id that the pool has, or is about to get from one less.
    pub(super) transaction: u64,
    /// The first number of the window.
    pub(super) window: ThinId,
    /// Devices that are to be deleted when nobody has them open any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) deferred: Vec<ThinId>,
    /// None until the pool has its first file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<Base>,
}

impl PoolFile {
    /// The file of a new pool.
    pub(super) fn new(setup: Setup) -> Result<Self> {
        const SOURCE: &str = "/proc/sys/kernel/random/uuid";
        let uuid =
            std::fs::read_to_string(SOURCE).map_err(|source| Error::sys("read", SOURCE, source))?;
        let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).take(12).collect();
        Ok(Self {
            version: VERSION,
            tag: format!("layerd-{digits}"),
            setup,
            transaction: 0,
            window: 0,
            deferred: Vec::new(),
            base: None,
        })
    }

    /// Reads the file; none when there is none.
    pub(super) fn read(home: impl AsFd) -> Result<Option<Self>> {
        let bytes = match fs::read_file(home, FILE, MAX_LEN) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == cow::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Self::parse(&bytes).map(Some)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let corrupt = |reason: String| Error::corrupt("read", FILE, reason);
        let file: Self = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
        if file.version != VERSION {
            return Err(corrupt(format!("version {} is not {VERSION}", file.version)));
        }
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if file.tag.len() > 40 || !file.tag.starts_with("layerd-") || !file.tag.chars().all(sound) {
            return Err(corrupt(format!("{:?} is no tag", file.tag)));
        }
        let numbers = file.deferred.iter().copied().chain(file.base.map(|base| base.device));
        if file.window >= THIN_IDS || numbers.into_iter().any(|id| id >= THIN_IDS) {
            return Err(corrupt("a device number has more than 24 bits".to_owned()));
        }
        Ok(file)
    }

    /// Puts the file in place, durably.
    pub(super) fn write(&self, home: impl AsFd) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::invalid("write", FILE, error.to_string()))?;
        fs::replace_file(home, FILE, &bytes)
    }

    /// The numbers of the window.
    pub(super) fn numbers(&self) -> std::ops::Range<ThinId> {
        // Transaction 0 has no window yet.
        let length = if self.transaction == 0 { 0 } else { WINDOW };
        self.window..(self.window + length).min(THIN_IDS)
    }

    /// The file with the next window.
    pub(super) fn moved(&self) -> Self {
        let end = self.numbers().end;
        let window = if end >= THIN_IDS { 0 } else { end };
        Self { transaction: self.transaction + 1, window, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file() -> PoolFile {
        PoolFile::new(Setup::Given { pool: PathBuf::from("/dev/mapper/p") }).unwrap()
    }

    #[test]
    fn windows_follow_one_another_and_wrap() {
        let first = file();
        assert_eq!(first.numbers().len(), 0, "no number may be used before the file names it");
        let second = first.moved();
        assert_eq!((second.transaction, second.numbers()), (1, 0..64));
        assert_eq!(second.moved().numbers(), 64..128);
        let last = PoolFile { window: THIN_IDS - 10, ..second };
        assert_eq!(last.numbers(), THIN_IDS - 10..THIN_IDS, "24 bits");
        assert_eq!(last.moved().numbers(), 0..64);
    }

    #[test]
    fn written_and_read_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(PoolFile::read(&fd).unwrap(), None);
        let base = Base { device: 7, size: 1 << 30, fs: FileSystem::Xfs };
        let file = PoolFile { base: Some(base), deferred: vec![3], ..file().moved() };
        file.write(&fd).unwrap();
        assert_eq!(PoolFile::read(&fd).unwrap(), Some(file));
    }

    #[test]
    fn damage_is_refused() {
        let sound = String::from_utf8(serde_json::to_vec(&file().moved()).unwrap()).unwrap();
        let cases = [
            (String::new(), "EOF"),
            (sound.replace("\"version\":1", "\"version\":2"), "version 2"),
            (sound.replace("layerd-", "../"), "no tag"),
            (sound.replace("\"window\":0", "\"window\":16777216"), "24 bits"),
        ];
        for (text, reason) in cases {
            let error = PoolFile::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
