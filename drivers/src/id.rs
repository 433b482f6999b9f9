//! The name of a layer within one driver.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, ErrorKind};

/// The name of a layer within one driver, safe as a file name: 1 to 64 of `a-z`, `0-9` and `-`,
/// not beginning with `-`.
///
/// The catalogue allots ids; keys that clients choose are arbitrary strings and never become one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct LayerId(String);

impl LayerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for LayerId {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LayerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let lawful = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let ok =
            (1..=64).contains(&text.len()) && text.bytes().all(lawful) && !text.starts_with('-');
        if ok {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(Error::Driver {
            driver: "layer",
            op: "parse id",
            reason: format!("{shown:?} is not 1 to 64 of a-z, 0-9 and -").into(),
            kind: ErrorKind::InvalidArgument,
        })
    }
}

impl<'de> Deserialize<'de> for LayerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_file_names() {
        for good in ["1", "a0-b", &"z".repeat(64)] {
            assert_eq!(good.parse::<LayerId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "A", "-a", "a b", "é", &"z".repeat(65)] {
            assert!(bad.parse::<LayerId>().is_err(), "{bad:?} was accepted");
        }
    }
}
