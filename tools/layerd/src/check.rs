//! `layerd check`: whether a store that nobody has open is sound, and mending it.
//!
//! Looking changes nothing: the catalogue is compared as a copy in memory, and what would be mended
//! is mended there, so that one fault is not told again as its consequences. That the catalogue is
//! behind the layers is no fault (see [`crate::catalogue`]).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use drivers::Driver;

use crate::catalogue::{Catalogue, Change as _, Durability, Lookup as _};
use crate::error::{Error, ErrorKind, Result};
use crate::reconcile::garbage::{self, Waste};
use crate::reconcile::{self, Severity, Step};
use crate::root::{Access, CATALOGUE, Root};
use crate::store::{Opener, open_catalogue, open_driver, with_state};

/// One thing that is or was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, for a person.
    pub problem: String,
    /// Whether something that a client was promised is damaged or gone. Otherwise it is what a crash
    /// leaves, and the next start clears it away by itself.
    pub damage: bool,
    /// Whether it has been mended.
    pub mended: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that is or was wrong; empty for a sound store.
    pub findings: Vec<Finding>,
    /// How many images there are, afterwards.
    pub images: usize,
    /// How many layers there are in all drivers, afterwards.
    pub layers: usize,
}

/// How a store is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Mend what can be mended.
    pub repair: bool,
    /// Driver options, as the daemon gets them.
    pub storage_opts: Vec<String>,
}

/// Checks the store of a root directory, and mends it when asked to.
///
/// # Errors
/// When it could not be looked at: `InUse` while a daemon has it open, `NotFound` when there is no
/// store.
pub fn check(root: &Path, options: &CheckOptions) -> Result<Report> {
    check_with(root, options, &open_driver)
}

/// The same with drivers of the caller's own making.
pub fn check_with(root: &Path, options: &CheckOptions, opener: &Opener) -> Result<Report> {
    let access = if options.repair { Access::Mend } else { Access::Look };
    let root = Root::open(root, access)?;
    let mut report = Report::default();
    if root.lost_format() {
        report.note("format.json is missing".to_owned(), true, options.repair);
    }
    let catalogue = catalogue(&root, options.repair, &mut report)?;
    let mut check = Check { root, catalogue, repair: options.repair, report };
    let drivers = check.drivers(&options.storage_opts, opener)?;
    for driver in &drivers {
        check.driver(&**driver)?;
    }
    let blind = check.images()?;
    for driver in &drivers {
        if !blind {
            check.garbage(&**driver)?;
        }
        check.report.layers += driver.list().map_err(|e| Error::driver("check", e))?.len();
    }
    check.report.images = check.catalogue.read()?.images()?.len();
    Ok(check.report)
}

impl Report {
    fn note(&mut self, problem: String, damage: bool, mended: bool) {
        if !self.findings.iter().any(|finding| finding.problem == problem) {
            self.findings.push(Finding { problem, damage, mended });
        }
    }
}

/// Opens the catalogue itself for mending, or a copy of it for looking; an empty one where it is lost.
fn catalogue(root: &Root, repair: bool, report: &mut Report) -> Result<Catalogue> {
    let bytes = root.read_catalogue()?;
    let copy = Catalogue::open_copy(bytes.as_deref().unwrap_or_default());
    match (&bytes, copy) {
        (Some(_), Ok(copy)) if !repair => return Ok(copy),
        (Some(_), Ok(_)) => {}
        (None, _) => report.note(format!("{CATALOGUE} is missing"), true, repair),
        (Some(_), Err(error)) if error.kind() == ErrorKind::Corrupt => {
            report.note(format!("{CATALOGUE} is damaged: {error}"), true, repair);
        }
        (Some(_), Err(error)) => return Err(error),
    }
    if repair { open_catalogue(root) } else { Catalogue::open_copy(&[]) }
}

struct Check {
    root: Root,
    catalogue: Catalogue,
    repair: bool,
    report: Report,
}

impl Check {
    /// Opens every driver that has layers here.
    fn drivers(&mut self, opts: &[String], opener: &Opener) -> Result<Vec<Arc<dyn Driver>>> {
        let mut drivers = Vec::new();
        for name in with_state(&self.root)? {
            match opener(name, &self.root.path().join(name), opts) {
                Ok(driver) => drivers.push(driver),
                // A set-up that was cut off before it began, of a driver that must be told what to
                // begin with: nothing is there that could be damaged.
                Err(error)
                    if error.kind() == drivers::ErrorKind::InvalidArgument
                        && opts.is_empty()
                        && !self.root.has_layers(name)? => {}
                Err(error) => {
                    self.report.note(
                        format!("driver {name} cannot be opened: {error}"),
                        true,
                        false,
                    );
                }
            }
        }
        Ok(drivers)
    }

    /// Checks one driver by itself, and the catalogue against its layers.
    fn driver(&mut self, driver: &dyn Driver) -> Result<()> {
        let name = driver.name();
        let failed = |e| Error::driver(format!("check {name}"), e);
        let mut seen = BTreeSet::new();
        let mut note = |report: &mut Report, finding: &drivers::Finding, mended: bool| {
            let path = finding.path.display().to_string();
            if seen.insert((path.clone(), finding.problem.clone())) {
                let problem = format!("{name}: {path}: {}", finding.problem);
                report.note(problem, !finding.repairable, mended);
            }
        };
        if self.repair {
            for finding in driver.repair().map_err(failed)? {
                note(&mut self.report, &finding, true);
            }
        }
        for finding in driver.check().map_err(failed)? {
            note(&mut self.report, &finding, false);
        }
        let infos = driver.list().map_err(failed)?;
        let steps = reconcile::layers::plan(&self.catalogue.read()?, name, &infos)?;
        self.take(&steps)
    }

    /// Checks the catalogue against the image files. The answer is whether some cannot be read, so
    /// that nothing may be called garbage.
    fn images(&mut self) -> Result<bool> {
        let plan = reconcile::images::plan(&self.catalogue.read()?, &self.root)?;
        self.take(&plan.steps)?;
        Ok(plan.blind && !self.repair)
    }

    fn take(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps.iter().filter(|step| step.severity != Severity::Behind) {
            let damage = step.severity == Severity::Damage;
            self.report.note(step.problem.clone(), damage, self.repair);
        }
        let steps: Vec<&Step> = steps.iter().collect();
        reconcile::take(&self.catalogue, self.repair.then_some(&self.root), &steps)
    }

    /// Looks for layers that nothing refers to.
    fn garbage(&mut self, driver: &dyn Driver) -> Result<()> {
        let name = driver.name();
        let failed = |e| Error::driver(format!("check {name}"), e);
        let infos = driver.list().map_err(failed)?;
        for Waste { chain, info } in garbage::find(&self.catalogue.read()?, name, &infos)? {
            let problem = match &chain {
                Some(chain) => format!("{name}: layer {} of chain {chain} is in no image", info.id),
                None => format!("{name}: layer {} belongs to nobody", info.id),
            };
            self.report.note(problem, false, self.repair);
            if !self.repair {
                continue;
            }
            if let Some(chain) = &chain {
                self.catalogue.write(Durability::Now, |w| {
                    w.delete_layer(name, chain, &info.id, info.parent.as_ref())
                })?;
            }
            driver.remove(&info.id).map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
