//! Contents of files side by side, as a unified diff.

use std::collections::BTreeMap;
use std::io::Read as _;

use cow::stack::File;
use similar::TextDiff;

use super::{Contents, Subject};

/// The largest file of which the content is compared line by line, in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// The most content that is held at once, in bytes; the rest is told to be left out.
const MAX_HELD: u64 = 64 << 20;
/// Lines around a change.
const CONTEXT: usize = 3;

/// The contents of some files of a subject, by layer and row.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    wanted: BTreeMap<(usize, usize), Option<Vec<u8>>>,
    held: u64,
}

impl Texts {
    /// Asks for a file's content; files that are too large are left out.
    pub(crate) fn want(&mut self, file: &File<'_>) {
        let size = file.facts.size();
        let key = key(file);
        if file.facts.is_file() && size <= MAX_TEXT && !self.wanted.contains_key(&key) {
            self.held += size;
            if self.held <= MAX_HELD {
                self.wanted.insert(key, None);
            }
        }
    }

    /// Reads what was asked for, each layer once.
    pub(crate) fn read(&mut self, subject: &Subject) -> anyhow::Result<()> {
        let stack = subject.stack(Contents::Digest)?;
        for (layer, index) in stack.layers().iter().enumerate() {
            let rows: Vec<usize> =
                self.wanted.range((layer, 0)..(layer + 1, 0)).map(|((_, row), _)| *row).collect();
            if rows.is_empty() {
                continue;
            }
            subject.source.read(layer, index, &rows, &mut |row, content| {
                let mut bytes = Vec::new();
                content.take(MAX_TEXT).read_to_end(&mut bytes)?;
                self.wanted.insert((layer, row), Some(bytes));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The content of a file that was asked for; none if it was too large.
    pub(crate) fn get(&self, file: &File<'_>) -> Option<&[u8]> {
        self.wanted.get(&key(file)).and_then(Option::as_deref)
    }
}

/// Where the content of a file is stored: in the layer, and the row of its first name there, since others have the same
/// content in the same place.
fn key(file: &File<'_>) -> (usize, usize) {
    (file.stored.layer(), file.facts.inode())
}

/// A unified diff of two contents, of which one may be missing; none for files that are no text.
pub(crate) fn unified(
    a: Option<&[u8]>,
    b: Option<&[u8]>,
    a_name: &str,
    b_name: &str,
) -> Option<String> {
    let text = |bytes: Option<&[u8]>| {
        let bytes = bytes.unwrap_or_default();
        std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).map(str::to_owned)
    };
    let (before, after) = (text(a)?, text(b)?);
    let name = |bytes: Option<&[u8]>, name: &str| match bytes {
        Some(_) => name.to_owned(),
        None => "/dev/null".to_owned(),
    };
    let diff = TextDiff::from_lines(&before, &after);
    let mut unified = diff.unified_diff();
    unified.context_radius(CONTEXT).header(&name(a, a_name), &name(b, b_name));
    Some(unified.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_are_compared_line_by_line() {
        let unified = |a: Option<&str>, b: Option<&str>| {
            super::unified(a.map(str::as_bytes), b.map(str::as_bytes), "a/f", "b/f")
        };
        let changed = unified(Some("1\n2\n3\n"), Some("1\n3\n")).expect("text");
        assert_eq!(changed, "--- a/f\n+++ b/f\n@@ -1,3 +1,2 @@\n 1\n-2\n 3\n");
        let added = unified(None, Some("1\n")).expect("text");
        assert!(added.starts_with("--- /dev/null\n+++ b/f\n"), "{added}");
        assert_eq!(unified(Some("a\0b"), Some("c")), None, "a binary file");
    }
}
