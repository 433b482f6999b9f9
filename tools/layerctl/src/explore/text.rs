//! Text that is safe to show, and as wide as it should be.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::inspect::lossy;
use crate::names::printable;

/// A name of an image as text: bytes that are no UTF-8, control characters, and characters that turn
/// the direction of writing or have no width of their own at the beginning are escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = lossy(bytes);
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in printable(&text).chars() {
        match c {
            // Bidirectional controls, separators, invisible characters: Unicode's general categories
            // Cf, Zl, Zp as far as they can deceive.
            '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// The columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// A text in so many columns: cut with a mark where it goes on, or filled up with spaces.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let mut out = cut(text, columns);
    let missing = columns - width(&out).min(columns);
    out.extend(std::iter::repeat_n(' ', missing));
    out
}

/// A text in at most so many columns, with a mark where it goes on.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// The end of a text in at most so many columns, with a mark where it begins earlier: of a path the
/// end says most.
pub(super) fn cut_start(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut used = 1;
    let mut from = text.len();
    for (at, c) in text.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        from = at;
    }
    if columns == 0 { String::new() } else { format!("…{}", &text[from..]) }
}

/// A text without the characters in its first columns.
pub(super) fn skip(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        if used >= columns {
            return &text[at..];
        }
        used += c.width().unwrap_or(0);
    }
    ""
}

/// A text in lines of at most so many columns, broken between words where it can be.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word = word;
        if !line.is_empty() && width(&line) + 1 + width(word) > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        while width(&line) + width(word) > columns {
            let rest = skip_whole(word, columns - width(&line).min(columns));
            lines.push(format!("{line}{}", &word[..word.len() - rest.len()]));
            line.clear();
            word = rest;
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// What is left behind the characters that fit into so many columns; at least one is taken.
fn skip_whole(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns && at > 0 {
            return &text[at..];
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_play_tricks_on_the_terminal() {
        for (name, expected) in [
            (&b"plain"[..], "plain"),
            ("größe".as_bytes(), "größe"),
            (b"a\x1b[2Jb\n", "a\\u{1b}[2Jb\\n"),
            (b"\xff", "\\xff"),
            ("gpj\u{202e}exe".as_bytes(), "gpj\\u{202e}exe"),
            ("a\u{200b}b".as_bytes(), "a\\u{200b}b"),
            ("漢字".as_bytes(), "漢字"),
        ] {
            assert_eq!(shown(name), expected, "{name:?}");
        }
    }

    #[test]
    fn text_is_cut_by_columns_and_not_by_characters() {
        for (text, columns, fitted, end) in [
            ("abc", 5, "abc  ", "abc"),
            ("abcdef", 4, "abc…", "…def"),
            ("漢字かな", 6, "漢字… ", "…かな"),
            ("漢字かな", 5, "漢字…", "…かな"),
            ("漢字", 4, "漢字", "漢字"),
            ("abc", 0, "", ""),
            ("abc", 1, "…", "…"),
        ] {
            assert_eq!(fit(text, columns), fitted, "{text} in {columns}");
            assert_eq!(cut_start(text, columns), end, "the end of {text} in {columns}");
        }
        assert_eq!(skip("漢字x", 2), "字x");
        assert_eq!(skip("ab", 5), "");
    }

    #[test]
    fn text_is_wrapped_between_words() {
        for (text, columns, expected) in [
            ("RUN a b", 20, &["RUN a b"][..]),
            ("RUN apt-get update", 8, &["RUN", "apt-get", "update"]),
            ("abcdefgh ij", 4, &["abcd", "efgh", "ij"]),
            ("漢字かな", 5, &["漢字", "かな"]),
            ("", 5, &[""]),
        ] {
            assert_eq!(wrap(text, columns), expected, "{text} in {columns}");
        }
    }
}
