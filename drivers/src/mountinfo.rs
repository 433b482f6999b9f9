//! The kernel's mount table: what is mounted where, in this process's mount namespace.
//!
//! The text is `/proc/self/mountinfo` (proc_pid_mountinfo(5)): one mount a line, fields apart by
//! blanks, with blank, tab, newline and backslash inside a field written as `\` and three octal
//! digits. The parser takes bytes and knows nothing of where they come from.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use cow::error::{Error, Result};

/// The table of the calling process's own namespace.
const TABLE: &str = "/proc/self/mountinfo";

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where in its own file system the mount's root is (`/` unless it is a bind mount).
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Whether the mount itself is read-only.
    pub read_only: bool,
    /// The file system type.
    pub fstype: String,
    /// The source, as it was given.
    pub source: PathBuf,
    /// The file system's own options, `ro` or `rw` among them.
    pub super_options: String,
}

impl MountEntry {
    /// Whether files can be changed through this mount.
    pub fn writable(&self) -> bool {
        !self.read_only && !self.super_options.split(',').any(|option| option == "ro")
    }
}

/// Reads the mount table of the calling process.
///
/// # Errors
/// When `/proc` is not there, or its table is not what the manual says.
pub fn read() -> Result<Vec<MountEntry>> {
    let mut text = Vec::new();
    std::fs::File::open(TABLE)
        .and_then(|mut file| file.read_to_end(&mut text))
        .map_err(|source| Error::sys("read", TABLE, source))?;
    parse(&text)
}

/// Reads the mount table's text.
///
/// # Errors
/// `Corrupt` for a line with too few fields.
pub fn parse(text: &[u8]) -> Result<Vec<MountEntry>> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                let shown = String::from_utf8_lossy(line).into_owned();
                Error::corrupt("parse mount table", TABLE, format!("strange line {shown:?}"))
            })
        })
        .collect()
}

/// Takes one line apart: `id parent dev root point options [tag...] - type source super`.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.by_ref().nth(3)?;
    let mount_point = fields.next()?;
    let options = fields.next()?;
    fields.by_ref().find(|field| *field == b"-")?;
    let fstype = fields.next()?;
    let source = fields.next()?;
    let super_options = fields.next()?;
    Some(MountEntry {
        root: path(root),
        mount_point: path(mount_point),
        read_only: options.split(|&byte| byte == b',').any(|option| option == b"ro"),
        fstype: String::from_utf8_lossy(fstype).into_owned(),
        source: path(source),
        super_options: String::from_utf8_lossy(super_options).into_owned(),
    })
}

/// Undoes the table's octal escapes.
fn path(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(out).into()
}

/// The mounts that lie below `dir` (or on it), the deepest first, so that they can be taken off in
/// this order.
pub fn below<'a>(table: &'a [MountEntry], dir: &Path) -> Vec<&'a MountEntry> {
    let mut found: Vec<_> =
        table.iter().filter(|entry| entry.mount_point.starts_with(dir)).collect();
    // A later line is mounted over an earlier one at the same place: the table is in mount order.
    found.reverse();
    found.sort_by_key(|entry| std::cmp::Reverse(entry.mount_point.components().count()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
90 22 0:45 / /h/layers/a\\040b/merged rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
91 22 254:0 /h/layers/2/diff /h/layers/2/merged ro,relatime master:1 propagate_from:2 - ext4 /dev/vda rw
92 91 0:46 / /h/layers/2/merged/proc rw - proc proc rw
93 22 0:47 / /h/layers/3/merged rw - overlay overlay ro,lowerdir=/l:/m
";

    #[test]
    fn fields_are_found_with_and_without_tags() {
        let table = parse(SAMPLE).unwrap();
        assert_eq!(table.len(), 5, "lines");
        assert_eq!(table[1].mount_point, Path::new("/h/layers/a b/merged"), "octal escape");
        assert_eq!(table[1].fstype, "overlay", "type");
        assert_eq!(table[2].root, Path::new("/h/layers/2/diff"), "root of a bind mount");
        let writable: Vec<_> = table.iter().map(MountEntry::writable).collect();
        assert_eq!(writable, [true, true, false, true, false], "writable by mount and by super");
    }

    #[test]
    fn mounts_below_come_deepest_first() {
        let table = parse(SAMPLE).unwrap();
        let below: Vec<_> =
            below(&table, Path::new("/h/layers/2")).iter().map(|e| e.mount_point.clone()).collect();
        let expected = ["/h/layers/2/merged/proc", "/h/layers/2/merged"].map(PathBuf::from);
        assert_eq!(below, expected);
    }

    #[test]
    fn sibling_with_a_common_prefix_is_not_below() {
        let table = parse(b"1 2 3:4 / /h/layers/22 rw - ext4 s rw\n").unwrap();
        assert!(below(&table, Path::new("/h/layers/2")).is_empty());
    }

    #[test]
    fn strange_lines_are_refused() {
        for text in ["1 2 3", "1 2 3:4 / /x rw shared:1 ext4 s rw", "1 2 3:4 / /x rw - ext4 s"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(path(b"a\\9b\\04"), Path::new("a\\9b\\04"));
        assert_eq!(path(b"\\134\\011"), Path::new("\\\t"));
    }

    #[test]
    fn the_table_of_this_process_reads() {
        let table = read().unwrap();
        assert!(table.iter().any(|entry| entry.mount_point == Path::new("/")), "no root mount");
    }
}
