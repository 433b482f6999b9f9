//! Which kinds of files fill the image, by the ends of their names.

use std::collections::HashMap;

use serde::Serialize;

/// The files with one ending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileType {
    /// The ending without its dot, in lower case; empty for names without one.
    pub(crate) extension: String,
    /// How many there are, names of one file once.
    pub(crate) files: u64,
    /// Bytes of their content.
    pub(crate) bytes: u64,
}

/// The longest ending that is taken for one.
const LONGEST: usize = 10;

/// Counts files by their endings.
#[derive(Debug, Default)]
pub(super) struct Types<'a> {
    known: HashMap<&'a [u8], (u64, u64)>,
}

impl<'a> Types<'a> {
    /// Counts a file by its path.
    pub(super) fn add(&mut self, path: &'a [u8], bytes: u64) {
        let known = self.known.entry(extension(path)).or_default();
        known.0 += 1;
        known.1 += bytes;
    }

    /// What was counted, the most bytes first.
    pub(super) fn finish(self) -> Vec<FileType> {
        let mut types: HashMap<String, (u64, u64)> = HashMap::new();
        for (extension, (files, bytes)) in self.known {
            // An ending is ASCII letters and digits.
            let lower = String::from_utf8_lossy(extension).to_ascii_lowercase();
            let known = types.entry(lower).or_default();
            known.0 += files;
            known.1 += bytes;
        }
        let mut types: Vec<_> = types
            .into_iter()
            .map(|(extension, (files, bytes))| FileType { extension, files, bytes })
            .collect();
        types.sort_unstable_by(|a, b| {
            b.bytes.cmp(&a.bytes).then_with(|| a.extension.cmp(&b.extension))
        });
        types
    }
}

/// The ending of a name: `so` of `libc.so.6` as well, since numbers behind it are a version.
fn extension(path: &[u8]) -> &[u8] {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut parts = name.rsplit(|byte| *byte == b'.').peekable();
    while let Some(part) = parts.next() {
        // What is before the first dot is the name, as is what follows a dot at the beginning.
        if parts.peek().is_none_or(|before| before.is_empty()) {
            break;
        }
        if part.iter().all(u8::is_ascii_digit) {
            continue;
        }
        let fits = part.len() <= LONGEST && part.iter().all(u8::is_ascii_alphanumeric);
        return if fits { part } else { b"" };
    }
    b""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_told_from_names_and_versions() {
        for (path, expected) in [
            ("usr/lib/libc.so.6", "so"),
            ("usr/lib/libz.so.1.2.13", "so"),
            ("a/b.tar.gz", "gz"),
            ("etc/passwd", ""),
            ("root/.bashrc", ""),
            ("home/.config.json", "json"),
            ("usr/share/man1/ls.1", ""),
            ("x/name.with a space", ""),
            ("x/README.md~", ""),
            ("x.d/file", ""),
            ("x/.", ""),
        ] {
            let found = extension(path.as_bytes());
            assert_eq!(found, expected.as_bytes(), "the ending of {path}");
        }
    }

    #[test]
    fn types_are_counted_whatever_their_case() {
        let mut types = Types::default();
        for (path, bytes) in [("a.JPG", 5), ("b.jpg", 7), ("c", 12), ("d.py", 1)] {
            types.add(path.as_bytes(), bytes);
        }
        let found = types.finish();
        let found: Vec<_> =
            found.iter().map(|kind| (kind.extension.as_str(), kind.files, kind.bytes)).collect();
        assert_eq!(found, [("", 1, 12), ("jpg", 2, 12), ("py", 1, 1)]);
    }
}
