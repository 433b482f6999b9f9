//! The space that a tree takes.

use std::collections::HashSet;

use crate::at;
use crate::change::Changeset;
use crate::error::Result;
use crate::meta::Meta;
use crate::root::Root;
use crate::walk::{Vanished, Walk};

/// Allocated space and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Allocated bytes, an inode with many names counted once. Shared extents (reflinks) count for
    /// every file that has them.
    pub bytes: u64,
    /// Inodes, the root's own directory among them.
    pub inodes: u64,
    /// The lengths of the regular files together, holes included.
    pub content: u64,
}

impl Usage {
    fn add(&mut self, meta: &Meta) {
        self.bytes += meta.blocks * 512;
        self.inodes += 1;
        if meta.is_file() {
            self.content += meta.size;
        }
    }
}

/// Measures a tree that may be in use: what vanishes meanwhile is left out.
pub fn usage(root: &Root) -> Result<Usage> {
    let top = at::meta_of(root).map_err(|error| root.error("statx", "", error))?;
    let mut usage = Usage { bytes: top.blocks * 512, inodes: 1, content: 0 };
    // Only inodes with several names can be met twice.
    let mut seen = HashSet::new();
    let mut walk = Walk::new(root, Vanished::Skip)?;
    while let Some(entry) = walk.next_entry()? {
        let meta = entry.meta;
        if !meta.is_dir() && meta.nlink > 1 && !seen.insert(meta.inode()) {
            continue;
        }
        usage.add(&meta);
    }
    Ok(usage)
}

/// Measures what changes have put into a tree: the inodes that have them, each once, and the root's own.
/// What vanishes meanwhile is left out.
///
/// All [locations](crate::change::Location) must be in the tree.
pub fn changed(root: &Root, changes: &Changeset) -> Result<Usage> {
    let top = at::meta_of(root).map_err(|error| root.error("statx", "", error))?;
    let mut usage = Usage { bytes: top.blocks * 512, inodes: 1, content: 0 };
    let mut seen = HashSet::from([top.inode()]);
    for place in changes.changes.iter().filter_map(|change| change.meta.as_ref()) {
        let Some(meta) = root.meta(&place.path)? else { continue };
        if !seen.insert(meta.inode()) {
            continue;
        }
        usage.add(&meta);
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn hard_links_and_holes_are_counted_for_what_they_take() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let own = fs::metadata(dir.path()).unwrap().blocks() * 512;
        assert_eq!(usage(&root).unwrap(), Usage { bytes: own, inodes: 1, content: 0 });

        let file = dir.path().join("file");
        fs::write(&file, vec![1; 100_000]).unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
        let taken = fs::metadata(&file).unwrap().blocks() * 512;
        fs::hard_link(&file, dir.path().join("link")).unwrap();
        fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        let content = 100_000 + (1 << 30);
        assert_eq!(usage(&root).unwrap(), Usage { bytes: own + taken, inodes: 3, content });
    }

    #[test]
    fn changes_are_counted_once_an_inode_and_deletions_not() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [lower, upper] = dirs.each_ref().map(|dir| Root::open(dir.path()).unwrap());
        for (dir, text) in dirs.iter().zip(["a", "b"]) {
            fs::write(dir.path().join("same"), "same").unwrap();
            fs::write(dir.path().join("changed"), text.repeat(5000)).unwrap();
            let file = fs::File::options().write(true).open(dir.path().join("same")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        fs::write(dirs[0].path().join("gone"), "gone").unwrap();
        let above = dirs[1].path();
        fs::create_dir(above.join("dir")).unwrap();
        fs::write(above.join("dir/new"), vec![1; 3000]).unwrap();
        fs::hard_link(above.join("dir/new"), above.join("other")).unwrap();
        std::os::unix::fs::symlink("somewhere", above.join("link")).unwrap();
        let changes = crate::diff::trees(Some(&lower), &upper).unwrap();
        let found = changed(&upper, &changes).unwrap();
        let blocks = ["", "changed", "dir", "dir/new", "link"]
            .map(|name| fs::symlink_metadata(above.join(name)).unwrap().blocks());
        let expected =
            Usage { bytes: blocks.iter().sum::<u64>() * 512, inodes: 5, content: 5000 + 3000 };
        assert_eq!(found, expected, "{changes:?}");
        let all = crate::diff::trees(None, &upper).unwrap();
        assert_eq!(changed(&upper, &all).unwrap(), usage(&upper).unwrap(), "of nothing below");
    }
}
