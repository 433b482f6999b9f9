//! layerfs mounted for real, held against the kernel's overlay.

include!("modules.rs");
