//! The places of a device that have inodes, and which of them lie in the parts that were written.

use std::ops::Range;

/// A row of inodes without a gap, in place and in number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where it begins, in bytes.
    pub(super) at: u64,
    /// The number of its first inode.
    pub(super) first: u64,
    /// How many there are.
    pub(super) count: u64,
}

/// All places, of which the touched parts are picked.
#[derive(Debug)]
pub(super) struct Places {
    /// In the order of the device.
    all: Vec<Place>,
    inode_size: u64,
    touched: Vec<Place>,
}

impl Places {
    /// Of inodes of so many bytes; `all` in any order.
    pub(super) fn new(mut all: Vec<Place>, inode_size: u64) -> Self {
        all.sort_unstable_by_key(|place| place.at);
        Self { all, inode_size, touched: Vec::new() }
    }

    /// Notes the inodes that a part of the device has.
    pub(super) fn touch(&mut self, part: Range<u64>) {
        let size = self.inode_size;
        let first = self.all.partition_point(|place| place.at + place.count * size <= part.start);
        for place in self.all[first..].iter().take_while(|place| place.at < part.end) {
            let start = part.start.saturating_sub(place.at) / size;
            let end = (part.end - place.at).div_ceil(size).min(place.count);
            if end <= start {
                continue;
            }
            let piece = Place {
                at: place.at + start * size,
                first: place.first + start,
                count: end - start,
            };
            match self.touched.last_mut() {
                Some(last)
                    if last.at + last.count * size == piece.at
                        && last.first + last.count == piece.first =>
                {
                    last.count += piece.count;
                }
                _ => self.touched.push(piece),
            }
        }
    }

    /// All that were noted.
    pub(super) fn into_touched(self) -> Vec<Place> {
        self.touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_names_the_inodes_in_it_alone() {
        let (first, second) = (1 << 20, 4 << 20);
        let length = 8192 * 256;
        // The second group's table comes first, and the third is a short one right after the first's.
        let places = [
            Place { at: second, first: 1, count: 8192 },
            Place { at: first, first: 8193, count: 8192 },
            Place { at: second + length, first: 20_001, count: 10 },
        ];
        let of = |parts: &[(u64, u64)]| {
            let mut places = Places::new(places.to_vec(), 256);
            parts.iter().for_each(|&(start, end)| places.touch(start..end));
            let touched = places.into_touched();
            touched.iter().map(|p| (p.at, p.first, p.count)).collect::<Vec<_>>()
        };
        let all = vec![(first, 8193, 8192), (second, 1, 8192), (second + length, 20_001, 10)];
        for (parts, expected) in [
            (&[(0, first)][..], vec![]),
            (&[(3 << 20, second)], vec![]),
            (&[(first, first)], vec![]),
            (&[(first, first + 512)], vec![(first, 8193, 2)]),
            (&[(first - 65_536, first + 257)], vec![(first, 8193, 2)]),
            (&[(second + length - 256, second + length)], vec![(second + length - 256, 8192, 1)]),
            (&[(second, second + 256), (second + 256, second + 512)], vec![(second, 1, 2)]),
            (
                &[(second + length - 256, 7 << 20)],
                vec![(second + length - 256, 8192, 1), (second + length, 20_001, 10)],
            ),
            (&[(0, 64 << 20)], all),
        ] {
            assert_eq!(of(parts), expected, "{parts:?}");
        }
    }
}
