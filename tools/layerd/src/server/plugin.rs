//! The link by which dockerd finds the socket among its plugins.
//!
//! dockerd looks for `/run/docker/plugins/NAME.sock` and follows links (Docker's plugin discovery); the
//! link goes when the daemon ends. One that leads to another living daemon is left alone.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Where dockerd looks first.
const DIR: &str = "/run/docker/plugins";
const NAME: &str = "layerd.sock";

/// The link; removed by drop.
#[derive(Debug)]
pub(super) struct PluginLink {
    link: PathBuf,
    socket: PathBuf,
}

impl PluginLink {
    /// Makes the socket discoverable.
    pub(super) fn make(socket: &Path) -> Result<Self> {
        Self::make_in(Path::new(DIR), socket)
    }

    fn make_in(dir: &Path, socket: &Path) -> Result<Self> {
        let socket = fs::canonicalize(socket).map_err(|e| Error::sys("realpath", socket, e))?;
        fs::create_dir_all(dir).map_err(|e| Error::sys("mkdir", dir, e))?;
        let link = dir.join(NAME);
        // Else it is the socket itself, or the link that a killed daemon left to this very socket.
        if fs::canonicalize(&link).ok().as_ref() != Some(&socket) {
            make_way(&link)?;
            symlink(&socket, &link).map_err(|e| Error::sys("symlink", &link, e))?;
        }
        Ok(Self { link, socket })
    }
}

impl Drop for PluginLink {
    fn drop(&mut self) {
        let ours = fs::read_link(&self.link).is_ok_and(|target| target == self.socket);
        if ours && let Err(error) = fs::remove_file(&self.link) {
            tracing::warn!(link = %self.link.display(), %error, "the plugin link stays behind");
        }
    }
}

/// Removes a link or socket on which nobody listens any more.
fn make_way(link: &Path) -> Result<()> {
    match UnixStream::connect(link) {
        Ok(_) => {
            let reason = "another plugin listens there";
            let link = link.display().to_string();
            return Err(Error::refused("make the plugin link", link, reason, ErrorKind::InUse));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // A link that leads nowhere, or nothing at all.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::sys("connect", link, error)),
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::sys("unlink", link, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_dead_link_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let (mine, other) = (dir.path().join("mine"), dir.path().join("other"));
        let _mine = UnixListener::bind(&mine).expect("a socket");
        let plugins = dir.path().join("run/plugins");
        let link = plugins.join(NAME);

        let dead = UnixListener::bind(&other).expect("a socket");
        fs::create_dir_all(&plugins).expect("a directory");
        symlink(&other, &link).expect("its link");
        let error = PluginLink::make_in(&plugins, &mine).expect_err("the other one listens");
        assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
        drop(dead);
        // A child of another test has a copy of it until it runs its program.
        let deadline = Instant::now() + Duration::from_secs(60);
        let made = loop {
            match PluginLink::make_in(&plugins, &mine) {
                Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < deadline => {}
                done => break done.expect("the other one is dead"),
            }
        };
        assert!(UnixStream::connect(&link).is_ok(), "the link leads to our socket");
        drop(made);
        assert!(fs::symlink_metadata(&link).is_err(), "the link goes with its daemon");

        symlink(dir.path().join("nowhere"), &link).expect("a link that leads nowhere");
        drop(PluginLink::make_in(&plugins, &mine).expect("a dangling link is replaced"));
    }

    #[test]
    fn the_link_of_a_killed_daemon_is_taken_over() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let mine = dir.path().join("mine");
        let _mine = UnixListener::bind(&mine).expect("a socket");
        std::mem::forget(PluginLink::make_in(dir.path(), &mine).expect("a link"));
        let made = PluginLink::make_in(dir.path(), &mine).expect("the same link again");
        drop(made);
        assert!(fs::symlink_metadata(dir.path().join(NAME)).is_err(), "the link goes at the end");
    }

    #[test]
    fn a_link_that_became_anothers_is_left() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let mine = dir.path().join("mine");
        let _mine = UnixListener::bind(&mine).expect("a socket");
        let made = PluginLink::make_in(dir.path(), &mine).expect("a link");
        let link = dir.path().join(NAME);
        fs::remove_file(&link).expect("someone removes it");
        symlink("elsewhere", &link).expect("and makes another");
        drop(made);
        assert!(fs::symlink_metadata(&link).is_ok(), "the other's link stays");
    }
}
