//! The three dialects of the socket, as a client of the load speaks them.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cow_sys::mount;
use layerd_api::{Client, CommitSnapshotRequest, SnapshotRequest};
use tonic::Code;

use super::Failure;
use crate::docker::Docker;
use crate::grpc::Grpc;

/// The snapshotter that the load is to containerd's dialect.
pub const SNAPSHOTTER: &str = "load";
/// How long a mount may be busy.
const BUSY: Duration = Duration::from_secs(60);

/// A dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// containerd's snapshots service over gRPC.
    Grpc,
    /// Docker's graph-driver plugin.
    Docker,
    /// layerd's own, under `/v1/`.
    V1,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Grpc, Self::Docker, Self::V1];
}

/// Where a snapshot's tree is.
#[derive(Debug)]
pub(super) enum Tree {
    /// To be mounted by the client.
    Mounts(Vec<(String, PathBuf, Vec<String>)>),
    /// Mounted by the daemon.
    Dir(PathBuf),
}

impl Tree {
    /// Makes the tree appear, at `target` if it is for the client to choose.
    pub(super) fn show(self, target: &Path) -> Result<PathBuf, Failure> {
        match self {
            Self::Dir(dir) => Ok(dir),
            Self::Mounts(mounts) => {
                for (fstype, source, options) in mounts {
                    mount::mount_at(&fstype, &source, &options, std::fs::File::open(target)?)?;
                }
                Ok(target.to_owned())
            }
        }
    }
}

/// A connection in one of the dialects.
pub(super) enum Connection {
    Grpc(Box<Grpc>),
    Docker(Docker),
    V1(Client),
}

impl Connection {
    pub(super) fn open(dialect: Dialect, socket: &Path) -> Result<Self, Failure> {
        Ok(match dialect {
            Dialect::Grpc => Self::Grpc(Box::new(Grpc::connect(socket, SNAPSHOTTER)?)),
            Dialect::Docker => Self::Docker(Docker::connect(socket)?),
            Dialect::V1 => Self::V1(Client::new(socket)),
        })
    }

    pub(super) fn prepare(&mut self, key: &str, parent: Option<&str>) -> Result<(), Failure> {
        match self {
            Self::Grpc(client) => drop(client.prepare(key, parent.unwrap_or_default())?),
            Self::Docker(client) => client.create(key, parent.unwrap_or_default())?,
            Self::V1(client) => {
                let parent = parent.map(str::to_owned);
                let key = key.to_owned();
                drop(client.prepare(&SnapshotRequest { key, parent, ..Default::default() })?);
            }
        }
        Ok(())
    }

    pub(super) fn mounts(&mut self, key: &str) -> Result<Tree, Failure> {
        Ok(match self {
            Self::Grpc(client) => {
                let mounts = client.mounts(key)?.into_iter();
                Tree::Mounts(mounts.map(|m| (m.r#type, m.source.into(), m.options)).collect())
            }
            Self::Docker(client) => Tree::Dir(client.get(key)?),
            Self::V1(client) => {
                let mounts = client.snapshot_mounts(key)?.into_iter();
                Tree::Mounts(mounts.map(|m| (m.fstype, m.source.into(), m.options)).collect())
            }
        })
    }

    /// Takes the tree away again.
    pub(super) fn hide(&mut self, key: &str, target: &Path) -> Result<(), Failure> {
        match self {
            Self::Docker(client) => client.put(key)?,
            Self::Grpc(_) | Self::V1(_) => unmount(target)?,
        }
        Ok(())
    }

    /// Makes a snapshot immutable, and gives its name from now on. Docker knows no commit: a layer is
    /// committed when it becomes a parent.
    pub(super) fn commit(&mut self, key: &str) -> Result<String, Failure> {
        let name = self.committed(key);
        match self {
            Self::Grpc(client) => client.commit(key, &name)?,
            Self::Docker(_) => {}
            Self::V1(client) => {
                let (key, name) = (key.to_owned(), name.clone());
                let request = CommitSnapshotRequest { key, name, labels: Default::default() };
                drop(client.commit_snapshot(&request)?);
            }
        }
        Ok(name)
    }

    /// The name under which a snapshot is committed.
    pub(super) fn committed(&self, key: &str) -> String {
        match self {
            Self::Docker(_) => key.to_owned(),
            Self::Grpc(_) | Self::V1(_) => format!("{key} committed"),
        }
    }

    pub(super) fn remove(&mut self, key: &str) -> Result<(), Failure> {
        match self {
            Self::Grpc(client) => client.remove(key)?,
            Self::Docker(client) => client.remove(key)?,
            Self::V1(client) => client.remove_snapshot(key)?,
        }
        Ok(())
    }

    /// Removes what may be there, mounted or not.
    pub(super) fn clear(&mut self, key: &str) -> Result<(), Failure> {
        match self {
            Self::Grpc(client) => match client.remove(key) {
                Err(status) if status.code() == Code::NotFound => Ok(()),
                outcome => Ok(outcome?),
            },
            Self::Docker(client) => {
                if client.exists(key)? {
                    client.put(key)?;
                    client.remove(key)?;
                }
                Ok(())
            }
            Self::V1(client) => match client.remove_snapshot(key) {
                Err(error) if error.is_not_found() => Ok(()),
                outcome => Ok(outcome?),
            },
        }
    }
}

/// Opens a target directory, made if it is not there.
pub(super) fn target(path: PathBuf) -> io::Result<PathBuf> {
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(path),
    }
}

/// Takes away a client's mount. Files of it may still be open in a process that another test starts: it
/// has copies of all of ours from its fork until it runs its program. So a busy mount is tried again for
/// a while, as containerd does.
fn unmount(target: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + BUSY;
    loop {
        match mount::unmount(target, false) {
            Err(error)
                if error.io().kind() == io::ErrorKind::ResourceBusy
                    && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => return Ok(outcome?),
        }
    }
}
