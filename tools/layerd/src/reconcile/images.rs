//! The catalogue against the files of the images.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cow::digest::Digest;
use drivers::NAMES;
use image::Config;

use super::{Mend, Step, shown};
use crate::catalogue::{Image, Lookup, image_child};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::image_files::{self as files, ImageMeta};
use crate::root::Root;

/// What a comparison of the image files with the catalogue says.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What is wrong.
    pub(crate) steps: Vec<Step>,
    /// Whether some image's files cannot be read: then no layer may be called unreferenced.
    pub(crate) blind: bool,
}

/// One image's files, read and proved.
struct Found {
    id: Digest,
    config: Config,
    meta: ImageMeta,
}

/// Compares the image files with the catalogue, whose layers are in step already.
pub(crate) fn plan(rows: &impl Lookup, root: &Root) -> Result<Plan> {
    let mut plan = Plan::default();
    let before: HashMap<Digest, Image> =
        rows.images()?.into_iter().map(|image| (image.id, image)).collect();
    let mut found = Vec::new();
    for name in files::list(root)? {
        match files::id_of_dir(&name) {
            Some(id) => found.extend(read(rows, root, &id, before.get(&id), &mut plan)?),
            None => {
                let problem = format!("images/{name} is no image");
                plan.steps.push(Step::leftover(problem, Mend::RemoveFiles(name)));
            }
        }
    }
    let winners = names(&found);
    for image in &found {
        compare(rows, image, &winners, before.get(&image.id), &mut plan.steps)?;
    }
    let ids: BTreeSet<Digest> = found.iter().map(|image| image.id).collect();
    for image in before.into_values().filter(|image| !ids.contains(&image.id)) {
        if plan.steps.iter().any(|s| s.mend == Mend::RemoveFiles(image.id.hex())) {
            plan.steps.push(Step::damage(
                format!("{} cannot be kept", shown(&image.id, &image.names)),
                Mend::DropImage(Box::new(image)),
            ));
            continue;
        }
        let problem = format!("{} has no files", shown(&image.id, &image.names));
        plan.steps.push(Step::leftover(problem, Mend::DropImage(Box::new(image))));
    }
    Ok(plan)
}

/// Reads one image's files; damage goes into the plan.
fn read(
    rows: &impl Lookup,
    root: &Root,
    id: &Digest,
    row: Option<&Image>,
    plan: &mut Plan,
) -> Result<Option<Found>> {
    let parsed = files::config(root, id).and_then(|bytes| files::parse(bytes, id));
    let config = match parsed {
        Ok(config) => config,
        Err(error @ (Error::Refused { .. } | Error::Sys { .. } | Error::Image { .. })) => {
            plan.blind = true;
            plan.steps.push(Step::damage(error.to_string(), Mend::RemoveFiles(id.hex())));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if let Some(meta) = files::meta(root, id)? {
        return Ok(Some(Found { id: *id, config, meta }));
    }
    let meta = match row {
        Some(row) => ImageMeta {
            names: row.names.clone(),
            drivers: row.drivers.clone(),
            imported: row.imported,
            written: Timestamp::now(),
        },
        None => ImageMeta {
            names: BTreeSet::new(),
            drivers: holders(rows, &config, NAMES.map(str::to_owned).as_slice())?,
            imported: Timestamp::now(),
            written: Timestamp::now(),
        },
    };
    let size = size(rows, &config, &meta.drivers)?;
    let image = files::row(&meta, &config, size);
    let problem = format!("{}: image.json is missing or damaged", shown(id, &meta.names));
    plan.steps.push(Step::leftover(problem, Mend::WriteMeta(Box::new(image))));
    Ok(Some(Found { id: *id, config, meta }))
}

/// Who has each name: of two that claim it, the one whose file was written later.
fn names(found: &[Found]) -> BTreeMap<String, Digest> {
    let mut best: BTreeMap<&String, (Timestamp, Digest)> = BTreeMap::new();
    for image in found {
        for name in &image.meta.names {
            let claim = (image.meta.written, image.id);
            let holder = best.entry(name).or_insert(claim);
            *holder = (*holder).max(claim);
        }
    }
    best.into_iter().map(|(name, (_, id))| (name.clone(), id)).collect()
}

/// The drivers among some that keep every layer of an image.
fn holders(rows: &impl Lookup, config: &Config, among: &[String]) -> Result<Vec<String>> {
    let chains = files::chains(config);
    let mut holders = Vec::new();
    for driver in among {
        let mut whole = true;
        for chain in &chains {
            whole &= rows.layer(driver, chain)?.is_some();
        }
        if whole {
            holders.push(driver.clone());
        }
    }
    Ok(holders)
}

/// The content of an image's layers in bytes, from the first driver that has them.
pub(crate) fn size(rows: &impl Lookup, config: &Config, drivers: &[String]) -> Result<u64> {
    let Some(driver) = drivers.first() else { return Ok(0) };
    let mut size: u64 = 0;
    for chain in files::chains(config) {
        let layer = rows.layer(driver, &chain)?;
        size = size.saturating_add(layer.map_or(0, |layer| layer.content_size));
    }
    Ok(size)
}

fn compare(
    rows: &impl Lookup,
    image: &Found,
    winners: &BTreeMap<String, Digest>,
    row: Option<&Image>,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let mut meta = image.meta.clone();
    meta.names.retain(|name| winners.get(name) == Some(&image.id));
    let shown = shown(&image.id, &meta.names);
    let size = size(rows, &image.config, &meta.drivers)?;
    let expected = files::row(&meta, &image.config, size);
    if meta.names != image.meta.names {
        let problem = format!("{shown}: image.json claims a name of another image");
        steps.push(Step::behind(problem, Mend::WriteMeta(Box::new(expected.clone()))));
    }
    if row != Some(&expected) {
        let problem = match row {
            Some(_) => format!("{shown}: the catalogue differs from image.json"),
            None => format!("{shown} is not in the catalogue"),
        };
        steps.push(Step::behind(problem, Mend::PutImage(Box::new(expected.clone()))));
    }
    children(rows, &expected, steps)?;
    whole(rows, image, expected, steps)
}

/// Every layer must be in every driver that the image says it is in.
fn whole(rows: &impl Lookup, image: &Found, expected: Image, steps: &mut Vec<Step>) -> Result<()> {
    let shown = shown(&image.id, &expected.names);
    let holders = holders(rows, &image.config, &expected.drivers)?;
    if !expected.drivers.is_empty() && holders == expected.drivers {
        return Ok(());
    }
    let lacking: Vec<&str> = expected
        .drivers
        .iter()
        .filter(|driver| !holders.contains(driver))
        .map(String::as_str)
        .collect();
    let problem = format!("{shown}: layers are missing in {}", lacking.join(", "));
    if holders.is_empty() {
        steps.push(Step::damage(problem.clone(), Mend::RemoveFiles(image.id.hex())));
        steps.push(Step::damage(problem, Mend::DropImage(Box::new(expected))));
        return Ok(());
    }
    let kept = Image { drivers: holders, ..expected };
    steps.push(Step::damage(problem.clone(), Mend::WriteMeta(Box::new(kept.clone()))));
    steps.push(Step::damage(problem, Mend::PutImage(Box::new(kept))));
    Ok(())
}

/// An image holds its top layer in each driver.
fn children(rows: &impl Lookup, image: &Image, steps: &mut Vec<Step>) -> Result<()> {
    for (driver, top) in rows.tops(image)? {
        let child = image_child(&image.id);
        if !rows.is_child(&driver, top.as_str(), &child)? {
            let problem = format!("{} does not hold its top layer", shown(&image.id, &image.names));
            let parent = top.as_str().to_owned();
            steps.push(Step::behind(problem, Mend::PutChild { driver, parent, child }));
        }
    }
    Ok(())
}
