//! The size of a node, which a mount has for each file that the kernel remembers.

use super::*;

#[test]
fn a_node_and_its_places_in_the_table_stay_below_400_bytes() {
    let node = size_of::<Node>() + 2 * size_of::<usize>();
    // The number, the slot and a control byte; the real inode, the number and a control byte; both
    // tables at the worst moment, half empty after they grew.
    let tables = 2 * (8 + 16 + 1) + 2 * (16 + 8 + 1);
    // A name of 24 bytes, kept by the node and by its place, as the allocator rounds it.
    let names = 2 * 32;
    assert!(node + tables + names <= 400, "{node} + {tables} + {names}");
}
