//! What a crash or an accident leaves in a home, and how it is mended.
//!
//! Leftovers in `tmp` and `trash` are deleted. A directory in `layers` that cannot be read as a
//! layer is moved to `quarantine`, never deleted: its data may be all that is left of something. A
//! committed layer that can be read is never touched. An active layer is no damage.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::mounts::unmount;
use super::{Home, Layer, MODE, fs, lock};
use crate::call::HomeCall;
use crate::driver::{Finding, State};
use crate::error::Result;
use crate::id::LayerId;
use crate::mountinfo::MountEntry;

/// What can be done about a finding.
#[derive(Debug)]
enum Remedy {
    /// Delete a leftover from `tmp` or `trash`.
    Delete,
    /// Move a directory of `layers` aside.
    Quarantine,
    /// Make an empty directory with this mode.
    MakeDir(u32),
    /// Take off a mount that no layer has.
    Unmount(PathBuf),
    /// Nothing: a person must decide.
    None,
}

/// One finding with its remedy.
#[derive(Debug)]
struct Case {
    layer: Option<LayerId>,
    path: PathBuf,
    problem: String,
    remedy: Remedy,
}

impl Case {
    fn finding(&self) -> Finding {
        Finding {
            layer: self.layer.clone(),
            path: self.path.clone(),
            problem: self.problem.clone(),
            repairable: !matches!(self.remedy, Remedy::None),
        }
    }
}

/// A directory that a layer must have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Required {
    /// Its name in the layer's directory.
    pub(crate) name: &'static str,
    /// Whether it holds what the layer is made of; otherwise an empty one can replace it.
    pub(crate) data: bool,
}

impl Home {
    /// Looks for damage. `required` names the directories that a layer must have.
    pub(crate) fn check(&self, required: impl Fn(&Layer) -> Vec<Required>) -> Result<Vec<Finding>> {
        Ok(self.cases("check", required)?.iter().map(Case::finding).collect())
    }

    /// Mends what can be mended and says what it did.
    pub(crate) fn repair(
        &self,
        required: impl Fn(&Layer) -> Vec<Required>,
    ) -> Result<Vec<Finding>> {
        let call = HomeCall { driver: self.driver, op: "repair" };
        let mut done = Vec::new();
        for case in self.cases("repair", required)? {
            let finding = case.finding();
            if finding.repairable {
                self.mend(call, case)?;
                done.push(finding);
            }
        }
        Ok(done)
    }

    fn cases(
        &self,
        op: &'static str,
        required: impl Fn(&Layer) -> Vec<Required>,
    ) -> Result<Vec<Case>> {
        let call = HomeCall { driver: self.driver, op };
        let mut cases = Vec::new();
        // Mounts first: what is mounted in a leftover must go before the leftover can.
        self.find_stray_mounts(call, &mut cases)?;
        self.find_leftovers(call, &mut cases)?;
        self.find_strangers(call, &mut cases)?;
        for (id, why) in self.index.broken() {
            cases.push(Case {
                path: Path::new("layers").join(&id),
                layer: Some(id),
                problem: why,
                remedy: Remedy::Quarantine,
            });
        }
        let layers = self.layers();
        for layer in &layers {
            self.find_missing_dirs(call, layer, &required(layer), &mut cases)?;
        }
        self.find_broken_stacks(&mut cases);
        Ok(cases)
    }

    fn find_stray_mounts(&self, call: HomeCall, cases: &mut Vec<Case>) -> Result<()> {
        let table = self.mounts_below(call)?;
        let held = |entry: &MountEntry| {
            entry.mount_point.ancestors().find_map(|path| self.layer_of_mount(path)).is_some_and(
                |id| self.layer(self.call(call.op, &id)).is_ok_and(|l| l.mounted().count > 0),
            )
        };
        for entry in table.into_iter().filter(|entry| !held(entry)) {
            let path = entry.mount_point.strip_prefix(&self.path).unwrap_or(&entry.mount_point);
            cases.push(Case {
                layer: None,
                path: path.to_owned(),
                problem: format!("a {} that no layer has is mounted here", entry.fstype),
                remedy: Remedy::Unmount(entry.mount_point.clone()),
            });
        }
        Ok(())
    }

    fn find_leftovers(&self, call: HomeCall, cases: &mut Vec<Case>) -> Result<()> {
        for (dir, fd, problem) in [
            ("tmp", &self.tmp, "left over from a creation that did not end"),
            ("trash", &self.trash, "left over from a removal that did not end"),
        ] {
            for name in fs::names(fd).map_err(|error| call.failed(error))? {
                // Names lifted out of a deep tree begin with the name that is busy.
                let text = name.to_string_lossy();
                let busy = lock(&self.busy).iter().any(|busy| text.starts_with(busy.as_str()));
                if !busy {
                    cases.push(Case {
                        layer: None,
                        path: Path::new(dir).join(&name),
                        problem: problem.to_owned(),
                        remedy: Remedy::Delete,
                    });
                }
            }
        }
        Ok(())
    }

    /// Finds names in `layers` that are no ids.
    fn find_strangers(&self, call: HomeCall, cases: &mut Vec<Case>) -> Result<()> {
        for name in fs::names(&self.layers).map_err(|error| call.failed(error))? {
            if name.to_str().is_none_or(|name| name.parse::<LayerId>().is_err()) {
                cases.push(Case {
                    layer: None,
                    path: Path::new("layers").join(&name),
                    problem: "not a layer".to_owned(),
                    remedy: Remedy::Quarantine,
                });
            }
        }
        Ok(())
    }

    fn find_missing_dirs(
        &self,
        call: HomeCall,
        layer: &Layer,
        required: &[Required],
        cases: &mut Vec<Case>,
    ) -> Result<()> {
        for dir in required {
            let path = layer.id.as_ref().join(dir.name);
            if fs::exists(&self.layers, &path).map_err(|error| call.failed(error))? {
                continue;
            }
            let remedy = match (dir.data, layer.state()) {
                (false, _) => Remedy::MakeDir(MODE),
                // Nothing of it is left, and nothing was promised.
                (true, State::Active | State::View) => Remedy::Quarantine,
                (true, State::Committed) => Remedy::None,
            };
            let path = match remedy {
                Remedy::Quarantine => Path::new("layers").join(&layer.id),
                _ => Path::new("layers").join(path),
            };
            cases.push(Case {
                layer: Some(layer.id.clone()),
                path,
                problem: format!("the layer's {} directory is missing", dir.name),
                remedy,
            });
            if dir.data {
                break;
            }
        }
        Ok(())
    }

    /// Finds parents that are gone, not committed, or in a circle: nothing that can be mended.
    fn find_broken_stacks(&self, cases: &mut Vec<Case>) {
        let layers = self.layers();
        let mut sound: HashSet<LayerId> = HashSet::new();
        for layer in &layers {
            let problem = self.walk_down(layer, &mut sound);
            if let Some(problem) = problem {
                cases.push(Case {
                    layer: Some(layer.id.clone()),
                    path: Path::new("layers").join(&layer.id),
                    problem,
                    remedy: Remedy::None,
                });
            }
        }
    }

    /// Follows the parents of a layer until one that is known to be sound, so that the whole check
    /// costs one step a layer.
    fn walk_down(&self, top: &Layer, sound: &mut HashSet<LayerId>) -> Option<String> {
        let mut path = vec![top.id.clone()];
        let mut next = top.meta().parent.clone();
        while let Some(id) = next {
            if sound.contains(&id) {
                break;
            }
            if path.contains(&id) {
                return Some("its parents go round in a circle".to_owned());
            }
            let Ok(parent) = self.layer(self.call("check", &id)) else {
                return Some(format!("its parent {id} is missing or unreadable"));
            };
            if parent.state() != State::Committed {
                return Some(format!("its parent {id} is not committed"));
            }
            next = parent.meta().parent.clone();
            path.push(id);
        }
        // A top that is not committed is no parent, however sound what is below it.
        let from = usize::from(top.state() != State::Committed);
        sound.extend(path.into_iter().skip(from));
        None
    }

    fn mend(&self, call: HomeCall, case: Case) -> Result<()> {
        let failed = |error| call.failed(error);
        match case.remedy {
            Remedy::Delete => {
                let in_tmp = case.path.starts_with("tmp");
                let name = case.path.file_name().unwrap_or_default();
                let place = if in_tmp { &self.tmp } else { &self.trash };
                self.deleter.delete(place, name).map_err(failed)
            }
            Remedy::Quarantine => self.quarantine(call, &case),
            Remedy::MakeDir(mode) => {
                fs::make_dir(&self.root, &case.path, mode).map(drop).map_err(failed)
            }
            Remedy::Unmount(path) => unmount(&path, true)
                .or_else(|errno| match errno {
                    rustix::io::Errno::INVAL | rustix::io::Errno::NOENT => Ok(()),
                    errno => Err(errno),
                })
                .map_err(|errno| call.sys("umount", path, errno)),
            Remedy::None => Ok(()),
        }
    }

    /// Moves something in `layers` aside under a fresh name.
    fn quarantine(&self, call: HomeCall, case: &Case) -> Result<()> {
        use rustix::fs::RenameFlags;
        let aside = fs::ensure_dir(&self.root, "quarantine", MODE).map_err(|e| call.failed(e))?;
        let removal = match &case.layer {
            Some(id) => match self.index.take_out(self.call(call.op, id)) {
                Ok(removal) => Some(removal),
                // Its children are broken with it; they keep their claim on the id.
                Err(error) if error.kind() == crate::error::ErrorKind::InUse => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let name = case.path.file_name().unwrap_or_default();
        for serial in 0_u64.. {
            let mut fresh = name.to_owned();
            fresh.push(format!(".{serial}"));
            let moved = rustix::fs::renameat_with(
                &self.root,
                &case.path,
                &aside,
                &fresh,
                RenameFlags::NOREPLACE,
            );
            match moved {
                Ok(()) => break,
                Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(call.sys("rename", &case.path, errno)),
            }
        }
        if let Some(removal) = removal {
            removal.confirm();
        } else if let Some(id) = &case.layer {
            self.index.forget(id);
        }
        Ok(())
    }
}
