//! Bind mounts as the command line writes them.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// A directory or file of the host that the container sees: `SRC:DST[:ro|rw]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container, without `.` and `..`.
    pub destination: PathBuf,
    /// Whether it cannot be written through this mount.
    pub read_only: bool,
}

impl Volume {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a malformed one, a name in place of a path, or a destination that
    /// would take the container's root or `/proc` away.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::invalid("volume", text, reason);
        let mut fields = text.split(':');
        let source = fields.next().unwrap_or_default();
        let destination = fields.next().ok_or_else(|| invalid("must be SRC:DST[:ro]"))?;
        let read_only = match (fields.next(), fields.next()) {
            (None | Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => return Err(invalid("the mode must be ro or rw")),
        };
        if !source.starts_with('/') {
            return Err(invalid("the source must be an absolute path: there are no named volumes"));
        }
        if !destination.starts_with('/') {
            return Err(invalid("the destination must be an absolute path"));
        }
        let destination = clean(Path::new(destination));
        if destination == Path::new("/") {
            return Err(invalid("the destination cannot be /"));
        }
        // What lies about processes lies about confinement (CVE-2019-16884, CVE-2023-28642).
        if destination.starts_with("/proc") {
            return Err(invalid("the destination cannot be in /proc"));
        }
        Ok(Self { source: PathBuf::from(source), destination, read_only })
    }
}

/// Takes `.` and `..` out by the words alone, as docker does.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_docker_writes_them() {
        for (text, source, destination, read_only) in [
            ("/a:/b", "/a", "/b", false),
            ("/a:/b:ro", "/a", "/b", true),
            ("/a:/b:rw", "/a", "/b", false),
            ("/a/../b:/c/./d/../e/", "/a/../b", "/c/e", false),
            ("/a:/../b", "/a", "/b", false),
        ] {
            let expected =
                Volume { source: source.into(), destination: destination.into(), read_only };
            assert_eq!(Volume::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "must be SRC:DST"),
            ("/a", "must be SRC:DST"),
            ("name:/b", "no named volumes"),
            ("./a:/b", "no named volumes"),
            ("/a:b", "destination must be an absolute path"),
            ("/a:", "destination must be an absolute path"),
            ("/a:/", "destination cannot be /"),
            ("/a:/b/..", "destination cannot be /"),
            ("/a:/proc", "cannot be in /proc"),
            ("/a:/x/../proc/1", "cannot be in /proc"),
            ("/a:/b:z", "mode must be ro or rw"),
            ("/a:/b:ro:rw", "mode must be ro or rw"),
        ] {
            let error = Volume::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
