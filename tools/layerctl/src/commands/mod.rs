//! One file a command: its arguments, what it gathers, how it is rendered.

pub(crate) mod blame;
pub(crate) mod cat;
pub(crate) mod check_image;
pub(crate) mod commit;
pub(crate) mod cp;
pub(crate) mod diff;
pub(crate) mod du;
pub(crate) mod events;
pub(crate) mod explore;
pub(crate) mod graph;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod layers;
pub(crate) mod pool;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod report;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod snapshots;
pub(crate) mod tag;
pub(crate) mod tree;
pub(crate) mod verify;

mod filter;
mod listing;
