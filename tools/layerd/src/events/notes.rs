//! What an event says.

use std::collections::BTreeMap;
use std::time::Instant;

use cow::digest::ChainId;
use drivers::LayerId;
use layerd_api::Event;

use crate::catalogue::{Container, Image, Layer, Snapshot};
use crate::clock::Timestamp;

/// The longest text of an id or attribute in bytes, so that the events that are kept are bounded;
/// keys of clients can be longer.
const LONGEST: usize = 1024;

/// An event that has not happened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    kind: &'static str,
    action: &'static str,
    id: String,
    attributes: BTreeMap<String, String>,
}

impl Note {
    /// Something done to something.
    pub(crate) fn new(kind: &'static str, action: &'static str, id: impl Into<String>) -> Self {
        Self { kind, action, id: shortened(id.into()), attributes: BTreeMap::new() }
    }

    /// Something done to a layer of a driver.
    pub(crate) fn layer(action: &'static str, driver: &str, layer: &LayerId) -> Self {
        Self::new("layer", action, layer.as_str()).with("driver", driver)
    }

    /// The commit of a layer of images.
    pub(crate) fn committed(driver: &str, chain: &ChainId, layer: &Layer) -> Self {
        Self::layer("commit", driver, &layer.layer)
            .with("chain_id", chain.to_string())
            .with("diff_id", layer.diff_id.to_string())
            .with("size", layer.usage.bytes.to_string())
    }

    /// Something done to a client's snapshot.
    pub(crate) fn snapshot(action: &'static str, namespace: &str, snapshot: &Snapshot) -> Self {
        let note = Self::new("snapshot", action, &*snapshot.key)
            .with("namespace", namespace)
            .with("dialect", dialect(namespace))
            .with("driver", &snapshot.driver)
            .with("layer", snapshot.layer.as_str())
            .with_some("parent", snapshot.parent.as_deref());
        match snapshot.usage {
            Some(usage) => note.with("size", usage.bytes.to_string()),
            None => note,
        }
    }

    /// Something done to an image.
    pub(crate) fn image(action: &'static str, image: &Image) -> Self {
        let names: Vec<&str> = image.names.iter().map(String::as_str).collect();
        Self::new("image", action, image.id.to_string())
            .with("names", names.join(","))
            .with("size", image.size.to_string())
            .with("driver", image.drivers.join(","))
    }

    /// Something done to a container.
    pub(crate) fn container(action: &'static str, container: &Container) -> Self {
        Self::new("container", action, &*container.id)
            .with("name", &*container.name)
            .with("image", &*container.image_name)
            .with("driver", &*container.driver)
    }

    /// The same with one thing more that is known.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.insert(name.to_owned(), shortened(value.into()));
        self
    }

    /// The same with what may be known.
    #[must_use]
    pub(crate) fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The same with how long it took, in seconds.
    #[must_use]
    pub(crate) fn took(self, since: Instant) -> Self {
        self.with("duration", format!("{:.6}", since.elapsed().as_secs_f64()))
    }

    /// The event, now that it has happened.
    pub(super) fn into_event(self, seq: u64, at: Timestamp) -> Event {
        Event {
            seq,
            time: at.to_string(),
            kind: self.kind.to_owned(),
            action: self.action.to_owned(),
            id: self.id,
            attributes: self.attributes,
        }
    }
}

/// The dialect whose clients have a namespace.
fn dialect(namespace: &str) -> &'static str {
    match namespace.split_once('/') {
        Some(("containerd", _)) => "containerd",
        None if namespace == "docker" => "docker",
        _ => "v1",
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let whole = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(whole.unwrap_or_default());
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_bounded_and_keeps_characters_whole() {
        let note = Note::new("snapshot", "prepare", "ü".repeat(LONGEST)).with("key", "short");
        assert_eq!(note.id.chars().count(), LONGEST / 2 + 1, "cut between two characters");
        assert!(note.id.ends_with('…'), "what is cut off is shown to be");
        assert_eq!(note.attributes["key"], "short", "short ones are as they were");
    }

    #[test]
    fn namespaces_tell_the_dialect() {
        let cases = [
            ("docker", "docker"),
            ("containerd/layerd", "containerd"),
            ("v1", "v1"),
            ("layerd", "v1"),
        ];
        for (namespace, expected) in cases {
            assert_eq!(dialect(namespace), expected, "{namespace}");
        }
    }
}
