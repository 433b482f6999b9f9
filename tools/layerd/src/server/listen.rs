//! The socket file: made whole, never taken from a living daemon, removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::error::{Error, ErrorKind, Result};

/// Who may connect besides the owner, where the group exists.
const GROUP: &str = "layerd";
const MODE: u32 = 0o660;
const DIR_MODE: u32 = 0o755;

/// A listening socket; its file is removed by drop.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl Listener {
    /// Listens on `path`, in place of a socket that nobody listens on any more.
    ///
    /// The socket is made under another name and renamed when it has its mode and group, so that
    /// whoever finds it may connect.
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| refused(path, "not a file name"))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(dir)
            .map_err(|e| Error::sys("mkdir", dir, e))?;
        make_way(path)?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        let temporary = dir.join(temporary);
        // Left by a daemon that was killed between bind and rename.
        drop(fs::remove_file(&temporary));
        let listener = Self::bind_at(&temporary, path);
        if listener.is_err() {
            drop(fs::remove_file(&temporary));
        }
        listener
    }

    fn bind_at(temporary: &Path, path: &Path) -> Result<Self> {
        let sys = |op, e| Error::sys(op, path, e);
        let socket = StdListener::bind(temporary).map_err(|e| sys("bind", e))?;
        socket.set_nonblocking(true).map_err(|e| sys("bind", e))?;
        if let Ok(Some(group)) = nix::unistd::Group::from_name(GROUP)
            && let Err(error) = chown(temporary, None, Some(group.gid.as_raw()))
        {
            // A daemon that is not root serves its own user.
            tracing::warn!(group = GROUP, %error, "the socket keeps its group");
        }
        fs::set_permissions(temporary, fs::Permissions::from_mode(MODE))
            .map_err(|e| sys("chmod", e))?;
        let file = identity(temporary).map_err(|e| sys("stat", e))?;
        fs::rename(temporary, path).map_err(|e| sys("rename to", e))?;
        let socket = UnixListener::from_std(socket).map_err(|e| sys("listen on", e))?;
        Ok(Self { socket, path: path.to_owned(), file })
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.socket.accept().await?.0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another daemon may have made its own in the meantime, if someone had removed this one.
        if identity(&self.path).is_ok_and(|file| file == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(socket = %self.path.display(), %error, "the socket stays behind");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Refuses a path that is taken; a socket that refuses connections is not taken, but left over.
fn make_way(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::sys("stat", path, error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(refused(path, "the file exists and is no socket"));
    }
    match StdStream::connect(path) {
        Ok(_) => Err(Error::refused(
            "listen on",
            path.display().to_string(),
            "another daemon listens there",
            ErrorKind::InUse,
        )),
        // Whose socket it was may be removing it just now.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(Error::sys("connect", path, error)),
    }
}

fn refused(path: &Path, reason: &'static str) -> Error {
    Error::refused("listen on", path.display().to_string(), reason, ErrorKind::InvalidArgument)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn dir() -> tempfile::TempDir {
        tempfile::TempDir::new().expect("temporary directory")
    }

    #[tokio::test]
    async fn the_socket_has_its_mode_and_goes_with_the_listener() {
        let dir = dir();
        let path = dir.path().join("a/b/s");
        let listener = Listener::bind(&path).expect("listen in a new directory");
        let mode = fs::symlink_metadata(&path).expect("the socket").permissions().mode();
        assert_eq!(mode & 0o7777, MODE, "the socket's mode");
        assert!(StdStream::connect(&path).is_ok(), "a client may connect");
        let files = fs::read_dir(dir.path().join("a/b")).expect("the directory").count();
        assert_eq!(files, 1, "nothing lies beside the socket");
        drop(listener);
        assert!(!path.exists(), "the socket is removed");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let dir = dir();
        let path = dir.path().join("s");
        drop(StdListener::bind(&path).expect("a daemon that was killed"));
        // Another one was killed before it had renamed its own.
        drop(StdListener::bind(dir.path().join(".s")).expect("its socket"));
        // A child of another test has a copy of it until it runs its program.
        let deadline = Instant::now() + Duration::from_secs(60);
        let first = loop {
            match Listener::bind(&path) {
                Err(error) if error.kind() == ErrorKind::InUse && Instant::now() < deadline => {}
                done => break done.expect("listen in place of the stale socket"),
            }
        };
        let error = Listener::bind(&path).expect_err("the first one listens");
        assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        drop(first);
        Listener::bind(&path).expect("listen again");
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let dir = dir();
        let path = dir.path().join("s");
        fs::write(&path, "precious").expect("write");
        let error = Listener::bind(&path).expect_err("a file is in the way");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_eq!(fs::read(&path).expect("the file"), b"precious", "the file is untouched");

        let taken = dir.path().join("t");
        let listener = Listener::bind(&taken).expect("listen");
        fs::remove_file(&taken).expect("someone removes the socket");
        let other = StdListener::bind(&taken).expect("and another daemon listens there");
        drop(listener);
        assert!(StdStream::connect(&taken).is_ok(), "the other one's socket stays");
        drop(other);
        let long = dir.path().join("x".repeat(120));
        let error = Listener::bind(&long).expect_err("longer than an address may be");
        assert!(error.to_string().contains("xxx"), "the path is named: {error}");
    }
}
