//! An independent look at a file tree, for comparing what two programs made of the same image.
//!
//! Written with the standard library and plain path calls on purpose: it shares nothing with the code
//! under test.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Everything about one file that an image carries, as text that reads well in a failed assert.
pub type Portrait = BTreeMap<PathBuf, String>;

/// Draws the whole tree below `root`; the root itself is the empty path.
///
/// # Errors
/// The first file that cannot be read.
pub fn portrait(root: &Path) -> io::Result<Portrait> {
    let mut names = BTreeMap::new();
    collect(root, Path::new(""), &mut names)?;
    // By names that are seen, not by st_nlink: an overlay counts the hidden names of a lower file too.
    let mut links: BTreeMap<_, Vec<PathBuf>> = BTreeMap::new();
    for (path, meta) in names.iter().filter(|(_, meta)| !meta.is_dir()) {
        links.entry((meta.dev(), meta.ino())).or_default().push(path.clone());
    }
    let mut portrait = Portrait::new();
    for (path, meta) in &names {
        let mut line = describe(&root.join(path), meta)?;
        if let Some([first, _, ..]) = links.get(&(meta.dev(), meta.ino())).map(Vec::as_slice) {
            line += &format!(" linked-with={}", first.display());
        }
        portrait.insert(path.clone(), line);
    }
    Ok(portrait)
}

fn collect(
    root: &Path,
    path: &Path,
    names: &mut BTreeMap<PathBuf, fs::Metadata>,
) -> io::Result<()> {
    let full = root.join(path);
    let meta = fs::symlink_metadata(&full)?;
    let is_dir = meta.is_dir();
    names.insert(path.to_owned(), meta);
    if is_dir {
        for entry in fs::read_dir(full)? {
            collect(root, &path.join(entry?.file_name()), names)?;
        }
    }
    Ok(())
}

fn describe(full: &Path, meta: &fs::Metadata) -> io::Result<String> {
    let kind = meta.file_type();
    let what = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("symlink to {}", fs::read_link(full)?.display())
    } else if kind.is_file() {
        format!("file of {} bytes {}", meta.len(), content(full)?)
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else if kind.is_socket() {
        "socket".to_owned()
    } else {
        let letter = if kind.is_char_device() { 'c' } else { 'b' };
        format!("device {letter} {:#x}", meta.rdev())
    };
    let mut line = format!(
        "{what} mode={:04o} owner={}:{} mtime={}.{:09}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    for (name, value) in xattrs(full)? {
        line += &format!(" {name}={}", hex(&value));
    }
    Ok(line)
}

fn content(full: &Path) -> io::Result<String> {
    let mut file = fs::File::open(full)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize()[..8])),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// The extended attributes of a file, without those that overlayfs keeps for itself.
fn xattrs(full: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut list = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(full, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found = BTreeMap::new();
    for name in names {
        let shown = String::from_utf8_lossy(name).into_owned();
        if shown.contains(".overlay.") {
            continue;
        }
        let mut value = vec![0; 1 << 16];
        let length =
            rustix::fs::lgetxattr(full, std::ffi::OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(length);
        found.insert(shown, value);
    }
    Ok(found)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every path on which two portraits disagree, with both descriptions.
pub fn differences(left: &Portrait, right: &Portrait) -> Vec<String> {
    let mut found = Vec::new();
    for (path, line) in left {
        match right.get(path) {
            None => found.push(format!("{}: only left: {line}", path.display())),
            Some(other) if other != line => {
                found.push(format!("{}:\n  left  {line}\n  right {other}", path.display()));
            }
            Some(_) => {}
        }
    }
    let missing = right.iter().filter(|(path, _)| !left.contains_key(*path));
    found.extend(missing.map(|(path, line)| format!("{}: only right: {line}", path.display())));
    found
}
