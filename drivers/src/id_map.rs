//! Whose files a layer shows: the ids of a container's user namespace as the host sees them.
//!
//! Layers keep the ids that containers know. A layer that is made with maps is *mounted* with them, by
//! id-mapped mounts (mount_setattr(2)): files of the container's root belong to the root that the host
//! knows it by, and what is written comes back to the disk with the container's ids. Nothing is copied,
//! and layers below are shared with containers that have other maps or none.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use cow::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// How many extents the kernel takes for one map (user_namespaces(7)).
const MAX_EXTENTS: usize = 340;

/// Some ids in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first id in the container, and on the disk.
    pub container: u32,
    /// The first id on the host.
    pub host: u32,
    /// How many there are.
    pub size: u32,
}

impl Extent {
    /// The ids past the last ones, or none if they are past the end of all ids.
    fn ends(self) -> Option<(u32, u32)> {
        Some((self.container.checked_add(self.size)?, self.host.checked_add(self.size)?))
    }
}

/// The map of one kind of ids, written `container:host:size,...` as containerd's labels have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdMap(Vec<Extent>);

impl IdMap {
    /// A map of these extents.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty or overlapping extent, for too many, and for a map that leaves
    /// out the container's root.
    pub fn new(extents: Vec<Extent>) -> Result<Self> {
        let map = Self(extents);
        let invalid =
            |reason: &str| Error::invalid("read id map", map.to_string(), reason.to_owned());
        if map.0.len() > MAX_EXTENTS {
            return Err(invalid("the kernel takes 340 extents"));
        }
        for (at, extent) in map.0.iter().enumerate() {
            let Some((container, host)) = extent.ends().filter(|_| extent.size > 0) else {
                return Err(invalid("an extent is empty or goes past the last id"));
            };
            let meets = |other: &Extent| {
                let (others, theirs) = other.ends().unwrap_or_default();
                (extent.container < others && other.container < container)
                    || (extent.host < theirs && other.host < host)
            };
            if map.0[..at].iter().any(meets) {
                return Err(invalid("extents overlap"));
            }
        }
        match map.host(0) {
            Some(_) => Ok(map),
            None => Err(invalid("the container's root, 0, is not mapped")),
        }
    }

    /// What the host knows an id of the container as.
    #[must_use]
    pub fn host(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|extent| {
            let offset = id.checked_sub(extent.container)?;
            (offset < extent.size).then(|| extent.host + offset)
        })
    }

    /// Whether every id stays what it is.
    fn is_identity(&self) -> bool {
        self.0.iter().all(|extent| extent.container == extent.host)
    }

    /// The lines that the kernel takes.
    ///
    /// The host's root is mapped to an id that no container has: a daemon may then make files in the
    /// mount before it gives them to the container, which the kernel refuses to those that are not
    /// mapped (`EOVERFLOW`).
    fn lines(&self) -> String {
        let line =
            |extent: &Extent| format!("{} {} {}\n", extent.container, extent.host, extent.size);
        let mut lines: String = self.0.iter().map(line).collect();
        let free = self.0.iter().filter_map(|extent| extent.ends()).map(|(end, _)| end).max();
        let has_root = self.0.iter().any(|extent| extent.host == 0);
        // The last id, -1, is none.
        if let Some(free) = free.filter(|free| *free < u32::MAX && !has_root) {
            lines.push_str(&format!("{free} 0 1\n"));
        }
        lines
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, extent) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{}:{}:{}", extent.container, extent.host, extent.size)?;
        }
        Ok(())
    }
}

impl FromStr for IdMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let extent = |part: &str| {
            let mut words = part.split(':').map(|word| word.parse::<u32>().ok());
            let extent =
                Extent { container: words.next()??, host: words.next()??, size: words.next()?? };
            words.next().is_none().then_some(extent)
        };
        let extents = text.split(',').map(extent).collect::<Option<Vec<_>>>();
        let shape = || {
            let reason = "not container:host:size, or several with commas between".to_owned();
            Error::invalid("read id map", text, reason)
        };
        Self::new(extents.ok_or_else(shape)?)
    }
}

impl TryFrom<String> for IdMap {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<IdMap> for String {
    fn from(map: IdMap) -> Self {
        map.to_string()
    }
}

/// The maps of users and groups, which come together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Of users.
    pub uids: IdMap,
    /// Of groups.
    pub gids: IdMap,
}

impl IdMaps {
    /// The host's ids of the container's root.
    #[must_use]
    pub fn root(&self) -> (u32, u32) {
        (self.uids.host(0).unwrap_or_default(), self.gids.host(0).unwrap_or_default())
    }

    /// Whether they change nothing.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.uids.is_identity() && self.gids.is_identity()
    }

    /// Maps to find out with whether anything can be mapped.
    pub(crate) fn trial() -> Result<Self> {
        let map: IdMap = "0:1000:1000".parse()?;
        Ok(Self { uids: map.clone(), gids: map })
    }

    /// A user namespace with these maps, as mounts take them.
    pub(crate) fn namespace(&self) -> io::Result<OwnedFd> {
        cow_sys::user_namespace::of_maps(&self.uids.lines(), &self.gids.lines())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_written_alike() {
        for text in ["0:100000:65536", "0:0:1", "1:200:5,0:100:1,4294967290:7:5"] {
            let map: IdMap = text.parse().expect(text);
            assert_eq!(map.to_string(), text);
            let json = serde_json::to_string(&map).expect("JSON");
            assert_eq!(serde_json::from_str::<IdMap>(&json).expect("a map"), map, "{json}");
        }
        let map: IdMap = "1:200:5,0:100:1".parse().expect("a map");
        let hosts = [0, 1, 5, 6].map(|id| map.host(id));
        assert_eq!(hosts, [Some(100), Some(200), Some(204), None]);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        // Those of containerd's own test among them.
        let many = (0..341).map(|id| format!("{id}:{id}:1")).collect::<Vec<_>>().join(",");
        for text in [
            "",
            ",",
            "0",
            "0:1",
            "0:1:2:3",
            "a:b:c",
            "0:0:0",
            "-1:-1:-2",
            "-666:-666:-666",
            "1:1:1,-1:-1:-2",
            "1:1:1",
            "0:0:10,9:100:1",
            "0:0:10,10:9:1",
            "0:4294967295:1",
            &many,
        ] {
            let error = text.parse::<IdMap>().expect_err(text);
            assert_eq!(error.kind(), cow::ErrorKind::InvalidArgument, "{text:?}: {error}");
            let json = serde_json::to_string(text).expect("JSON");
            assert!(serde_json::from_str::<IdMap>(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_hosts_root_has_a_place_that_no_container_has() {
        let cases = [
            ("0:1000:10", "0 1000 10\n10 0 1\n"),
            ("20:50:5,0:1000:10", "20 50 5\n0 1000 10\n25 0 1\n"),
            ("0:0:10", "0 0 10\n"),
            ("5:0:1,0:7:1", "5 0 1\n0 7 1\n"),
            ("0:7:1,4294967290:100:5", "0 7 1\n4294967290 100 5\n"),
        ];
        for (text, lines) in cases {
            assert_eq!(text.parse::<IdMap>().expect(text).lines(), lines, "{text}");
        }
    }
}
