//! The wire types of layerd's own `/v1/` API, and a blocking client for it.
//!
//! The routes are described in `docs/api.md`. layerd serves these types; layerctl, layerun and any
//! other client speak them over the unix socket. Every answer that is not a stream is one JSON
//! object; a stream is one JSON object a line (`application/x-ndjson`). Unknown fields are ignored
//! by both sides, so that either may be newer.

pub mod client;
mod layers;
pub mod types;

pub use client::{Client, ClientError};
pub use layers::*;
pub use types::*;

/// Where layerd listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/layerd/layerd.sock";
