//! Which mount shows a layer, and how it is written down.

use std::path::Path;

use super::options::Features;
use super::{DIFF, WORK};
use crate::driver::{Access, Mount, State};
use crate::home::{Home, Layer};
use crate::id::LayerId;

/// One mount that shows a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// A single directory: overlayfs takes no lone lower, and a bind mount is as good and faster.
    Bind {
        /// The layer whose own directory is shown.
        layer: LayerId,
        /// Whether it may be written to.
        writable: bool,
    },
    /// Layers merged.
    Overlay {
        /// The layer that takes the writes, if any.
        upper: Option<LayerId>,
        /// The layers below, the uppermost first.
        lowers: Vec<LayerId>,
    },
}

impl Plan {
    /// Decides for `layer`, whose ancestors are `below`, the uppermost first.
    pub(super) fn new<'a>(
        layer: &Layer,
        below: impl IntoIterator<Item = &'a LayerId>,
        access: Access,
    ) -> Self {
        let mut lowers: Vec<LayerId> = below.into_iter().cloned().collect();
        let state = layer.state();
        let own = layer.id.clone();
        if state == State::Active && access == Access::Default {
            return if lowers.is_empty() {
                Self::Bind { layer: own, writable: true }
            } else {
                Self::Overlay { upper: Some(own), lowers }
            };
        }
        // A view of something has no directory of its own.
        if state != State::View || lowers.is_empty() {
            lowers.insert(0, own);
        }
        Self::read_only(lowers)
    }

    /// Shows some layers together, the uppermost first.
    pub(super) fn read_only(layers: Vec<LayerId>) -> Self {
        match <[LayerId; 1]>::try_from(layers) {
            Ok([layer]) => Self::Bind { layer, writable: false },
            Err(lowers) => Self::Overlay { upper: None, lowers },
        }
    }

    /// Whether the mount can be written to.
    pub(super) fn writable(&self) -> bool {
        match self {
            Self::Bind { writable, .. } => *writable,
            Self::Overlay { upper, .. } => upper.is_some(),
        }
    }

    /// The mount in the words of mount(8). `escape` protects the option string's own commas and
    /// backslashes in paths, for clients that join the options; fsconfig(2) takes them bare.
    pub(super) fn describe(&self, home: &Home, features: &Features, escape: Escape) -> Mount {
        match self {
            Self::Bind { layer, writable } => Mount {
                fstype: "bind".to_owned(),
                source: home.layer_path(layer, DIFF),
                options: vec!["rbind".to_owned(), if *writable { "rw" } else { "ro" }.to_owned()],
            },
            Self::Overlay { upper, lowers } => {
                let mut options = features.mount_options(upper.is_some(), escape == Escape::Single);
                let lowers: Vec<_> = lowers
                    .iter()
                    .map(|id| escape_lower(&home.layer_path(id, DIFF), escape))
                    .collect();
                options.push(format!("lowerdir={}", lowers.join(":")));
                if let Some(upper) = upper {
                    for (key, name) in [("upperdir", DIFF), ("workdir", WORK)] {
                        let path = home.layer_path(upper, name);
                        options.push(format!("{key}={}", escape_dir(&path, escape)));
                    }
                }
                Mount { fstype: "overlay".to_owned(), source: "overlay".into(), options }
            }
        }
    }
}

/// For whom paths are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// A client, with one option string for mount(2) that is cut at commas.
    Joined,
    /// The driver itself, with one value at a time.
    Single,
}

/// A path in `lowerdir=`, where a colon separates and a backslash escapes; a comma would end the
/// option (Documentation/filesystems/overlayfs.rst, "Multiple lower layers").
fn escape_lower(path: &Path, escape: Escape) -> String {
    let text = path.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
    if escape == Escape::Joined { text.replace(',', "\\,") } else { text }
}

/// A path in `upperdir=` or `workdir=`.
fn escape_dir(path: &Path, escape: Escape) -> String {
    let text = path.display().to_string();
    if escape == Escape::Joined { text.replace('\\', "\\\\").replace(',', "\\,") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::meta::Meta;

    fn id(text: &str) -> LayerId {
        text.parse().unwrap()
    }

    fn plan(state: State, below: &[&str], access: Access) -> Plan {
        let below: Vec<LayerId> = below.iter().map(|text| id(text)).collect();
        let parent = below.first().cloned();
        Plan::new(&Layer::new(Meta::new(id("me"), parent, state)), &below, access)
    }

    fn bind(layer: &str, writable: bool) -> Plan {
        Plan::Bind { layer: id(layer), writable }
    }

    fn overlay(upper: Option<&str>, lowers: &[&str]) -> Plan {
        let lowers = lowers.iter().map(|text| id(text)).collect();
        Plan::Overlay { upper: upper.map(id), lowers }
    }

    #[test]
    fn every_state_has_its_mount() {
        use Access::{Default, ReadOnly};
        use State::{Active, Committed, View};
        let cases = [
            (Active, &[][..], Default, bind("me", true)),
            (Active, &[], ReadOnly, bind("me", false)),
            (Active, &["1"], Default, overlay(Some("me"), &["1"])),
            (Active, &["1"], ReadOnly, overlay(None, &["me", "1"])),
            (Committed, &[], Default, bind("me", false)),
            (Committed, &["2", "1"], Default, overlay(None, &["me", "2", "1"])),
            (View, &[], Default, bind("me", false)),
            (View, &["1"], Default, bind("1", false)),
            (View, &["2", "1"], ReadOnly, overlay(None, &["2", "1"])),
        ];
        for (state, below, access, expected) in cases {
            let got = plan(state, below, access);
            assert_eq!(got, expected, "{state:?} on {below:?}, {access:?}");
            let writable = state == Active && access == Default;
            assert_eq!(got.writable(), writable, "{state:?} on {below:?}, {access:?}");
        }
    }

    #[test]
    fn paths_are_escaped_for_their_reader() {
        let path = Path::new("/a:b,c\\d");
        assert_eq!(escape_lower(path, Escape::Joined), "/a\\:b\\,c\\\\d");
        assert_eq!(escape_lower(path, Escape::Single), "/a\\:b,c\\\\d");
        assert_eq!(escape_dir(path, Escape::Joined), "/a:b\\,c\\\\d");
        assert_eq!(escape_dir(path, Escape::Single), "/a:b,c\\d");
    }
}
