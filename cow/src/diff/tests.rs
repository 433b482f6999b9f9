//! Tables of both comparisons; those of overlay mount the kernel's to compare with.

mod mounted;
mod random;
mod stack;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use crate::change::{ChangeKind, Changeset};
use crate::root::Root;

/// A changeset as lines: the kind's letter and the path.
fn lines(changes: &Changeset) -> Vec<String> {
    let line = |change: &crate::change::Change| {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'M',
            ChangeKind::Deleted => 'D',
        };
        format!("{letter} {}", change.path.display())
    };
    changes.changes.iter().map(line).collect()
}

/// Makes files (with their own path as content) and, for a trailing slash, directories.
fn make(base: &Path, paths: &[&str]) {
    for path in paths {
        let full = base.join(path);
        if path.ends_with('/') {
            fs::create_dir_all(full).unwrap();
        } else {
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, path).unwrap();
        }
    }
}

/// Sets all times of a tree to one.
fn settle(base: &Path) {
    let status = std::process::Command::new("find")
        .args([".", "-exec", "touch", "-h", "-d", "@1000000.5", "{}", "+"])
        .current_dir(base)
        .status();
    assert!(status.unwrap().success(), "touch");
}

fn root(path: impl Into<PathBuf>) -> Root {
    Root::open(path.into()).unwrap()
}
