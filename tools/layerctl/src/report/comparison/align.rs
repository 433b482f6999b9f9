//! Two lists side by side: what both have in the same order, and what only one has.

use std::hash::Hash;

use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices};

/// A place in one or both lists, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Pair {
    /// In the first.
    pub(crate) a: Option<usize>,
    /// In the second.
    pub(crate) b: Option<usize>,
}

/// Lays two lists side by side.
pub(super) fn align<T: Eq + Hash>(a: &[T], b: &[T]) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(a.len().max(b.len()));
    let only_a =
        |from: usize, len: usize| (from..from + len).map(|at| Pair { a: Some(at + 1), b: None });
    let only_b =
        |from: usize, len: usize| (from..from + len).map(|at| Pair { a: None, b: Some(at + 1) });
    for op in capture_diff_slices(Algorithm::Myers, a, b) {
        match op {
            DiffOp::Equal { old_index, new_index, len } => {
                let both = |at| Pair { a: Some(old_index + at + 1), b: Some(new_index + at + 1) };
                pairs.extend((0..len).map(both));
            }
            DiffOp::Delete { old_index, old_len, .. } => pairs.extend(only_a(old_index, old_len)),
            DiffOp::Insert { new_index, new_len, .. } => pairs.extend(only_b(new_index, new_len)),
            DiffOp::Replace { old_index, old_len, new_index, new_len } => {
                pairs.extend(only_a(old_index, old_len));
                pairs.extend(only_b(new_index, new_len));
            }
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_laid_side_by_side() {
        for (a, b, expected) in [
            ("", "", ""),
            ("xy", "xy", "1=1 2=2"),
            ("xy", "xyz", "1=1 2=2 -=3"),
            ("xy", "xz", "1=1 2=- -=2"),
            ("xay", "xy", "1=1 2=- 3=2"),
            ("a", "b", "1=- -=1"),
            ("a", "", "1=-"),
        ] {
            let (one, two): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
            let side = |at: Option<usize>| at.map_or("-".to_owned(), |at| at.to_string());
            let found: Vec<_> = align(&one, &two)
                .iter()
                .map(|pair| format!("{}={}", side(pair.a), side(pair.b)))
                .collect();
            assert_eq!(found.join(" "), expected, "{a:?} and {b:?}");
        }
    }
}
