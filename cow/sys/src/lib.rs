//! System calls and memory maps that need `unsafe`, behind safe functions.
//!
//! This is the only crate of the workspace in which `unsafe` may be written; everything that
//! `rustix` already offers safely is called from there directly and has no wrapper here.
