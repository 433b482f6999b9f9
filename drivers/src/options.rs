//! Storage options: `name=value` as Docker's `--storage-opt` writes them.
//!
//! A name may carry the driver's prefix (`overlay2.size`) or be bare (`size`). One daemon keeps many
//! drivers and has one list of options, so a name with *another* driver's prefix is left to that
//! driver; a bare or own name that this driver does not know is refused by name, with the list of
//! those it knows.

use std::collections::BTreeMap;

use crate::call::HomeCall;
use crate::error::{ErrorKind, Result};

/// The prefixes under which drivers own options.
const PREFIXES: [&str; 6] = ["overlay2", "vfs", "fuse", "btrfs", "devicemapper", "dm"];

/// The options of one driver: known names and given values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given(BTreeMap<String, String>);

impl Given {
    /// Sorts `list` (`name=value` each) for the driver of `call`, which knows the names `known`.
    ///
    /// The last of several values for one name holds, as on every command line.
    pub(crate) fn parse<S: AsRef<str>>(call: HomeCall, known: &[&str], list: &[S]) -> Result<Self> {
        let mut given = BTreeMap::new();
        for text in list.iter().map(AsRef::as_ref) {
            let Some((name, value)) = text.split_once('=') else {
                let reason = format!("option {text:?} is not name=value");
                return Err(call.refused(ErrorKind::InvalidArgument, reason));
            };
            if let Some(name) = own_name(call.driver, name.trim()) {
                check_known(call, known, name)?;
                given.insert(name.to_owned(), value.trim().to_owned());
            }
        }
        Ok(Self(given))
    }

    /// The same for the options of one layer.
    pub(crate) fn of_layer(
        call: HomeCall,
        known: &[&str],
        map: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut given = BTreeMap::new();
        for (name, value) in map {
            let bare = own_name(call.driver, name).unwrap_or(name);
            check_known(call, known, bare)?;
            given.insert(bare.to_owned(), value.clone());
        }
        Ok(Self(given))
    }

    /// The text of an option.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A switch: on, yes, true, 1 or off, no, false, 0.
    pub(crate) fn switch(&self, call: HomeCall, name: &str) -> Result<Option<bool>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "on" | "yes" | "true" | "1" => Ok(Some(true)),
            "off" | "no" | "false" | "0" => Ok(Some(false)),
            _ => {
                let reason = format!("option {name}: {text:?} is neither on nor off");
                Err(call.refused(ErrorKind::InvalidArgument, reason))
            }
        }
    }

    /// A size in bytes (see [`parse_size`]).
    pub(crate) fn size(&self, call: HomeCall, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        parse_size(text).map(Some).ok_or_else(|| {
            let reason = format!("option {name}: {text:?} is no size");
            call.refused(ErrorKind::InvalidArgument, reason)
        })
    }
}

/// The bare name of an option that is this driver's to judge; none for another driver's.
fn own_name<'a>(driver: &str, name: &'a str) -> Option<&'a str> {
    match name.split_once('.') {
        Some((prefix, bare)) if prefix == driver => Some(bare),
        // As Docker writes it.
        Some(("dm", bare)) if driver == "devicemapper" => Some(bare),
        Some((prefix, _)) if PREFIXES.contains(&prefix) => None,
        _ => Some(name),
    }
}

fn check_known(call: HomeCall, known: &[&str], name: &str) -> Result<()> {
    if known.contains(&name) {
        return Ok(());
    }
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let reason = format!("unknown option {name:?}; known options: {list}");
    Err(call.refused(ErrorKind::InvalidArgument, reason))
}

/// Reads a size as Docker does: a number with an optional `b`, `k`, `m`, `g`, `t` (in either case,
/// powers of 1024, with `b` or `ib` behind allowed).
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: HomeCall = HomeCall { driver: "overlay2", op: "open" };

    #[test]
    fn names_are_own_bare_or_anothers() {
        let given =
            Given::parse(CALL, &["size", "xino"], &["overlay2.size=1g", "dm.fs=xfs", "xino=on"])
                .unwrap();
        assert_eq!(given.size(CALL, "size").unwrap(), Some(1 << 30));
        assert_eq!(given.switch(CALL, "xino").unwrap(), Some(true));
        assert_eq!(given.text("fs"), None, "another driver's option was taken");
    }

    #[test]
    fn unknown_names_are_refused_with_the_list() {
        for bad in ["colour=red", "overlay2.colour=red", "aufs.x=1", "size"] {
            let error = Given::parse(CALL, &["size"], &[bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}: {error}");
            let text = error.to_string();
            assert!(
                text.contains(bad.split('=').next().unwrap_or(bad).trim_start_matches("overlay2.")),
                "{text}"
            );
        }
        let error = Given::parse(CALL, &["size"], &["colour=red"]).unwrap_err().to_string();
        assert!(error.contains("known options: size"), "{error}");
    }

    #[test]
    fn values_are_checked() {
        let given = Given::parse(CALL, &["size", "xino"], &["size=lots", "xino=perhaps"]).unwrap();
        assert!(given.size(CALL, "size").is_err());
        assert!(given.switch(CALL, "xino").is_err());
        assert_eq!(given.switch(CALL, "absent").unwrap(), None);
    }

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("10", Some(10)),
            ("10b", Some(10)),
            ("4K", Some(4096)),
            ("1MiB", Some(1 << 20)),
            ("2 gb", Some(2 << 30)),
            ("1t", Some(1 << 40)),
            ("", None),
            ("k", None),
            ("-1", None),
            ("1x", None),
            ("99999999999t", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }
}
