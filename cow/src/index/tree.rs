//! Making an index from a directory, as if it were packed as one layer.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::build::Content;
use super::{Builder, Contents, Index};
use crate::at;
use crate::digest::{Digest, Digester};
use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta};
use crate::root::Root;
use crate::tar::{Entry, EntryKind};
use crate::walk::{self, Vanished, Walk};
use crate::xattr;

impl Index {
    /// Makes an index of a directory that may be in use: what vanishes meanwhile is left out. Names
    /// that would be whiteouts in a tar are taken as such; sockets, which no layer carries, are left
    /// out.
    ///
    /// # Errors
    /// What the system said of a file that cannot be looked at or read.
    pub fn of_tree(root: &Root, contents: Contents) -> Result<Self> {
        let mut builder = Builder::new();
        let mut names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        let top = at::meta_of(root).map_err(|errno| root.error("statx", "", errno))?;
        builder.push(&entry(b"", &top, EntryKind::Dir), Content::default())?;
        let mut walk = Walk::new(root, Vanished::Skip)?;
        while let Some(found) = walk.next_entry()? {
            let path = found.path.as_os_str().as_bytes();
            let Some(kind) = entry_kind(found.meta.kind) else { continue };
            let mut entry = entry(path, &found.meta, kind);
            if !found.meta.is_dir() && found.meta.nlink > 1 {
                if let Some(first) = names.get(&found.meta.inode()) {
                    entry.kind = EntryKind::HardLink;
                    entry.link.clone_from(first);
                    builder.push(&entry, Content::default())?;
                    continue;
                }
                names.insert(found.meta.inode(), path.to_owned());
            }
            match complete(&found, &mut entry, contents) {
                Ok(content) => builder.push(&entry, content)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::sys("read file", found.path, error)),
            }
        }
        builder.finish()
    }
}

fn entry_kind(kind: FileKind) -> Option<EntryKind> {
    Some(match kind {
        FileKind::File => EntryKind::File,
        FileKind::Dir => EntryKind::Dir,
        FileKind::Symlink => EntryKind::Symlink,
        FileKind::Fifo => EntryKind::Fifo,
        FileKind::Char(device) => EntryKind::Char(device),
        FileKind::Block(device) => EntryKind::Block(device),
        FileKind::Socket => return None,
    })
}

fn entry(path: &[u8], meta: &Meta, kind: EntryKind) -> Entry {
    Entry {
        path: path.to_owned(),
        kind,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        size: if kind == EntryKind::File { meta.size } else { 0 },
        ..Entry::default()
    }
}

/// Adds what takes further calls: link text, attributes, the digest.
fn complete(found: &walk::Entry<'_>, entry: &mut Entry, contents: Contents) -> io::Result<Content> {
    if entry.kind == EntryKind::Symlink {
        entry.link = at::readlink_at(found.dir, found.name)?.into_vec();
    }
    let xattrs = xattr::read_at(found.dir, found.name)?;
    entry.xattrs = xattrs.into_iter().map(|(name, value)| (name.into_vec(), value)).collect();
    if entry.kind != EntryKind::File || contents == Contents::Skip {
        return Ok(Content::default());
    }
    Ok(Content { digest: Some(digest(found, entry.size)?), offset: None })
}

fn digest(found: &walk::Entry<'_>, size: u64) -> io::Result<Digest> {
    let file = std::fs::File::from(at::open_file_at(found.dir, found.name)?);
    let mut digester = Digester::new(io::sink());
    io::copy(&mut file.take(size), &mut digester)?;
    Ok(digester.finish().1)
}
