//! The vocabulary and mechanics of container layers.
//!
//! What a layer *is* lives here: digests and chain ids ([`digest`]), the metadata of one file
//! ([`meta`]), how a tree changed ([`change`]), its tar form ([`tar`]), both spellings of a deletion
//! ([`whiteout`]), what a layer holds file by file ([`index`]) and what layers on each other make
//! ([`stack`]), how a tar is applied ([`apply`]) and made ([`pack`]), and the errors that all of it speaks ([`error`]).
//! Nothing in this crate mounts, knows a driver, opens a socket or decides where layers are kept:
//! every function works below a directory that the caller holds open.

pub mod apply;
pub mod at;
pub mod change;
pub mod compare;
pub mod copy;
mod descent;
pub mod diff;
pub mod digest;
pub mod error;
pub mod index;
pub mod listing;
pub mod marks;
pub mod meta;
pub mod origin;
pub mod overlay_view;
pub mod pack;
pub mod root;
pub mod stack;
pub mod tar;
pub mod unsettled;
pub mod usage;
pub mod walk;
pub mod whiteout;
pub mod xattr;

#[cfg(test)]
mod testing;

pub use error::{Error, ErrorKind, Result};
