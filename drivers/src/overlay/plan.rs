//! Which mount shows a layer.

use std::path::{Path, PathBuf};

use super::{DIFF, WORK};
use crate::driver::{Access, State};
use crate::home::{Home, Layer};
use crate::id::LayerId;

/// One mount that shows a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// A single directory: overlayfs takes no lone lower, and a bind mount is as good and faster.
    Bind {
        /// The layer whose own directory is shown.
        layer: LayerId,
        /// Whether it may be written to.
        writable: bool,
    },
    /// Layers merged.
    Merge(Merge),
}

/// Layers that are shown as one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    /// The layer that takes the writes, if any.
    pub(super) upper: Option<LayerId>,
    /// The layers below, the uppermost first.
    pub(super) lowers: Vec<LayerId>,
}

/// The directories of a merge, named relative to one that holds them all: ids are plain, whatever
/// the name of the home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    /// The absolute path of the directory that holds them.
    pub(crate) base: PathBuf,
    /// The lower directories, the uppermost first.
    pub(crate) lowers: Vec<PathBuf>,
    /// The upper directory and its work directory.
    pub(crate) upper: Option<(PathBuf, PathBuf)>,
}

impl Merge {
    /// Where the layers are.
    pub(super) fn stack(&self, home: &Home) -> Stack {
        let of = |id: &LayerId, name: &str| Path::new(id.as_str()).join(name);
        Stack {
            base: home.layers_path(),
            lowers: self.lowers.iter().map(|id| of(id, DIFF)).collect(),
            upper: self.upper.as_ref().map(|id| (of(id, DIFF), of(id, WORK))),
        }
    }
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
                Self::Merge(Merge { upper: Some(own), lowers })
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
            Err(lowers) => Self::Merge(Merge { upper: None, lowers }),
        }
    }

    /// Whether the mount can be written to.
    pub(super) fn writable(&self) -> bool {
        match self {
            Self::Bind { writable, .. } => *writable,
            Self::Merge(merge) => merge.upper.is_some(),
        }
    }
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
        Plan::Merge(Merge { upper: upper.map(id), lowers })
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
}
