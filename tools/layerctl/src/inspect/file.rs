//! One file in a report.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;

use cow::index::Node;
use cow::meta::{FileKind, Time, Xattrs};
use jiff::Timestamp;
use serde::Serialize;

use super::paths::push_bytes;

/// What a report says of a file, without its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileFacts {
    /// `file`, `dir`, `symlink`, `char`, `block`, `fifo` or `socket`.
    pub(crate) kind: &'static str,
    /// Permission bits in octal: `0644`.
    pub(crate) mode: String,
    /// The owner.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The length of a regular file in bytes.
    pub(crate) size: u64,
    /// When its content last changed, RFC 3339.
    pub(crate) mtime: String,
    /// The text of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
    /// The number of a device, `major:minor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// Extended attributes; values that are no text as `0x` and hexadecimal digits, as getfattr(1)
    /// shows them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) xattrs: BTreeMap<String, String>,
    /// The digest of a regular file's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
}

impl FileFacts {
    /// Gathers what is known of a file.
    pub(crate) fn of(node: &Node<'_>) -> Self {
        let kind = node.kind();
        let device = match kind {
            Some(FileKind::Char(device) | FileKind::Block(device)) => {
                Some(format!("{}:{}", device.major, device.minor))
            }
            _ => None,
        };
        Self {
            kind: kind_name(kind),
            mode: format!("{:04o}", node.mode()),
            uid: node.uid(),
            gid: node.gid(),
            size: node.size(),
            mtime: time(node.mtime()),
            link: (kind == Some(FileKind::Symlink)).then(|| lossy(node.link())),
            device,
            xattrs: node.xattrs().map(xattrs).unwrap_or_default(),
            sha256: node.digest().map(cow::digest::Digest::hex),
        }
    }
}

/// The name of a kind.
pub(crate) fn kind_name(kind: Option<FileKind>) -> &'static str {
    match kind {
        Some(FileKind::File) => "file",
        Some(FileKind::Dir) => "dir",
        Some(FileKind::Symlink) => "symlink",
        Some(FileKind::Fifo) => "fifo",
        Some(FileKind::Char(_)) => "char",
        Some(FileKind::Block(_)) => "block",
        Some(FileKind::Socket) => "socket",
        None => "none",
    }
}

/// Bytes as text, bad ones escaped.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    push_bytes(&mut text, bytes);
    text
}

fn time(time: Time) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or_default();
    match Timestamp::new(time.secs, nanos) {
        Ok(time) => time.to_string(),
        // Beyond the year 9999, which a tar may well say.
        Err(_) => format!("@{}", time.secs),
    }
}

fn xattrs(xattrs: &Xattrs) -> BTreeMap<String, String> {
    use std::fmt::Write as _;
    let value = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => value.iter().fold("0x".to_owned(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    };
    xattrs.iter().map(|(name, bytes)| (lossy(name.as_bytes()), value(bytes))).collect()
}
