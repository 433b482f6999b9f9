//! Copies of files and trees, as cheap as the file system allows.
//!
//! [`Copier`] moves the data of one file, [`node`] makes one file of any kind with everything that
//! belongs to it, [`tree`] copies a whole tree, and [`up`] brings a path of lower layers into an
//! upper one.

mod data;
mod node;
mod tree;
mod up;

pub use data::{Copied, Copier};
pub use node::{Source, finish, node};
pub use tree::{Options, Sockets, tree};
pub use up::up;

#[cfg(test)]
mod tests;
