//! How files are shown.

use cow::meta::FileKind;

/// A path from the root of the image, with a leading slash. Bytes that are no UTF-8 are shown as
/// `\xNN`.
pub(crate) fn path_text(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len() + 1);
    text.push('/');
    push_bytes(&mut text, path);
    text
}

/// Bytes as text.
pub(crate) fn push_bytes(text: &mut String, bytes: &[u8]) {
    use std::fmt::Write as _;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}

/// Kind and permission bits as `ls -l` shows them.
pub(crate) fn mode_text(kind: Option<FileKind>, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        Some(FileKind::Dir) => 'd',
        Some(FileKind::Symlink) => 'l',
        Some(FileKind::Fifo) => 'p',
        Some(FileKind::Char(_)) => 'c',
        Some(FileKind::Block(_)) => 'b',
        Some(FileKind::Socket) => 's',
        Some(FileKind::File) | None => '-',
    });
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => set.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_shown_as_ls_shows_them() {
        for (kind, mode, expected) in [
            (FileKind::File, 0o644, "-rw-r--r--"),
            (FileKind::Dir, 0o1777, "drwxrwxrwt"),
            (FileKind::File, 0o4755, "-rwsr-xr-x"),
            (FileKind::File, 0o2640, "-rw-r-S---"),
            (FileKind::Symlink, 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode_text(Some(kind), mode), expected, "{kind:?} {mode:o}");
        }
    }

    #[test]
    fn paths_are_text_whatever_their_bytes() {
        assert_eq!(path_text(b""), "/");
        assert_eq!(path_text(b"a/\xffb"), "/a/\\xffb");
    }
}
