//! The content of one file, as text or in hexadecimal digits.

use std::fmt::Write as _;
use std::ops::Range;

use super::find::Found;
use super::list::{Move, moved};
use super::text::{shown, width};

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
    /// What is looked for in it.
    pub(super) found: Found,
}

impl Pager {
    /// Shows the beginning of a file.
    pub(super) fn new(title: String, size: u64, bytes: Vec<u8>) -> Self {
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1));
        // No line begins behind the last line's end.
        let starts = starts.filter(|start| *start < bytes.len().max(1)).collect();
        let digits = is_binary(&bytes);
        Self { title, size, digits, bytes, starts, top: 0, left: 0, found: Found::default() }
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
        expand(&self.bytes[self.text(at)])
    }

    /// The bytes that a line of text shows.
    fn text(&self, at: usize) -> Range<usize> {
        let end = self.bytes.len();
        let start = self.starts.get(at).copied().unwrap_or(end);
        let line = &self.bytes[start..self.starts.get(at + 1).copied().unwrap_or(end)];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        start..start + line.len().min(LONGEST)
    }

    /// The columns of a line that show what was found, each with whether it is what was gone to last.
    pub(super) fn marks(&self, at: usize) -> Vec<(Range<usize>, bool)> {
        if self.digits {
            let row = at * PER_LINE..(at + 1) * PER_LINE;
            let places = self.found.within(row.clone());
            return places
                .flat_map(|(place, current)| {
                    let bytes =
                        place.start.max(row.start) - row.start..place.end.min(row.end) - row.start;
                    digit_columns(&bytes).map(move |columns| (columns, current))
                })
                .collect();
        }
        let line = self.text(at);
        let column =
            |at: usize| width(&expand(&self.bytes[line.start..at.clamp(line.start, line.end)]));
        let places = self.found.within(line.clone());
        places.map(|(place, current)| (column(place.start)..column(place.end), current)).collect()
    }

    /// Looks for something, from a line on, and goes to it.
    ///
    /// # Errors
    /// An expression that makes no sense; what was found before is still there.
    pub(super) fn find(&mut self, pattern: &str, from: usize, height: usize) -> Result<(), String> {
        self.found = Found::new(pattern, &self.bytes, self.offset(from))?;
        if self.found.current().is_none() {
            self.top = from;
        }
        self.show_found(height);
        Ok(())
    }

    /// Goes to the next place of what was found, or to the one before; whether that led over the end.
    pub(super) fn find_again(&mut self, forward: bool, height: usize) -> bool {
        let around = self.found.step(forward);
        self.show_found(height);
        around
    }

    /// Brings what was found onto the screen, a third below its edge if it was not there.
    fn show_found(&mut self, height: usize) {
        let Some((_, place)) = self.found.current() else { return };
        let line = self.line_of(place.start);
        if !(self.top..self.top + height).contains(&line) {
            self.top = line.saturating_sub(height / 3);
        }
        self.go(Move::Lines(0), height);
    }

    /// The byte with which a line begins.
    fn offset(&self, line: usize) -> usize {
        match self.digits {
            true => line * PER_LINE,
            false => self.starts.get(line).copied().unwrap_or_default(),
        }
    }

    /// The line in which a byte is.
    fn line_of(&self, at: usize) -> usize {
        match self.digits {
            true => at / PER_LINE,
            false => self.starts.partition_point(|start| *start <= at).saturating_sub(1),
        }
    }

    /// Shows digits in place of text, or the other way round, from about the same place.
    pub(super) fn switch(&mut self) {
        let at = self.offset(self.top);
        self.digits = !self.digits;
        self.left = 0;
        self.top = self.line_of(at);
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
            let columns = TAB - width(&out) % TAB;
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

/// The columns of [`digits`] in which bytes of a row are: digit by digit, then as ASCII.
fn digit_columns(bytes: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    /// Where the first byte's digits are, and its ASCII.
    const FIRST: usize = 8;
    const ASCII: usize = FIRST + 3 * PER_LINE + 3;
    let digits = bytes.clone().map(|place| FIRST + 3 * place + place / 8);
    let ascii = ASCII + bytes.start..ASCII + bytes.end;
    digits.map(|column| column..column + 2).chain(std::iter::once(ascii))
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
    fn what_is_found_is_marked_where_it_is_shown() {
        let mut text = pager("\tab\n漢ab ab\n".as_bytes());
        text.find("ab", 1, 20).expect("a text");
        assert_eq!(text.marks(0), [(8..10, false)], "behind a tabulator");
        assert_eq!(text.marks(1), [(2..4, true), (5..7, false)], "the first from line 1 on");
        text.switch();
        let row = text.line(0);
        for (columns, _) in text.marks(0) {
            let part = &row[columns];
            assert!(["61", "62", "ab"].contains(&part), "{part} in {row}");
        }
        assert_eq!(text.marks(0).len(), 9, "three places, two digits and the letters of each");
    }

    #[test]
    fn finding_scrolls_to_what_is_not_on_the_screen() {
        let text: String = (0..100).map(|line| format!("line {line:4}\n")).collect();
        let mut pager = pager(text.as_bytes());
        pager.find("~ 5$", 0, 20).expect("an expression");
        assert_eq!((pager.top, pager.found.len()), (0, 1), "line 5 is on the screen");
        pager.find("50", 0, 21).expect("a text");
        assert_eq!(pager.top, 43, "seven lines below the edge");
        assert!(pager.find_again(true, 21), "there is one only");
        assert_eq!(pager.top, 43, "it is where it was");
        pager.find("nothing", 10, 20).expect("a text");
        assert_eq!((pager.top, pager.found.current()), (10, None), "where it was looked for from");
        assert!(pager.find("~[", 10, 20).is_err(), "nonsense");
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
