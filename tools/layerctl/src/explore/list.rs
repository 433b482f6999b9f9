//! A selected line and the part of a list that is on the screen.

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    /// The selected line.
    pub(super) selected: usize,
    /// The first line on the screen.
    pub(super) top: usize,
}

/// How to move in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// So many lines down, or up.
    Lines(isize),
    /// So many screens down, or up.
    Pages(isize),
    /// To the first line.
    First,
    /// To the last line.
    Last,
}

impl List {
    /// Moves the selection in a list of so many lines, of which so many are on the screen.
    pub(super) fn go(&mut self, step: Move, len: usize, height: usize) {
        self.selected = moved(self.selected, step, len, height);
        self.reveal(len, height);
    }

    /// Moves what is on the screen by lines, and the selection only as far as it must.
    pub(super) fn scroll(&mut self, lines: isize, len: usize, height: usize) {
        let most = len.saturating_sub(height);
        self.top = self.top.saturating_add_signed(lines).min(most);
        let last = (self.top + height).min(len).saturating_sub(1);
        self.selected = self.selected.clamp(self.top.min(last), last);
    }

    /// Keeps the selection within a list.
    pub(super) fn clamp(&mut self, len: usize) {
        self.selected = self.selected.min(len.saturating_sub(1));
    }

    /// Brings the selected line onto the screen, and no empty lines that could be full.
    pub(super) fn reveal(&mut self, len: usize, height: usize) {
        self.clamp(len);
        let lowest = self.selected.saturating_sub(height.saturating_sub(1));
        self.top = self.top.clamp(lowest, self.selected).min(len.saturating_sub(height));
    }
}

/// Where a move from a line leads to.
pub(super) fn moved(from: usize, step: Move, len: usize, height: usize) -> usize {
    let last = len.saturating_sub(1);
    let page = isize::try_from(height.saturating_sub(1).max(1)).unwrap_or(isize::MAX);
    match step {
        Move::Lines(lines) => from.saturating_add_signed(lines).min(last),
        Move::Pages(pages) => from.saturating_add_signed(pages.saturating_mul(page)).min(last),
        Move::First => 0,
        Move::Last => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selection_moves_and_stays_on_the_screen() {
        let mut list = List::default();
        for (step, selected, top) in [
            (Move::Lines(-1), 0, 0),
            (Move::Lines(9), 9, 0),
            (Move::Lines(1), 10, 1),
            (Move::Pages(1), 19, 10),
            (Move::Lines(-5), 14, 10),
            (Move::Last, 99, 90),
            (Move::Pages(1), 99, 90),
            (Move::Pages(-1), 90, 90),
            (Move::Lines(-1), 89, 89),
            (Move::First, 0, 0),
        ] {
            list.go(step, 100, 10);
            assert_eq!((list.selected, list.top), (selected, top), "after {step:?}");
        }
    }

    #[test]
    fn scrolling_takes_the_selection_along_only_when_it_must() {
        let mut list = List::default();
        for (lines, selected, top) in [(3, 3, 3), (100, 90, 90), (-3, 90, 87), (-50, 46, 37)] {
            list.scroll(lines, 100, 10);
            assert_eq!((list.selected, list.top), (selected, top), "after {lines} lines");
        }
    }

    #[test]
    fn a_list_that_shrinks_leaves_no_empty_lines() {
        let mut list = List { selected: 99, top: 90 };
        list.reveal(12, 10);
        assert_eq!(list, List { selected: 11, top: 2 }, "fewer lines");
        list.reveal(12, 20);
        assert_eq!(list, List { selected: 11, top: 0 }, "a higher screen");
        list.reveal(0, 20);
        assert_eq!(list, List::default(), "no lines");
        list.go(Move::Pages(1), 0, 0);
        assert_eq!(list, List::default(), "nowhere to go");
    }
}
