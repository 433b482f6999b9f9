//! Trees from left to right: each depth has a column, each tree a band of its own.

/// A box to be placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Its height.
    pub(super) height: u32,
    /// What hangs on it, places in the list of boxes.
    pub(super) children: Vec<usize>,
}

/// Where a box is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// The column, 0 at the left.
    pub(super) column: u32,
    /// The upper edge.
    pub(super) top: u32,
}

/// Places trees below each other, `gap` apart, and gives the height of all. A box is level with the
/// first that hangs on it, so that a reader who begins at the upper left begins at the root.
pub(super) fn place(blocks: &[Block], roots: &[usize], gap: u32) -> (Vec<Spot>, u32) {
    let mut spots = vec![Spot::default(); blocks.len()];
    let mut bottom = 0;
    for (at, root) in roots.iter().enumerate() {
        let top = if at == 0 { 0 } else { bottom + gap };
        bottom = tree(blocks, *root, Spot { column: 0, top }, gap, &mut spots);
    }
    (spots, bottom)
}

/// Places a tree and gives its lower edge. It is as deep as images branch, which the number of
/// an image's layers bounds.
fn tree(blocks: &[Block], at: usize, spot: Spot, gap: u32, spots: &mut [Spot]) -> u32 {
    spots[at] = spot;
    let mut bottom = spot.top;
    for (number, child) in blocks[at].children.iter().enumerate() {
        let top = if number == 0 { spot.top } else { bottom + gap };
        bottom = tree(blocks, *child, Spot { column: spot.column + 1, top }, gap, spots);
    }
    bottom.max(spot.top + blocks[at].height)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A forest of boxes from a generator of its own, so that it is the same each time.
    fn forest(count: usize, seed: u64) -> (Vec<Block>, Vec<usize>) {
        let mut state = seed;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut blocks: Vec<Block> = Vec::new();
        let mut roots = Vec::new();
        for at in 0..count {
            let height = 10 + u32::try_from(next(90)).expect("small");
            blocks.push(Block { height, children: Vec::new() });
            let parent = usize::try_from(next(at as u64 + 1)).expect("small");
            if parent == at { roots.push(at) } else { blocks[parent].children.push(at) }
        }
        (blocks, roots)
    }

    #[test]
    fn boxes_are_apart_and_right_of_what_they_hang_on() {
        for (count, seed) in [(1, 1), (5, 2), (60, 3), (300, 4)] {
            let (blocks, roots) = forest(count, seed);
            let (spots, height) = place(&blocks, &roots, 8);
            for (at, block) in blocks.iter().enumerate() {
                let spot = spots[at];
                assert!(spot.top + block.height <= height, "{at} of {count} sticks out");
                for child in &block.children {
                    assert_eq!(spots[*child].column, spot.column + 1, "{child} hangs on {at}");
                    assert!(spots[*child].top >= spot.top, "{child} is above {at}");
                }
                for other in at + 1..count {
                    let (a, b) = (spot, spots[other]);
                    let apart = a.column != b.column
                        || a.top + block.height + 8 <= b.top
                        || b.top + blocks[other].height + 8 <= a.top;
                    assert!(apart, "{at} and {other} of {count} overlap: {a:?} {b:?}");
                }
            }
        }
    }
}
