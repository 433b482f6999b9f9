//! Maps of sparse files, in the four ways that GNU tar has written them.

use super::header::{self, Block};
use super::{BLOCK, Segment};

/// Checks a map: in order, without overlap, within `size`, and summing up to `stored` bytes.
///
/// Empty segments, which GNU tar writes to mark the end, are dropped.
pub(super) fn check(
    map: &mut Vec<Segment>,
    size: u64,
    stored: u64,
) -> std::result::Result<(), &'static str> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for segment in map.iter() {
        if segment.offset < end {
            return Err("sparse map out of order");
        }
        end = segment.offset.checked_add(segment.len).ok_or("sparse map overflows")?;
        sum += segment.len;
    }
    if end > size {
        return Err("sparse map reaches beyond the file");
    }
    if sum != stored {
        return Err("sparse map does not match the stored size");
    }
    map.retain(|segment| segment.len > 0);
    Ok(())
}

/// Reads the offset and length pairs of an old GNU header or extension block.
///
/// A pair of two empty fields ends the list.
pub(super) fn old_pairs(fields: &[u8], map: &mut Vec<Segment>) -> Option<()> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let (offset, len) = pair.split_at(12);
        map.push(Segment { offset: header::size(offset)?, len: header::size(len)? });
    }
    Some(())
}

/// Where the pairs and the flag for a further block are in an old GNU extension block.
pub(super) fn extension(block: &Block) -> (&[u8], bool) {
    (&block[..504], block[504] != 0)
}

/// Reads a comma-separated map (`GNU.sparse.map`, format 0.1).
pub(super) fn comma_list(text: &[u8], map: &mut Vec<Segment>) -> Option<()> {
    map.clear();
    if text.is_empty() {
        return Some(());
    }
    let mut numbers = text.split(|byte| *byte == b',').map(decimal);
    while let Some(offset) = numbers.next() {
        map.push(Segment { offset: offset?, len: numbers.next()?? });
    }
    Some(())
}

/// Reads decimal digits.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A reader of the map that precedes the content in format 1.0: decimal numbers, each closed by a
/// newline, first their count, padded to a whole block.
#[derive(Debug, Default)]
pub(super) struct Preamble {
    digits: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
}

impl Preamble {
    /// Takes one block of the map; whether the map is whole. None for a malformed one.
    pub(super) fn block(
        &mut self,
        block: &[u8],
        map: &mut Vec<Segment>,
        limit: usize,
    ) -> Option<bool> {
        debug_assert_eq!(block.len(), BLOCK, "maps are padded to whole blocks");
        for byte in block {
            if *byte != b'\n' {
                if self.digits.len() >= 20 {
                    return None;
                }
                self.digits.push(*byte);
                continue;
            }
            let number = decimal(&self.digits)?;
            self.digits.clear();
            match (self.count, self.offset.take()) {
                (None, _) if number > limit as u64 => return None,
                (None, _) => self.count = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => map.push(Segment { offset, len: number }),
            }
            if self.count == Some(map.len() as u64) {
                return Some(true);
            }
        }
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = &'static [(u64, u64)];

    fn map(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|&(offset, len)| Segment { offset, len }).collect()
    }

    #[test]
    fn only_sane_maps_pass() {
        let cases: [(Pairs, u64, u64, bool); 8] = [
            (&[], 10, 0, true),
            (&[(0, 4), (8, 2), (10, 0)], 10, 6, true),
            (&[(0, 4), (4, 4)], 8, 8, true),
            (&[(4, 4), (0, 4)], 8, 8, false),
            (&[(0, 4), (3, 4)], 8, 8, false),
            (&[(0, 4)], 3, 4, false),
            (&[(0, 4)], 8, 5, false),
            (&[(u64::MAX, 2)], u64::MAX, 2, false),
        ];
        for (pairs, size, stored, sane) in cases {
            let mut segments = map(pairs);
            let found = check(&mut segments, size, stored);
            assert_eq!(found.is_ok(), sane, "{pairs:?} of {size}, {stored} stored: {found:?}");
        }
    }

    #[test]
    fn comma_lists_need_pairs_of_decimals() {
        let cases: [(&[u8], Option<Vec<Segment>>); 6] = [
            (b"", Some(vec![])),
            (b"0,5,10,2", Some(map(&[(0, 5), (10, 2)]))),
            (b"0,5,10", None),
            (b"0,-5", None),
            (b",", None),
            (b"0,99999999999999999999", None),
        ];
        for (text, expected) in cases {
            let mut segments = Vec::new();
            let found = comma_list(text, &mut segments).map(|()| segments);
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_preamble_may_span_blocks_and_is_bounded() {
        let text: String = std::iter::once("200\n".to_owned())
            .chain((0..200).map(|index| format!("{}\n1\n", index * 10)))
            .collect();
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let (mut preamble, mut segments) = (Preamble::default(), Vec::new());
        let blocks: Vec<_> = bytes
            .chunks(BLOCK)
            .map(|block| preamble.block(block, &mut segments, 1000).unwrap())
            .collect();
        assert_eq!(segments.len(), 200, "all segments");
        assert!(blocks.len() > 1 && blocks.iter().filter(|done| **done).count() == 1, "{blocks:?}");
        let refused = Preamble::default().block(&bytes[..BLOCK], &mut Vec::new(), 100);
        assert_eq!(refused, None, "more segments than allowed");
        assert_eq!(Preamble::default().block(&[b'1'; BLOCK], &mut Vec::new(), 100), None, "digits");
    }
}
