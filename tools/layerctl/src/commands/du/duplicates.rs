//! Contents that the layers of the store have more than once, from the lists of files that it keeps.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;

use layerd_api::{Client, Info, LayerFile, LayerSummary};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Session;
use crate::inspect::lossy;
use crate::names::{printable, short};
use crate::template::Template;
use crate::{output, units};

/// How many contents are held in memory at once: the table of these takes 50 MiB. A store with more is read several
/// times, each time for a part of the digests.
const HELD: u64 = 900_000;
/// How many contents are told, those first that take the most space.
const MOST: usize = 1000;
/// How many places of each are told.
const PLACES: usize = 16;
/// How many of both a person is shown.
const SHOWN: usize = 20;

/// Where a driver's status says what is shared by reflinks.
const SHARED: &str = "Dedupe";

const TABLE: &str =
    "table {{.Bytes}}\\t{{.Copies}}\\t{{.Size}}\\t{{.Layers}}\\t{{.SHA256}}\\t{{.Paths}}";
const HEADINGS: &[(&str, &str)] = &[("Bytes", "DUPLICATE")];

/// The report. Bytes are of file content.
#[derive(Debug, Serialize)]
struct Report {
    /// Bytes of all files.
    stored: u64,
    /// Bytes that one copy of each content would save.
    duplicate: u64,
    /// How many contents there are more than once.
    contents: u64,
    /// What is duplicate and yet stored once, in the words of the drivers that know.
    reflinked: BTreeMap<String, String>,
    /// The largest of them.
    duplicates: Vec<Duplicate>,
}

#[derive(Debug, Serialize)]
struct Duplicate {
    sha256: String,
    /// The length of one.
    size: u64,
    /// How many there are, in all layers and drivers.
    copies: u64,
    /// What all but one take.
    bytes: u64,
    /// Where they are, sixteen at most.
    places: Vec<Place>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Place {
    /// The layer's chainID.
    layer: String,
    path: String,
}

/// What is counted of one content.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    size: u64,
    copies: u64,
}

/// The digest of a content.
type Sha256 = [u8; 32];

pub(super) fn run(session: &Session, template: Option<&Template>) -> anyhow::Result<ExitCode> {
    let client = &session.context()?.client;
    let mut report = gather(client, &client.layers()?)?;
    report.reflinked = reflinked(client.info()?);
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = report.duplicates.iter().map(row).collect();
    if let Some(template) = template {
        output::lines(&mut out, template, HEADINGS, &rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    use std::io::Write as _;
    writeln!(out, "{:>9} in files of all layers", units::size(report.stored))?;
    let (bytes, contents) = (units::size(report.duplicate), report.contents);
    writeln!(out, "{bytes:>9} duplicate: {contents} contents are there more than once")?;
    for (driver, shared) in &report.reflinked {
        writeln!(out, "{:>9} of it, in {driver}: {shared}", "")?;
    }
    if !rows.is_empty() {
        writeln!(out)?;
        let rows = &rows[..rows.len().min(SHOWN)];
        output::lines(&mut out, &Template::parse(TABLE)?, HEADINGS, rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What drivers say that files of several layers share on the disk.
fn reflinked(info: Info) -> BTreeMap<String, String> {
    let said = info.drivers.into_iter().filter_map(|(driver, rows)| {
        let shared = rows.into_iter().find(|(fact, _)| fact == SHARED)?.1;
        Some((driver, shared)).filter(|(_, shared)| shared != "off")
    });
    said.collect()
}

fn row(duplicate: &Duplicate) -> Value {
    let paths = duplicate.places.iter().take(3);
    let paths: Vec<_> =
        paths.map(|place| format!("{}:/{}", short(&place.layer), printable(&place.path))).collect();
    let more = if duplicate.copies > 3 { ", …" } else { "" };
    let mut layers: Vec<_> = duplicate.places.iter().map(|place| &place.layer).collect();
    layers.dedup();
    let layers = match duplicate.places.len() {
        PLACES => format!("{}+", layers.len()),
        _ => layers.len().to_string(),
    };
    json!({
        "Bytes": units::size(duplicate.bytes),
        "Size": units::size(duplicate.size),
        "Copies": duplicate.copies,
        "Layers": layers,
        "SHA256": duplicate.sha256[..12],
        "Paths": format!("{}{more}", paths.join(", ")),
    })
}

/// Counts in as many rounds as the memory allows, then looks where the largest are.
fn gather(client: &Client, layers: &[LayerSummary]) -> anyhow::Result<Report> {
    let files: u64 = layers.iter().filter_map(|l| l.kept.first()).map(|k| k.usage.inodes).sum();
    let parts = files.div_ceil(HELD).max(1);
    let mut report = Report {
        stored: 0,
        duplicate: 0,
        contents: 0,
        reflinked: BTreeMap::new(),
        duplicates: Vec::new(),
    };
    let mut largest: Vec<(Sha256, Count)> = Vec::new();
    for part in 0..parts {
        let mut counts: HashMap<Sha256, Count> = HashMap::new();
        each_file(client, layers, &mut |layer, digest, file| {
            if part_of(&digest, parts) != part {
                return;
            }
            let count = counts.entry(digest).or_default();
            count.size = file.stored.unwrap_or(file.size);
            count.copies += layer.kept.len() as u64;
        })?;
        report.stored += counts.values().map(|count| count.size * count.copies).sum::<u64>();
        let several = counts.into_iter().filter(|(_, count)| count.copies > 1);
        for (digest, count) in several {
            report.duplicate += count.bytes();
            report.contents += 1;
            largest.push((digest, count));
        }
        largest.sort_unstable_by(|a, b| b.1.bytes().cmp(&a.1.bytes()).then(a.0.cmp(&b.0)));
        largest.truncate(MOST);
    }
    report.duplicates = located(client, layers, &largest)?;
    Ok(report)
}

impl Count {
    /// What all but one take.
    fn bytes(&self) -> u64 {
        self.size * (self.copies - 1)
    }
}

/// Says where some contents are.
fn located(
    client: &Client,
    layers: &[LayerSummary],
    wanted: &[(Sha256, Count)],
) -> anyhow::Result<Vec<Duplicate>> {
    let at = wanted.iter().enumerate().map(|(at, (digest, _))| (*digest, at));
    let at: HashMap<Sha256, usize> = at.collect();
    let mut found: Vec<Duplicate> = wanted
        .iter()
        .map(|(digest, count)| Duplicate {
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            size: count.size,
            copies: count.copies,
            bytes: count.bytes(),
            places: Vec::new(),
        })
        .collect();
    if found.is_empty() {
        return Ok(found);
    }
    each_file(client, layers, &mut |layer, digest, file| {
        let places = at.get(&digest).and_then(|at| found.get_mut(*at)).map(|d| &mut d.places);
        if let Some(places) = places.filter(|places| places.len() < PLACES) {
            let path = lossy(&file.path.clone().into_bytes());
            let path = path.trim_start_matches("./").trim_start_matches('/').to_owned();
            places.push(Place { layer: layer.chain_id.clone(), path });
        }
    })?;
    Ok(found)
}

/// Calls `visit` with each regular file of each layer that has content, names of one file but once.
fn each_file(
    client: &Client,
    layers: &[LayerSummary],
    visit: &mut dyn FnMut(&LayerSummary, Sha256, &LayerFile),
) -> anyhow::Result<()> {
    for layer in layers.iter().filter(|layer| layer.size > 0) {
        for file in client.layer_files(&layer.chain_id)? {
            let file = file?;
            if file.kind == "file"
                && file.size > 0
                && let Some(digest) = file.sha256.as_deref().and_then(parse)
            {
                visit(layer, digest, &file);
            }
        }
    }
    Ok(())
}

/// Reads 64 hexadecimal digits.
fn parse(hex: &str) -> Option<Sha256> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

/// Which of so many parts a digest is in.
fn part_of(digest: &Sha256, parts: u64) -> u64 {
    let begin = digest.first_chunk().copied().map_or(0, u64::from_be_bytes);
    begin % parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_and_spread() {
        let digest = parse(&"0f".repeat(32)).expect("a digest");
        assert_eq!(digest, [15; 32], "two digits a byte");
        for bad in ["", "0f", &"xy".repeat(32), &"ü".repeat(32)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let mut counts = [0; 3];
        for first in 0..=255 {
            let mut digest = digest;
            digest[7] = first;
            let part = usize::try_from(part_of(&digest, 3)).expect("small");
            counts[part] += 1;
        }
        assert!(counts.iter().all(|count| *count > 80), "about as many in each: {counts:?}");
        assert_eq!(part_of(&digest, 1), 0, "all in one");
    }
}
