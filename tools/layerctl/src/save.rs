//! Writing what a command made into a file: whole or not at all.

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::context::Session;

/// The name that means standard output.
const STDOUT: &str = "-";

/// Where a command's file goes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Output {
    /// The file to make; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the file if it is there already
    #[arg(short, long)]
    pub(crate) force: bool,
}

impl Output {
    /// The file; none for standard output.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new(STDOUT))
    }

    /// Writes all of it. A file gets its name when it is complete and on disk, and replaces another
    /// one only if that was asked for.
    pub(crate) fn write(&self, session: &Session, content: &[u8]) -> anyhow::Result<()> {
        match self.file() {
            Some(path) => {
                save(path, self.force, content).with_context(|| format!("write {}", path.display()))
            }
            None => {
                let mut out = session.out();
                out.write_all(content)?;
                Ok(out.flush()?)
            }
        }
    }
}

fn save(path: &Path, replace: bool, content: &[u8]) -> anyhow::Result<()> {
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    // The umask takes its part, as of every file that a program makes for its user.
    let mut file = tempfile::Builder::new()
        .prefix(".layerctl-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    let named = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    named.map_err(|failed| failed.error)?;
    Ok(File::open(dir)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_if_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("page");
        let names = || std::fs::read_dir(dir.path()).expect("a listing").count();
        let text = || std::fs::read_to_string(&path).expect("the file");
        save(&path, false, b"one").expect("a new file");
        let refused = save(&path, false, b"two").expect_err("it is there");
        let kind = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        assert_eq!(kind, Some(std::io::ErrorKind::AlreadyExists), "{refused:#}");
        assert_eq!((text().as_str(), names()), ("one", 1), "nothing has changed");
        save(&path, true, b"three").expect("it is replaced");
        assert_eq!((text().as_str(), names()), ("three", 1), "and nothing else is there");
    }
}
