//! Finding text in a file's content.

use std::ops::Range;

use super::matcher::expression;

/// The most places that are found; a file of one letter has a million.
const MOST: usize = 100_000;

/// What was looked for in a content, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What was looked for, as typed; nothing if it is empty.
    pub(super) pattern: String,
    /// Where it is, in bytes from the beginning, in order.
    places: Vec<Range<usize>>,
    /// Which of the places was gone to last.
    current: usize,
}

impl Found {
    /// Looks for a text, or for a regular expression after `~`, in a content; the first place at an offset
    /// or behind it is the current one, else the first of all.
    ///
    /// # Errors
    /// An expression that makes no sense, in one line.
    pub(super) fn new(pattern: &str, bytes: &[u8], from: usize) -> Result<Self, String> {
        if pattern.is_empty() || pattern == "~" {
            return Ok(Self::default());
        }
        let expression = expression(pattern)?;
        // What matches nothing is everywhere.
        let places = expression.find_iter(bytes).map(|place| place.range());
        let places: Vec<_> = places.filter(|place| !place.is_empty()).take(MOST).collect();
        let behind = places.partition_point(|place| place.start < from);
        let current = if behind < places.len() { behind } else { 0 };
        Ok(Self { pattern: pattern.to_owned(), places, current })
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The place that was gone to last, and its number.
    pub(super) fn current(&self) -> Option<(usize, Range<usize>)> {
        self.places.get(self.current).cloned().map(|place| (self.current, place))
    }

    /// Goes to the next place, or to the one before; whether that led over the end.
    pub(super) fn step(&mut self, forward: bool) -> bool {
        let last = self.places.len().saturating_sub(1);
        let (end, beyond) = if forward { (last, 0) } else { (0, last) };
        let around = self.current == end;
        self.current = match (around, forward) {
            (true, _) => beyond,
            (false, true) => self.current + 1,
            (false, false) => self.current - 1,
        };
        around
    }

    /// The places that have bytes in a range, each with whether it is the current one.
    pub(super) fn within(&self, range: Range<usize>) -> impl Iterator<Item = (Range<usize>, bool)> {
        let first = self.places.partition_point(|place| place.end <= range.start);
        let places = self.places.iter().enumerate().skip(first);
        places
            .take_while(move |(_, place)| place.start < range.end)
            .map(|(at, place)| (place.clone(), at == self.current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_from_where_one_is_and_around_the_end() {
        let text = b"one two One two";
        let mut found = Found::new("one", text, 4).expect("a text");
        assert_eq!(
            (found.len(), found.current()),
            (2, Some((1, 8..11))),
            "small letters: any case"
        );
        assert!(found.step(true), "over the end");
        assert_eq!(found.current(), Some((0, 0..3)), "the first");
        assert!(found.step(false), "over the beginning");
        assert!(!found.step(false), "back");
        assert_eq!(found.current(), Some((0, 0..3)), "the first again");
        let within: Vec<_> = found.within(2..9).collect();
        assert_eq!(within, [(0..3, true), (8..11, false)], "both reach into it");
        assert_eq!(found.within(3..8).count(), 0, "none has a byte there");
    }

    #[test]
    fn capital_letters_and_expressions_are_minded_and_nonsense_is_refused() {
        for (pattern, text, count) in [
            ("One", &b"one One"[..], 1),
            ("~t.o", b"two too TWO", 3),
            ("a.c", b"abc a.c", 1),
            ("~x*", b"ab", 0),
            ("", b"ab", 0),
            ("\u{e4}", "\u{c4}\u{e4}".as_bytes(), 2),
        ] {
            let found = Found::new(pattern, text, 0).expect(pattern);
            assert_eq!(found.len(), count, "{pattern}");
        }
        let error = Found::new("~(", b"", 0).expect_err("an open bracket");
        assert!(!error.is_empty() && !error.contains('\n'), "{error:?}");
        let mut nothing = Found::new("no", b"yes", 0).expect("a text");
        assert_eq!((nothing.step(true), nothing.current()), (true, None), "nowhere to go");
    }
}
