// The modules of both test programs: `union` mounts over the device, `ring` over io_uring.

#[cfg(test)]
mod ahead;
#[cfg(test)]
mod attributes;
#[cfg(test)]
mod cached;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod flags;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod listings;
#[cfg(test)]
mod metacopy;
#[cfg(test)]
mod overrides;
#[cfg(test)]
mod races;
#[cfg(test)]
mod readers;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod unsettled;
#[cfg(test)]
mod uring;
#[cfg(test)]
mod whiteouts;
