//! Containers: an image's config with the client's changes, over a snapshot.

use cow::change::ChangeKind;
use drivers::Mount;
use layerd_api::ContainerSpec;

use super::{Store, pending};
use crate::catalogue::{Container, Image};
use crate::error::Result;

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
        pending("create container of image", &new.image)
    }

    /// All containers, the newest first. One whose process is gone is shown as exited.
    pub fn containers(&self) -> Result<Vec<Container>> {
        Ok(Vec::new())
    }

    /// Finds a container by id, name, or beginning of an id.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidArgument` when several ids begin so.
    pub fn container(&self, reference: &str) -> Result<Container> {
        pending("find container", reference)
    }

    /// How a container's root file system is mounted, in order.
    pub fn container_mounts(&self, reference: &str) -> Result<Vec<Mount>> {
        pending("mounts of container", reference)
    }

    /// Takes note of what a runtime reports.
    ///
    /// # Errors
    /// `FailedPrecondition` for a report that does not fit the state.
    pub fn report_container(&self, reference: &str, report: Report) -> Result<Container> {
        let _ = report;
        pending("report of container", reference)
    }

    /// Removes a container and its snapshot.
    ///
    /// # Errors
    /// `InUse` while it runs.
    pub fn remove_container(&self, reference: &str) -> Result<Container> {
        pending("remove container", reference)
    }

    /// The paths that a container changed, in order.
    pub fn container_changes(&self, reference: &str) -> Result<Vec<PathChange>> {
        pending("changes of container", reference)
    }

    /// Makes an image of a container's image and changes; the container may be running.
    pub fn commit_container(&self, reference: &str, commit: &CommitContainer) -> Result<Image> {
        let _ = commit;
        pending("commit container", reference)
    }
}
