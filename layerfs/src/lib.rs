//! A union of layers as a file system in user space.
//!
//! layerfs shows a stack of directories as the kernel's overlay shows them, where the kernel's overlay
//! cannot be had: to processes without privileges, on kernels or file systems that refuse it. From
//! below: [`union`] knows real directories and how they merge; [`node`] what the kernel was told of;
//! [`fs`] what each request does; [`wire`] how requests and replies are laid out; [`transport`]
//! carries them, and [`cpus`] says where it runs; [`mount`] attaches all that to a directory; [`ahead`] has
//! the kernel told of names before it asks.

pub mod ahead;
pub mod cpus;
pub mod error;
pub mod fs;
pub mod ids;
pub mod mount;
pub mod node;
pub mod options;
pub mod passthrough;
pub mod stats;
pub mod transport;
pub mod union;
pub mod wire;
