//! Containers: an image's config with the client's changes, over a snapshot.
//!
//! The snapshot has the container's id as its key in a namespace of layerd's own, and its layer's
//! metadata file holds the container as it was created.

use std::collections::BTreeMap;
use std::sync::Arc;

use cow::change::ChangeKind;
use drivers::{Driver, Mount};
use layerd_api::ContainerSpec;

use super::{NewSnapshot, Store, names, spec};
use crate::catalogue::{Change as _, Container, Durability, Lookup as _, Snapshot, Status};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;
use crate::image_files;

mod words;

/// The namespace of the snapshots of containers.
pub(crate) const NAMESPACE: &str = "layerd";

/// How often a made-up name may turn out to be taken.
const NAME_TRIES: usize = 64;

/// What a container is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewContainer {
    /// Name, id or beginning of an id of the image.
    pub image: String,
    /// The container's name; none makes one up.
    pub name: Option<String>,
    /// One of the image's drivers; none is its first.
    pub driver: Option<String>,
    /// Whether its runtime is to remove it when it has ended.
    pub auto_remove: bool,
    /// Options that the driver gets for its writable layer.
    pub options: BTreeMap<String, String>,
    /// In place of the image's `Entrypoint`; an empty list means none at all.
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's `Cmd`; empty keeps it.
    pub command: Vec<String>,
    /// Overrides: empty or absent fields keep the image's, `env` is merged by name, `args` is not
    /// looked at.
    pub spec: ContainerSpec,
}

/// What a runtime reports of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its init runs under this process id.
    Running {
        /// The process id on the host.
        pid: i32,
    },
    /// It has ended.
    Exited {
        /// The exit code.
        code: i32,
    },
}

/// How a container's changes become an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitContainer {
    /// The new image's name.
    pub name: Option<String>,
    /// The comment of its history.
    pub comment: Option<String>,
    /// The author.
    pub author: Option<String>,
}

/// One path that a container changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// The path with a leading slash; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What happened.
    pub kind: ChangeKind,
}

impl Store {
    /// Makes a container and its snapshot; starts nothing.
    ///
    /// # Errors
    /// `NotFound` for the image, `AlreadyExists` for a used name, `InvalidArgument` for a name that
    /// is none or when neither image nor request say what to run.
    pub fn create_container(&self, new: &NewContainer) -> Result<Container> {
        const OP: &str = "create container of image";
        let (image, _) = names::image(&self.catalogue.read()?, OP, &new.image)?;
        let driver = match (&new.driver, image.drivers.first()) {
            (Some(wanted), _) if !image.drivers.contains(wanted) => {
                let reason = format!("it is not in driver {wanted}; import it with --driver");
                return Err(Error::refused(OP, &new.image, reason, ErrorKind::InvalidArgument));
            }
            (Some(wanted), _) => wanted.clone(),
            (None, Some(first)) => first.clone(),
            (None, None) => self.default_driver().to_owned(),
        };
        let bytes = image_files::config(&self.root, &image.id)?;
        let config = image_files::parse(bytes, &image.id)?;
        let id = random_hex()?;
        let mut container = Container {
            name: String::new(),
            image: image.id,
            image_name: new.image.clone(),
            driver: driver.clone(),
            status: Status::Created,
            created: Timestamp::now(),
            started: None,
            finished: None,
            auto_remove: new.auto_remove,
            spec: spec::merge(&config.image().config, new)?,
            id,
        };
        let snapshot = NewSnapshot {
            key: container.id.clone(),
            parent: image.layers.last().map(ToString::to_string),
            driver: Some(driver),
            options: new.options.clone(),
            ..NewSnapshot::default()
        };
        if let Some(name) = &new.name {
            container.name = checked_name(name)?;
            self.prepare_for(NAMESPACE, &snapshot, Some(&container))?;
            self.events.tell(Note::container("create", &container));
            return Ok(container);
        }
        for _ in 0..NAME_TRIES {
            container.name = self.made_up_name(&container.id)?;
            match self.prepare_for(NAMESPACE, &snapshot, Some(&container)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    self.events.tell(Note::container("create", &container));
                    return Ok(container);
                }
            }
        }
        Err(Error::refused(OP, &new.image, "no name is left", ErrorKind::AlreadyExists))
    }

    /// A name of two words that is free now; when all of them seem taken, the short id.
    fn made_up_name(&self, id: &str) -> Result<String> {
        let rows = self.catalogue.read()?;
        for _ in 0..NAME_TRIES {
            let name = words::name(random()?);
            if rows.container_of_name(&name)?.is_none() {
                return Ok(name);
            }
        }
        Ok(id.chars().take(12).collect())
    }

    /// All containers, the newest first. One whose process is gone is shown as exited.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut containers = self.catalogue.read()?.containers()?;
        containers.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(containers.into_iter().map(settled).collect())
    }

    /// Finds a container by id, name, or beginning of an id.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidArgument` when several ids begin so.
    pub fn container(&self, reference: &str) -> Result<Container> {
        names::container(&self.catalogue.read()?, "find container", reference).map(settled)
    }

    /// How a container's root file system is mounted, in order.
    pub fn container_mounts(&self, reference: &str) -> Result<Vec<Mount>> {
        let container = self.container(reference)?;
        self.mounts_of(NAMESPACE, &container.id).map(|(_, mounts)| mounts)
    }

    /// What the driver tells of a container's writable layer.
    pub fn container_metadata(&self, reference: &str) -> Result<BTreeMap<String, String>> {
        let container = self.container(reference)?;
        self.snapshot_metadata(NAMESPACE, &container.id)
    }

    /// Takes note of what a runtime reports; it may say so twice, of which nobody is told again.
    ///
    /// # Errors
    /// `FailedPrecondition` for a report that does not fit the state.
    pub fn report_container(&self, reference: &str, report: Report) -> Result<Container> {
        const OP: &str = "report of container";
        if matches!(report, Report::Exited { .. }) {
            // Before the container may be started again, with a mount of its own.
            let container = self.container(reference)?;
            if let Err(error) = self.end_mounts(NAMESPACE, &container.id) {
                tracing::warn!(container = container.id, %error, "its mount stays until it is removed");
            }
        }
        let (container, is_news) = self.catalogue.write(Durability::Soon, |w| {
            let mut container = settled(names::container(w, OP, reference)?);
            let refused = |reason: &'static str| {
                Err(Error::refused(OP, reference, reason, ErrorKind::FailedPrecondition))
            };
            match (report, container.status) {
                (Report::Running { pid }, Status::Running { pid: known, .. }) => {
                    if pid != known {
                        return refused("it runs");
                    }
                    return Ok((container, false));
                }
                (Report::Running { pid }, _) => {
                    let start_ticks = start_ticks(pid).unwrap_or_default();
                    container.status = Status::Running { pid, start_ticks };
                    container.started = Some(Timestamp::now());
                    container.finished = None;
                }
                (Report::Exited { code }, Status::Exited { code: Some(known) }) => {
                    if code != known {
                        return refused("it has ended with another code");
                    }
                    return Ok((container, false));
                }
                (Report::Exited { code }, _) => {
                    container.status = Status::Exited { code: Some(code) };
                    container.finished = Some(Timestamp::now());
                }
            }
            w.put_container(&container)?;
            Ok((container, true))
        })?;
        if !is_news {
            return Ok(container);
        }
        self.events.tell(match report {
            Report::Running { pid } => {
                Note::container("start", &container).with("pid", pid.to_string())
            }
            Report::Exited { code } => {
                Note::container("exit", &container).with("code", code.to_string())
            }
        });
        Ok(container)
    }

    /// Removes a container and its snapshot.
    ///
    /// # Errors
    /// `InUse` while it runs.
    pub fn remove_container(&self, reference: &str) -> Result<Container> {
        let container = self.container(reference)?;
        refuse_running(&container, reference)?;
        self.remove_for(NAMESPACE, &container.id, Some(&container))?;
        self.events.tell(Note::container("remove", &container));
        Ok(container)
    }

    /// The paths that a container changed, in order.
    pub fn container_changes(&self, reference: &str) -> Result<Vec<PathChange>> {
        let container = self.container(reference)?;
        let changes = self.snapshot_changes(NAMESPACE, &container.id, None)?;
        let shown = changes.changes.iter().filter(|change| !change.path.as_os_str().is_empty());
        Ok(shown
            .map(|change| PathChange {
                path: format!("/{}", change.path.to_string_lossy()),
                kind: change.kind,
            })
            .collect())
    }

    /// A container with its snapshot and driver.
    pub(super) fn container_layer(
        &self,
        op: &'static str,
        reference: &str,
    ) -> Result<(Container, Snapshot, Arc<dyn Driver>)> {
        let rows = self.catalogue.read()?;
        let container = names::container(&rows, op, reference)?;
        let snapshot = rows
            .snapshot(NAMESPACE, &container.id)?
            .ok_or_else(|| Error::not_found(op, format!("snapshot of {}", container.name)))?;
        let driver = self.driver(Some(&snapshot.driver))?;
        Ok((container, snapshot, driver))
    }
}

/// Refuses to remove a container that runs.
pub(super) fn refuse_running(container: &Container, reference: &str) -> Result<()> {
    match container.status {
        Status::Running { .. } => {
            let (op, kind) = ("remove container", ErrorKind::InUse);
            Err(Error::refused(op, reference, "it is running", kind))
        }
        _ => Ok(()),
    }
}

/// A container as it is: one whose process is gone without a report (its runtime or the machine
/// went down) has ended, with a code that nobody knows.
pub(super) fn settled(mut container: Container) -> Container {
    if let Status::Running { pid, start_ticks: began } = container.status
        && start_ticks(pid) != Some(began)
    {
        container.status = Status::Exited { code: None };
    }
    container
}

/// When a process began, in clock ticks since the boot: field 22 of `/proc/PID/stat` (proc(5)). None
/// for one that does not exist or has ended and only waits to be reaped.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses, which may hold anything.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    match fields.first()? {
        &"Z" | &"X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

/// A name as Docker allows it: two or more of letters, digits, `_`, `.` and `-`, the first a letter
/// or digit; a slash before it is not part of it.
fn checked_name(name: &str) -> Result<String> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let lawful = (2..=128).contains(&bare.len())
        && bare.bytes().all(rest)
        && bare.as_bytes()[0].is_ascii_alphanumeric();
    if lawful {
        return Ok(bare.to_owned());
    }
    let reason = "not 2 to 128 letters, digits, '_', '.' and '-' after a letter or digit";
    Err(Error::refused("name container", format!("{name:?}"), reason, ErrorKind::InvalidArgument))
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// 64 random hexadecimal digits.
fn random_hex() -> Result<String> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(cow::digest::Digest::from_sha256(bytes).hex())
}

/// getrandom(2) never gives less than asked for up to 256 bytes.
fn fill(bytes: &mut [u8]) -> Result<()> {
    rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())
        .map(drop)
        .map_err(|e| Error::sys("getrandom", "", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_docker() {
        for (name, expected) in [("ab", "ab"), ("/web-1", "web-1"), ("A_b.c", "A_b.c")] {
            assert_eq!(checked_name(name).unwrap(), expected, "{name}");
        }
        for name in ["", "a", "-ab", "a b", "a/b", "é1", "//ab", &"x".repeat(129)] {
            let error = checked_name(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        let ticks = start_ticks(own).unwrap();
        assert!(ticks > 0, "field 22 of our own stat");
        assert_eq!(start_ticks(own), Some(ticks));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert_eq!(start_ticks(pid), None, "a process that was reaped");
        assert_eq!(start_ticks(-1), None);
    }
}
