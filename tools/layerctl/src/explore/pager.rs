//! The content of one file, as text or in hexadecimal digits.

use std::fmt::Write as _;

use super::list::{Move, moved};
use super::text::shown;

/// The most of a file that is read, in bytes.
pub(super) const MOST: u64 = 1 << 20;
/// Bytes in a line of digits.
const PER_LINE: usize = 16;
/// Columns that a tabulator leads to.
const TAB: usize = 8;
/// How many columns a step to the side is.
const SIDE: usize = 8;
/// The longest line that is shown, in bytes.
const LONGEST: usize = 4096;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pager {
    /// The path, safe to show.
    pub(super) title: String,
    /// The length of the whole file.
    pub(super) size: u64,
    bytes: Vec<u8>,
    /// Where lines of text begin.
    starts: Vec<usize>,
    /// Whether digits are shown.
    pub(super) digits: bool,
    /// The first line on the screen.
    pub(super) top: usize,
    /// The first column on the screen.
    pub(super) left: usize,
}

impl Pager {
    /// Shows the beginning of a file.
    pub(super) fn new(title: String, size: u64, bytes: Vec<u8>) -> Self {
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        // No line begins behind the last line's end.
        let starts = starts.filter(|start| *start < bytes.len().max(1)).collect();
        Self { title, size, digits: is_binary(&bytes), bytes, starts, top: 0, left: 0 }
    }

    /// Whether the file goes on behind what is shown.
    pub(super) fn is_cut(&self) -> bool {
        self.size > self.bytes.len() as u64
    }

    /// How much of it is shown, in bytes.
    pub(super) fn read(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        if self.digits { self.bytes.len().div_ceil(PER_LINE) } else { self.starts.len() }
    }

    /// One line, safe to show.
    pub(super) fn line(&self, at: usize) -> String {
        if self.digits {
            return digits(&self.bytes, at * PER_LINE);
        }
        let Some(start) = self.starts.get(at).copied() else { return String::new() };
        let end = self.starts.get(at + 1).copied().unwrap_or(self.bytes.len());
        let line = &self.bytes[start..end];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        expand(&line[..line.len().min(LONGEST)])
    }

    /// Shows digits in place of text, or the other way round, from about the same place.
    pub(super) fn switch(&mut self) {
        let at = match self.digits {
            true => self.top * PER_LINE,
            false => self.starts.get(self.top).copied().unwrap_or_default(),
        };
        self.digits = !self.digits;
        self.left = 0;
        self.top = match self.digits {
            true => at / PER_LINE,
            false => self.starts.partition_point(|start| *start <= at).saturating_sub(1),
        };
    }

    /// Scrolls a screen of so many lines.
    pub(super) fn go(&mut self, step: Move, height: usize) {
        let last = self.len().saturating_sub(height);
        self.top = moved(self.top, step, last + 1, height);
    }

    /// Scrolls to the side.
    pub(super) fn side(&mut self, right: bool) {
        self.left = match right {
            true => (self.left + SIDE).min(LONGEST),
            false => self.left.saturating_sub(SIDE),
        };
    }
}

/// Text has no NUL and little that is no UTF-8.
fn is_binary(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(64 << 10)];
    let bad: usize = sample.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    sample.contains(&0) || bad * 10 > sample.len()
}

fn expand(line: &[u8]) -> String {
    let mut out = String::with_capacity(line.len());
    for (at, part) in line.split(|byte| *byte == b'\t').enumerate() {
        if at > 0 {
            let columns = TAB - super::text::width(&out) % TAB;
            out.extend(std::iter::repeat_n(' ', columns));
        }
        out.push_str(&shown(part));
    }
    out
}

/// Offset, sixteen bytes, and what of them is ASCII, nearly as `hexdump -C`: six digits are enough for
/// an offset below [`MOST`], and let a line fit into a terminal of 80 columns.
fn digits(bytes: &[u8], at: usize) -> String {
    let Some(rest) = bytes.get(at..) else { return String::new() };
    let row = &rest[..rest.len().min(PER_LINE)];
    let mut line = format!("{at:06x} ");
    for place in 0..PER_LINE {
        let gap = if place % 8 == 0 { " " } else { "" };
        // Writing to a string cannot fail.
        let _ = match row.get(place) {
            Some(byte) => write!(line, "{gap}{byte:02x} "),
            None => write!(line, "{gap}   "),
        };
    }
    line.push_str(" |");
    line.extend(row.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    }));
    line.push('|');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pager(bytes: &[u8]) -> Pager {
        Pager::new("/f".to_owned(), bytes.len() as u64, bytes.to_vec())
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        let pager = pager(bytes);
        (0..pager.len()).map(|at| pager.line(at)).collect()
    }

    #[test]
    fn text_is_shown_line_by_line() {
        for (bytes, expected) in [
            (&b""[..], &[""][..]),
            (b"a\nb", &["a", "b"]),
            (b"a\n\nb\n", &["a", "", "b"]),
            (b"a\r\nb\x1b[2J\n", &["a", "b\\u{1b}[2J"]),
            ("\tx\n漢\ty".as_bytes(), &["        x", "漢      y"]),
        ] {
            assert_eq!(lines(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown_as_hexdump_does() {
        let bytes: Vec<u8> = (0..18).chain(*b"AZ").collect();
        assert_eq!(
            lines(&bytes),
            [
                "000000  00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  |................|",
                "000010  10 11 41 5a                                       |..AZ|",
            ],
        );
        assert!(pager(b"\xff\xfe\xfd").digits, "no UTF-8");
        assert!(!pager("größer".as_bytes()).digits, "UTF-8");
    }

    #[test]
    fn scrolling_ends_at_the_ends_and_switching_stays_about_there() {
        let text: String = (0..100).map(|line| format!("line {line:4}\n")).collect();
        let mut pager = pager(text.as_bytes());
        pager.go(Move::Last, 20);
        assert_eq!(pager.top, 80, "the last line is the lowest");
        pager.switch();
        assert_eq!(pager.top, 50, "line 80 begins at byte 800");
        pager.switch();
        assert_eq!(pager.top, 80, "and back");
        pager.go(Move::Pages(-9), 20);
        assert_eq!(pager.top, 0, "the first line");
        pager.go(Move::Last, 200);
        assert_eq!(pager.top, 0, "all lines are on the screen");
    }
}
