//! Which events a client asks for.

use std::collections::BTreeMap;

use layerd_api::{Event, EventQuery};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// A client's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// The values that each key may have.
    wanted: BTreeMap<String, Vec<String>>,
}

impl Filter {
    /// Reads a query.
    ///
    /// # Errors
    /// `InvalidArgument`, by the part that makes no sense.
    pub(crate) fn parse(query: &EventQuery) -> Result<Self> {
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for term in query.filter.iter().flat_map(|filter| filter.split(',')) {
            if term.is_empty() {
                continue;
            }
            let Some((key, value)) = term.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(refused(term, "it is not KEY=VALUE"));
            };
            wanted.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        let since = query.since.as_deref().map(time).transpose()?;
        let until = query.until.as_deref().map(time).transpose()?;
        Ok(Self { since, until, wanted })
    }

    /// Whether an event is wanted, times not looked at.
    pub(crate) fn fits(&self, event: &Event) -> bool {
        self.wanted.iter().all(|(key, values)| values.iter().any(|value| has(event, key, value)))
    }
}

/// Whether an event has a value: an id by its beginning, one of several in an attribute.
fn has(event: &Event, key: &str, value: &str) -> bool {
    match key {
        "type" => event.kind == value,
        "action" => event.action == value,
        "id" => {
            let digits = event.id.strip_prefix("sha256:").unwrap_or(&event.id);
            event.id.starts_with(value) || digits.starts_with(value)
        }
        other => {
            let found = event.attributes.get(other);
            found.is_some_and(|found| found == value || found.split(',').any(|one| one == value))
        }
    }
}

/// Reads `SECONDS[.FRACTION]` since 1970; what is later than a time can be is the last one.
fn time(text: &str) -> Result<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let lawful = !seconds.is_empty() && digits(seconds) && digits(fraction) && fraction.len() <= 9;
    let nanos = format!("{seconds}{fraction:0<9}").parse::<u128>().ok().filter(|_| lawful);
    nanos
        .map(|nanos| Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX)))
        .ok_or_else(|| refused(text, "a time is seconds since 1970, such as 1700000000.5"))
}

fn refused(what: &str, reason: &'static str) -> Error {
    Error::refused("filter events", what, reason, ErrorKind::InvalidArgument)
}

#[cfg(test)]
mod tests {
    use super::super::Note;
    use super::*;

    fn parse(filter: &str) -> Result<Filter> {
        Filter::parse(&EventQuery { filter: Some(filter.to_owned()), ..EventQuery::default() })
    }

    #[test]
    fn values_are_alternatives_and_keys_are_not() {
        let note = Note::new("image", "import", "sha256:abcdef").with("names", "a:1,b:2");
        let event = note.with("driver", "vfs").into_event(1, Timestamp::default());
        for (filter, expected) in [
            ("", true),
            ("type=image", true),
            ("type=layer", false),
            ("type=layer,type=image", true),
            ("type=image,action=remove", false),
            ("type=image,action=remove,action=import", true),
            ("id=sha256:ab", true),
            ("id=abc", true),
            ("id=bc", false),
            ("names=b:2,driver=vfs", true),
            ("names=b", false),
            ("colour=red", false),
        ] {
            assert_eq!(parse(filter).expect(filter).fits(&event), expected, "{filter}");
        }
        for filter in ["type", "=image", "type=image,x"] {
            let error = parse(filter).expect_err(filter);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{filter}: {error}");
        }
    }

    #[test]
    fn times_are_seconds_with_a_fraction() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1700000000", Some(1_700_000_000_000_000_000)),
            ("1700000000.5", Some(1_700_000_000_500_000_000)),
            ("1.000000001", Some(1_000_000_001)),
            ("1.", Some(1_000_000_000)),
            ("", None),
            (".5", None),
            ("-1", None),
            ("1.0000000001", None),
            ("1e3", None),
            ("2026-11-24T00:00:00Z", None),
            ("99999999999999999999", Some(i64::MAX)),
        ] {
            assert_eq!(time(text).ok(), expected.map(Timestamp::from_nanos), "{text}");
        }
    }
}
