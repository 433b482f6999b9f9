//! The tests of `union` once more, with requests over the ring.

include!("../union/modules.rs");
