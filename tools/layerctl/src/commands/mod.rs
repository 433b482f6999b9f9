//! One file a command: its arguments, what it gathers, how it is rendered.

pub(crate) mod commit;
pub(crate) mod diff;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod tag;

mod filter;
