//! layerfs mounted for real, held against the kernel's overlay.

#[cfg(test)]
mod differential;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod whiteouts;
