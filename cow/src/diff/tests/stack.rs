//! A stack of layers with the kernel's overlay over it.

use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;

use super::*;
use crate::change::Change;
use crate::diff::{overlay, trees};
use crate::meta::Meta;
use crate::overlay_view::OverlayView;
use crate::walk::{Vanished, Walk};
use crate::whiteout::XattrSpace;

/// Layers in a directory, and the overlay mounts of them. The mounts are attached nowhere and go
/// away with their fds.
pub(super) struct Stack {
    base: Base,
    /// Uppermost first.
    pub(super) lowers: Vec<PathBuf>,
    options: &'static str,
    space: XattrSpace,
    merged: Option<OwnedFd>,
}

/// Where the layers are. In memory if that can have all attributes (Linux 6.6), because every
/// unmount of an overlay syncs the whole file system of its upper directory.
enum Base {
    Memory(OwnedFd),
    Disk(tempfile::TempDir),
}

impl Base {
    fn new() -> Self {
        let memory = cow_sys::mount::mount_fs("tmpfs", Path::new("tmpfs"), &[]).ok();
        let fit = |memory: &OwnedFd| {
            crate::xattr::set_at(memory, "".as_ref(), "user.probe".as_ref(), b"1").is_ok()
                && crate::xattr::remove_at(memory, "".as_ref(), "user.probe".as_ref()).is_ok()
        };
        match memory.filter(fit) {
            Some(memory) => Self::Memory(memory),
            None => Self::Disk(tempfile::tempdir().unwrap()),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Memory(mount) => crate::at::magic_path(mount.as_fd()).into(),
            Self::Disk(dir) => dir.path().to_owned(),
        }
    }
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
        Self { base: Base::new(), lowers: Vec::new(), options, space, merged: None }
    }

    /// Puts a layer that is made of files on top.
    pub(super) fn layer(&mut self, paths: &[&str]) {
        let path = self.base.path().join(format!("lower{}", self.lowers.len()));
        fs::create_dir(&path).unwrap();
        make(&path, paths);
        settle(&path);
        self.lowers.insert(0, path);
    }

    /// Makes the present upper directory a lower layer, as a commit does.
    pub(super) fn commit(&mut self) {
        self.merged = None;
        let path = self.base.path().join(format!("lower{}", self.lowers.len()));
        fs::rename(self.upper(), &path).unwrap();
        self.lowers.insert(0, path);
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.base.path().join("upper")
    }

    /// Mounts the stack (again) with its upper directory; the path leads into the mount.
    pub(super) fn mount(&mut self) -> PathBuf {
        self.merged = None;
        let (upper, work) = (self.upper(), self.base.path().join("work"));
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
        let empty = self.base.path().join("empty");
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
        self.view(&merged, what);
        lines(&found)
    }

    /// Checks that [`OverlayView`] shows every file of the merged tree, and no other.
    fn view(&self, merged: &Root, what: &str) {
        let roots: Vec<_> =
            std::iter::once(self.upper()).chain(self.lowers.clone()).map(root).collect();
        let view = OverlayView::new(roots.iter().collect(), self.space);
        let mut walk = Walk::new(merged, Vanished::Fail).unwrap();
        let mut shown = 0;
        while let Some(entry) = walk.next_entry().unwrap() {
            shown += 1;
            let node = view.resolve(entry.path).unwrap();
            let node = node.unwrap_or_else(|| panic!("{what}: {:?} not found", entry.path));
            let found = crate::compare::metadata(&node.meta, &entry.meta);
            assert!(found.is_empty(), "{what}: {:?} differs by {found}", entry.path);
        }
        let mut pending = vec![view.top()];
        while let Some(dir) = pending.pop() {
            let open = view.open(&dir);
            for name in open.candidates().unwrap().iter() {
                if let Some(node) = open.lookup(name).unwrap() {
                    shown -= 1;
                    pending.extend(node.dir);
                }
            }
        }
        assert_eq!(shown, 0, "{what}: as many files are listed as shown");
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
