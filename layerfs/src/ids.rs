//! Owners as the layers have them, and as the mount shows them.

use crate::error::{Error, Result};

/// The owner that stands for one without a mapping (`/proc/sys/kernel/overflowuid`).
const OVERFLOW: u32 = 65534;

/// A range of ids in the layers and where the mount shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    layers: u32,
    mount: u32,
    length: u32,
}

/// How ids are translated; without ranges they are left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<Range>);

impl IdMap {
    /// Reads `FROM:TO:COUNT[:FROM:TO:COUNT...]`.
    ///
    /// # Errors
    /// Anything but triples of numbers.
    pub fn parse(text: &str) -> Result<Self> {
        let mut map = Self::default();
        map.extend(text)?;
        Ok(map)
    }

    /// Adds further triples.
    ///
    /// # Errors
    /// Anything but triples of numbers.
    pub fn extend(&mut self, text: &str) -> Result<()> {
        let refused = || Error::option(format!("{text}: not FROM:TO:COUNT"));
        let numbers: Vec<u32> = text
            .split([':', ','])
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| refused())?;
        let (triples, rest) = numbers.as_chunks::<3>();
        if !rest.is_empty() || triples.is_empty() {
            return Err(refused());
        }
        let ranges = triples.iter().map(|[layers, mount, length]| Range {
            layers: *layers,
            mount: *mount,
            length: *length,
        });
        self.0.extend(ranges);
        Ok(())
    }

    fn show(&self, id: u32) -> u32 {
        Self::find(&self.0, id, |range| (range.layers, range.mount))
    }

    fn keep(&self, id: u32) -> u32 {
        Self::find(&self.0, id, |range| (range.mount, range.layers))
    }

    fn find(ranges: &[Range], id: u32, sides: impl Fn(&Range) -> (u32, u32)) -> u32 {
        if ranges.is_empty() {
            return id;
        }
        ranges
            .iter()
            .find_map(|range| {
                let (from, to) = sides(range);
                let offset = id.checked_sub(from).filter(|offset| *offset < range.length)?;
                to.checked_add(offset)
            })
            .unwrap_or(OVERFLOW)
    }
}

/// The translation of users and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Users.
    pub users: IdMap,
    /// Groups.
    pub groups: IdMap,
    /// The one user that everything belongs to.
    pub squash_uid: Option<u32>,
    /// The one group that everything belongs to.
    pub squash_gid: Option<u32>,
}

impl Ids {
    /// The user or the group map.
    pub fn side(&mut self, users: bool) -> &mut IdMap {
        if users { &mut self.users } else { &mut self.groups }
    }

    /// Whether owners are shown as the layers have them.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// How the mount shows an owner.
    pub fn show(&self, uid: u32, gid: u32) -> (u32, u32) {
        (
            self.squash_uid.unwrap_or_else(|| self.users.show(uid)),
            self.squash_gid.unwrap_or_else(|| self.groups.show(gid)),
        )
    }

    /// What the upper layer keeps for an owner of the mount.
    pub fn keep(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.users.keep(uid), self.groups.keep(gid))
    }
}

/// Whether this is the first user namespace, the only one that may register backing files and use `trusted.`
/// attributes.
pub(crate) fn is_first_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_translate_both_ways() {
        let map = IdMap::parse("0:1000:1:1:110000:65536").expect("two ranges");
        for (layers, mount) in [(0, 1000), (1, 110_000), (1000, 110_999)] {
            assert_eq!(map.show(layers), mount, "shown {layers}");
            assert_eq!(map.keep(mount), layers, "kept {mount}");
        }
        assert_eq!(map.show(70_000), OVERFLOW, "no range holds it");
        assert!(IdMap::parse("0:1000").is_err(), "a pair is refused");
        assert!(IdMap::parse("0:1000:x").is_err(), "a word is refused");
    }
}
