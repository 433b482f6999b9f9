//! What the calls mean for the store: Docker's layers, which know no commit, on snapshots, which do.

use std::collections::BTreeMap;

use drivers::Usage;

use super::NAMESPACE;
use crate::catalogue::{Labels, SnapshotKind};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{NewSnapshot, Store};

/// A layer that Docker wants to have made.
#[derive(Debug)]
pub(super) struct NewLayer {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    pub(super) options: BTreeMap<String, String>,
}

/// Makes a writable layer; its parent is committed if it was not.
pub(super) fn create(store: &Store, layer: NewLayer) -> Result<()> {
    if let Some(parent) = &layer.parent {
        freeze(store, parent)?;
    }
    let mut options = layer.options;
    let size = options.remove("size").map(|text| size(&text)).transpose()?;
    let new = NewSnapshot {
        key: layer.id,
        parent: layer.parent,
        view: false,
        driver: None,
        labels: Labels::new(),
        size,
        options,
    };
    store.prepare(NAMESPACE, &new).map(drop)
}

/// Commits a layer under its own id, if it is not committed yet.
fn freeze(store: &Store, id: &str) -> Result<()> {
    if store.stat_snapshot(NAMESPACE, id)?.kind == SnapshotKind::Committed {
        return Ok(());
    }
    match store.freeze_snapshot(NAMESPACE, id, Labels::new()) {
        // Another child came first.
        Err(_) if store.stat_snapshot(NAMESPACE, id)?.kind == SnapshotKind::Committed => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Applies a tar to a layer that was just made, and commits it.
///
/// A layer on which it fails is as it was before, so that Docker's next try, or its removal, finds
/// nothing of the first one.
pub(super) fn apply(store: &Store, id: &str, tar: &mut dyn std::io::Read) -> Result<Usage> {
    let before = store.stat_snapshot(NAMESPACE, id)?;
    if before.kind != SnapshotKind::Active {
        return Err(Error::refused(
            "apply to layer",
            id,
            "it is committed: a tar was applied to it, or it has children",
            ErrorKind::FailedPrecondition,
        ));
    }
    let outcome = store.apply_snapshot(NAMESPACE, id, tar).and_then(|_| {
        freeze(store, id)?;
        store.snapshot_usage(NAMESPACE, id)
    });
    if outcome.is_err() {
        let parent = before.parent;
        let again = store.remove_snapshot(NAMESPACE, id).and_then(|()| {
            create(store, NewLayer { id: id.to_owned(), parent, options: BTreeMap::new() })
        });
        if let Err(error) = again {
            tracing::warn!(id, %error, "a layer whose tar was refused is gone");
        }
    }
    outcome
}

/// Removes a layer; one that does not exist is removed already, as Docker's own drivers have it.
pub(super) fn remove(store: &Store, id: &str) -> Result<()> {
    match store.remove_snapshot(NAMESPACE, id) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// A size as Docker writes it: a number with an optional unit, `b`, `k`, `m`, `g`, `t`, `p`, of 1024,
/// with or without a trailing `b` or `ib`.
pub(super) fn size(text: &str) -> Result<u64> {
    let refused = || {
        let reason = "not a size such as 120G or 512m";
        Error::refused("parse option size", text, reason, ErrorKind::InvalidArgument)
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(refused()),
    };
    let unit = 1024_u64.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(refused);
    }
    let (whole, fraction) = number.split_once('.').ok_or_else(refused)?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| refused())? };
    let thousandths = format!("{fraction:0<3}");
    let thousandths =
        thousandths.get(..3).and_then(|t| t.parse::<u64>().ok()).ok_or_else(refused)?;
    let bytes = whole.checked_mul(unit).and_then(|bytes| {
        bytes.checked_add(unit / 1000 * thousandths + unit % 1000 * thousandths / 1000)
    });
    bytes.filter(|bytes| *bytes > 0).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        let cases = [
            ("1", 1),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("10GiB", 10 << 30),
            ("1.5k", 1536),
            (".5k", 512),
            ("2 g", 2 << 30),
            ("1T", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text).expect(text), bytes, "{text}");
        }
        for text in
            ["", "m", "-1", "0", "1x", "1.2.3k", "1e3", "99999999999999999999", "17000p", "."]
        {
            assert!(size(text).is_err(), "{text:?} was accepted");
        }
    }
}
