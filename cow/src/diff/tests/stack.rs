//! A stack of layers with the kernel's overlay over it.

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;

use super::*;
use crate::change::Change;
use crate::diff::{overlay, trees};
use crate::meta::Meta;
use crate::walk::{Vanished, Walk};
use crate::whiteout::XattrSpace;

/// Layers in a directory, and the overlay mounts of them. The mounts are attached nowhere and go
/// away with their fds.
pub(super) struct Stack {
    pub(super) dir: tempfile::TempDir,
    /// Uppermost first.
    pub(super) lowers: Vec<PathBuf>,
    options: &'static str,
    space: XattrSpace,
    merged: Option<OwnedFd>,
}

/// Whether the kernel's overlay can be mounted; says why not.
pub(super) fn can_mount() -> bool {
    let overlay =
        fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("overlay"));
    crate::testing::is_root() && crate::testing::can("needs overlayfs", overlay)
}

impl Stack {
    pub(super) fn new(options: &'static str) -> Self {
        let space = match options.contains("userxattr") {
            true => XattrSpace::User,
            false => XattrSpace::Trusted,
        };
        let dir = tempfile::tempdir().unwrap();
        Self { dir, lowers: Vec::new(), options, space, merged: None }
    }

    /// Puts a layer that is made of files on top.
    pub(super) fn layer(&mut self, paths: &[&str]) {
        let path = self.dir.path().join(format!("lower{}", self.lowers.len()));
        fs::create_dir(&path).unwrap();
        make(&path, paths);
        settle(&path);
        self.lowers.insert(0, path);
    }

    /// Makes the present upper directory a lower layer, as a commit does.
    pub(super) fn commit(&mut self) {
        self.merged = None;
        let path = self.dir.path().join(format!("lower{}", self.lowers.len()));
        fs::rename(self.upper(), &path).unwrap();
        self.lowers.insert(0, path);
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    /// Mounts the stack (again) with its upper directory; the path leads into the mount.
    pub(super) fn mount(&mut self) -> PathBuf {
        self.merged = None;
        let (upper, work) = (self.upper(), self.dir.path().join("work"));
        for path in [&upper, &work] {
            fs::create_dir_all(path).unwrap();
        }
        let writable = format!("upperdir={} workdir={}", upper.display(), work.display());
        let fd = self.overlay(&self.lowers, &writable);
        let path = crate::at::magic_path(fd.as_fd());
        self.merged = Some(fd);
        path.into()
    }

    fn overlay(&self, lowers: &[PathBuf], more: &str) -> OwnedFd {
        let mut options: Vec<_> =
            lowers.iter().map(|lower| format!("lowerdir+={}", lower.display())).collect();
        options.extend(more.split(' ').chain(self.options.split(',')).map(str::to_owned));
        options.retain(|option| !option.is_empty());
        cow_sys::mount::mount_fs("overlay", Path::new("overlay"), &options).unwrap()
    }

    /// What the upper directory alone tells.
    pub(super) fn found(&self) -> crate::Result<Changeset> {
        let lowers: Vec<_> = self.lowers.iter().map(root).collect();
        overlay(&root(self.upper()), &lowers.iter().collect::<Vec<_>>(), self.space)
    }

    /// Runs a shell script in the merged tree and compares both answers; returns the lines.
    pub(super) fn check(&mut self, script: &str) -> Vec<String> {
        let merged = self.mount();
        let output = Command::new("sh").args(["-euc", script]).current_dir(&merged).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {text}\n{}", self.tree());
        self.agree(script)
    }

    /// Compares what the upper directory tells with the double walk of the merged trees with and
    /// without it.
    pub(super) fn agree(&mut self, what: &str) -> Vec<String> {
        // A mount caches names and attributes; a new one sees what is on disk.
        self.mount();
        let found = self.found().unwrap_or_else(|error| panic!("{what}: {error}\n{}", self.tree()));
        let empty = self.dir.path().join("empty");
        fs::create_dir_all(&empty).unwrap();
        let mut below = self.lowers.clone();
        // One layer alone is no overlay.
        below.push(empty);
        let below = Root::from_fd(self.overlay(&below, ""), "below");
        let merged = Root::from_fd(self.merged.take().unwrap(), "merged");
        let exact = trees(Some(&below), &merged).unwrap();
        assert_eq!(lines(&found), lines(&exact), "{what}\n{}", self.tree());
        for change in &found.changes {
            self.places(change, &merged, what);
        }
        lines(&found)
    }

    /// Checks that metadata and content are where the change says.
    fn places(&self, change: &Change, merged: &Root, what: &str) {
        let Some(at) = &change.meta else { return };
        let place = |index: usize| match index.checked_sub(1) {
            None => root(self.upper()),
            Some(lower) => root(&self.lowers[lower]),
        };
        let real = place(at.root).meta(&at.path).unwrap().unwrap();
        let shown = merged.meta(&change.path).unwrap().unwrap();
        let facts = |meta: &Meta| (meta.kind, meta.mode, meta.uid, meta.mtime);
        assert_eq!(facts(&real), facts(&shown), "{what}: metadata of {change:?}");
        assert_eq!(change.data.is_some(), shown.is_file(), "{what}: {change:?}");
        if let Some(data) = &change.data {
            let real = place(data.root).open_file(&data.path).unwrap();
            let shown = merged.open_file(&change.path).unwrap();
            let same = crate::compare::content(real, shown).unwrap();
            assert!(same, "{what}: content of {change:?}");
        }
    }

    /// The upper directory as text, for the message of a failed test.
    pub(super) fn tree(&self) -> String {
        let mut text = String::new();
        let upper = root(self.upper());
        let mut walk = Walk::new(&upper, Vanished::Fail).unwrap();
        while let Some(entry) = walk.next_entry().unwrap() {
            let xattrs = crate::xattr::read_at(entry.dir, entry.name).unwrap();
            let marks: Vec<_> = xattrs
                .iter()
                .map(|(attr, value)| {
                    format!("{}={}", attr.display(), String::from_utf8_lossy(value).escape_debug())
                })
                .collect();
            let kind = entry.meta.kind;
            writeln!(text, "{} {kind:?} {}", entry.path.display(), marks.join(" ")).unwrap();
        }
        text
    }
}
