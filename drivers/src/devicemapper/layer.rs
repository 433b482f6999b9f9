//! A layer's device, in `device.json` beside its `layer.json`.
//!
//! A layer that a client has mounted is committed as a snapshot of what it is then, and the client keeps
//! the device that it has. Both are named from before the commit until after it, and which of them the
//! layer has, its state says: so a crash at any point leaves one that it has and one that is left over.

use std::os::fd::AsFd;

use cow::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::dm::{THIN_IDS, Thin, ThinId};
use crate::driver::State;
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
    /// The device that the layer has from the moment on at which it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<ThinId>,
    /// The bytes of the pool that it did not share with its parent's device when it was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) own: Option<u64>,
    /// Whether its file system was mended without a date on what was changed by that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) mended: bool,
}

impl Device {
    /// A new layer's.
    pub(super) fn new(thin: Thin) -> Self {
        let Thin { id: device, size } = thin;
        Self { version: VERSION, device, size, sealed: None, own: None, mended: false }
    }

    /// The same layer's, with the device that it is to have when it is committed.
    pub(super) fn with_sealed(self, sealed: ThinId) -> Self {
        Self { sealed: Some(sealed), ..self }
    }

    /// The place in the pool of a layer in this state.
    pub(super) fn thin(&self, state: State) -> Thin {
        let sealed = self.sealed.filter(|_| state == State::Committed);
        Thin { id: sealed.unwrap_or(self.device), size: self.size }
    }

    /// The device that a layer in this state has no longer, or has never come to have.
    pub(super) fn leftover(&self, state: State) -> Option<ThinId> {
        let is_committed = state == State::Committed;
        self.sealed.map(|sealed| if is_committed { self.device } else { sealed })
    }

    /// The same without what is left over.
    pub(super) fn settled(self, state: State) -> Self {
        Self { device: self.thin(state).id, sealed: None, ..self }
    }

    /// All devices that it names.
    pub(super) fn all(&self) -> impl Iterator<Item = ThinId> + use<> {
        [Some(self.device), self.sealed].into_iter().flatten()
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
        if device.all().any(|id| id >= THIN_IDS) {
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
        let device = Device { own: Some(4096), ..Device::new(thin) };
        for mended in [true, false] {
            let device = Device { mended, ..device };
            device.write(&fd).unwrap();
            assert_eq!(Device::read(&fd).unwrap(), device);
        }
        assert_eq!(device.thin(State::Active), thin);
        let sound = serde_json::to_string(&device).unwrap();
        for (from, to, reason) in [
            ("\"version\":1", "\"version\":3", "version 3"),
            ("\"device\":7", "\"device\":16777216", "24 bits"),
            ("\"device\":7", "\"device\":7,\"sealed\":16777216", "24 bits"),
            ("}", "", "EOF"),
        ] {
            let error = Device::parse(sound.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
    #[test]
    fn which_device_a_layer_has_its_state_says() {
        let device = Device::new(Thin { id: 7, size: 1 << 30 });
        for state in [State::Active, State::Committed] {
            assert_eq!((device.thin(state).id, device.leftover(state)), (7, None), "{state:?}");
        }
        let both = device.with_sealed(9);
        assert!(both.all().eq([7, 9]), "what may be no other's");
        let cases = [(State::Active, 7, 9), (State::Committed, 9, 7)];
        for (state, has, left) in cases {
            assert_eq!((both.thin(state).id, both.leftover(state)), (has, Some(left)), "{state:?}");
            assert_eq!(both.thin(state).size, 1 << 30, "{state:?}");
            let settled = both.settled(state);
            assert!(settled.all().eq([has]) && settled.thin(state).id == has, "{state:?}");
        }
    }
}
