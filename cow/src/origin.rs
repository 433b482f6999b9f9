//! `overlay.origin`: from which lower inode an upper file was copied up (`struct ovl_fh`).
//!
//! It keeps `st_ino` the same over copy-up and over mounts. The file system's own handle is in it; of
//! the usual file systems it holds the inode number at a known place, so nothing has to be opened.
//!
//! A flag of our own says that the data of a copy may not be on the disk yet ([`unsettled`](crate::unsettled)).
//! The kernel takes a value with flags that it does not know for one of a later version, and the file for
//! one without an origin (`ovl_check_fb_len`).

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use cow_sys::handle::{self, FileHandle};
use rustix::io::Errno;

/// `OVL_FH_VERSION`, `OVL_FH_MAGIC`.
const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
/// `OVL_FH_FLAG_BIG_ENDIAN`, set to what this machine is.
const FLAGS: u8 = if cfg!(target_endian = "big") { 1 } else { 0 };
/// Bytes before the handle: version, magic, length, flags, kind, uuid.
const HEAD: usize = 5 + 16;
/// Where the flags are.
const FLAGS_AT: usize = 3;
/// The flag of a copy that may not be on the disk yet; the kernel's are 1, 2 and 4.
const UNSETTLED: u8 = 0x80;

/// Builds the attribute's value for a file below `dir`.
///
/// # Errors
/// `OPNOTSUPP` when the file system has no handles.
pub fn encode(dir: &OwnedFd, name: &OsStr, uuid: &[u8; 16]) -> Result<Vec<u8>, Errno> {
    let handle = handle::of(dir, name)?;
    lay_out(&handle, uuid).ok_or(Errno::OPNOTSUPP)
}

fn lay_out(handle: &FileHandle, uuid: &[u8; 16]) -> Option<Vec<u8>> {
    let length = u8::try_from(HEAD + handle.bytes.len()).ok()?;
    let kind = u8::try_from(handle.kind).ok()?;
    let mut value = vec![VERSION, MAGIC, length, FLAGS, kind];
    value.extend_from_slice(uuid);
    value.extend_from_slice(&handle.bytes);
    Some(value)
}

/// The inode that a file was copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The identity of its file system; zeros when it has none.
    pub uuid: [u8; 16],
    /// The inode number there.
    pub ino: u64,
}

/// The origin that a value names, where its format is known.
pub fn parse(value: &[u8]) -> Option<Origin> {
    let uuid = value.get(HEAD - 16..HEAD)?.try_into().ok()?;
    Some(Origin { uuid, ino: inode(value)? })
}

/// The value for a copy whose data may not be on the disk yet, and by which record that is known.
pub fn unsettled(mut value: Vec<u8>, record: &[u8]) -> Vec<u8> {
    if let Some(flags) = value.get_mut(FLAGS_AT) {
        *flags |= UNSETTLED;
        value.extend_from_slice(record);
    }
    value
}

/// The value for the same copy once its data is on the disk; none if it does not say otherwise.
pub fn settled(mut value: Vec<u8>) -> Option<Vec<u8>> {
    let length = parts(&value)?.length;
    let flags = value.get_mut(FLAGS_AT).filter(|flags| **flags & UNSETTLED != 0)?;
    *flags &= !UNSETTLED;
    value.truncate(length);
    Some(value)
}

/// Whether a value is one that [`unsettled`] made for this record.
pub fn is_unsettled(value: &[u8], record: &[u8]) -> bool {
    parts(value)
        .is_some_and(|parts| value[FLAGS_AT] & UNSETTLED != 0 && value[parts.length..] == *record)
}

/// The handle of the lower file, and the identity of its file system, where the value's format is known.
pub fn handle(value: &[u8]) -> Option<([u8; 16], FileHandle)> {
    let Parts { kind, handle, .. } = parts(value)?;
    let uuid = value.get(HEAD - 16..HEAD)?.try_into().ok()?;
    Some((uuid, FileHandle { kind: kind.into(), bytes: handle.to_owned() }))
}

/// What a value is made of.
struct Parts<'a> {
    kind: u8,
    handle: &'a [u8],
    /// How long it is, without what a mark adds.
    length: usize,
}

fn parts(value: &[u8]) -> Option<Parts<'_>> {
    let [VERSION, MAGIC, length, flags, kind, ..] = *value else { return None };
    let (length, is_marked) = (usize::from(length), flags & UNSETTLED != 0);
    let fits = if is_marked { length <= value.len() } else { length == value.len() };
    let known = fits && length > HEAD && flags & !UNSETTLED == FLAGS;
    known.then(|| Parts { kind, handle: &value[HEAD..length], length })
}

fn inode(value: &[u8]) -> Option<u64> {
    let Parts { kind, handle, .. } = parts(value)?;
    let word = |at: usize| Some(u32::from_ne_bytes(handle.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(handle.get(at..at + 8)?.try_into().ok()?));
    match (kind, handle.len()) {
        // ext4, xfs and others: inode, generation.
        (0x01, 8) => word(0).map(u64::from),
        // tmpfs: generation, then the low and the high word of the inode.
        (0x01, 12) => Some(u64::from(word(4)?) | u64::from(word(8)?) << 32),
        // xfs with 64-bit inodes; btrfs.
        (0x81, 12) | (0x4d, 20) => long(0),
        _ => None,
    }
    .filter(|inode| *inode != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_each_known_kind_gives_its_inode() {
        let cases: &[(u8, Vec<u8>, Option<u64>)] = &[
            (0x01, [77u32.to_ne_bytes(), 5u32.to_ne_bytes()].concat(), Some(77)),
            (
                0x01,
                [9u32.to_ne_bytes(), 3u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat(),
                Some(3 | 1 << 32),
            ),
            (0x81, [7u64.to_ne_bytes().to_vec(), 4u32.to_ne_bytes().to_vec()].concat(), Some(7)),
            (0x22, vec![1, 2, 3, 4], None),
        ];
        for (kind, bytes, inode_number) in cases {
            let handle = FileHandle { kind: i32::from(*kind), bytes: bytes.clone() };
            let value = lay_out(&handle, &[0; 16]).expect("a short handle");
            assert_eq!(inode(&value), *inode_number, "kind {kind:#x}");
            assert_eq!(inode(&value[..value.len() - 1]), None, "a cut value of kind {kind:#x}");
            let marked = unsettled(value.clone(), b"record");
            assert!(is_unsettled(&marked, b"record"), "the mark of kind {kind:#x}");
            assert!(!is_unsettled(&marked, b"other") && !is_unsettled(&value, b""), "another mark");
            assert_eq!(inode(&marked), *inode_number, "the mark changes nothing else");
            assert_eq!(
                super::handle(&marked),
                Some(([0; 16], handle)),
                "what kind {kind:#x} names"
            );
            assert_eq!(settled(marked), Some(value.clone()), "without the mark");
            assert_eq!(settled(value), None, "there was none");
        }
    }

    #[test]
    fn the_handle_of_a_real_file_names_its_inode() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("f"), "x").expect("a file");
        let fd = OwnedFd::from(std::fs::File::open(dir.path()).expect("open"));
        let Ok(value) = encode(&fd, OsStr::new("f"), &[0; 16]) else { return };
        use std::os::unix::fs::MetadataExt as _;
        let expected = std::fs::metadata(dir.path().join("f")).expect("stat").ino();
        if let Some(found) = inode(&value) {
            assert_eq!(found, expected, "the inode inside the handle");
        }
    }
}
