//! Events: what the daemon does, as it does it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventLine {
    /// Something was done.
    Event(Event),
    /// Events are missing here: the daemon keeps the last ones only, and the reader was too slow.
    Lost(Lost),
}

/// One thing that the daemon did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The event's number; numbers have no gaps, and begin with 1 at the daemon's start.
    pub seq: u64,
    /// When it was done: RFC 3339 in UTC, to the nanosecond.
    pub time: String,
    /// What it was done to: `daemon`, `layer`, `snapshot`, `image`, `container`, `pool`, `gc`; or
    /// `operation`, for a request that failed.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was done: `commit`, `remove`, ...
    pub action: String,
    /// Which one: a layer's name in its driver, a snapshot's key, an image's or container's id.
    pub id: String,
    /// What else is known of it, by name.
    pub attributes: BTreeMap<String, String>,
}

/// A gap in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// `lost`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many events are missing.
    pub count: u64,
}

impl Lost {
    /// A gap of so many events.
    pub fn new(count: u64) -> Self {
        Self { kind: "lost".to_owned(), count }
    }
}

/// The query of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// Events from this time on, of those that the daemon still has: seconds since 1970, with up to
    /// nine digits after a point. None is from now on.
    pub since: Option<String>,
    /// The stream ends at this time.
    pub until: Option<String>,
    /// `KEY=VALUE,...`: the values of one key are alternatives, the keys must all fit.
    pub filter: Option<String>,
}
