//! How long calls took.

use std::time::Duration;

use super::Dialect;

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// A call to make a snapshot.
    Prepare,
    /// A call for its mounts; of Docker's dialect, `Get`, which mounts.
    Mounts,
    /// mount(2).
    Mount,
    /// umount(2); of Docker's dialect, `Put`, which unmounts.
    Unmount,
    /// A call to commit a snapshot.
    Commit,
    /// A call to remove a snapshot.
    Remove,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Prepare, Self::Mounts, Self::Mount, Self::Unmount, Self::Commit, Self::Remove];
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// In which dialect.
    pub dialect: Dialect,
    /// What it was.
    pub op: Op,
    /// How long it took.
    pub took: Duration,
}

/// The time below which so many percent of the sorted times are.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        for (percent, expected) in [(0, 1), (50, 101), (99, 199), (100, 200)] {
            let found = percentile(&times, percent);
            assert_eq!(found, Duration::from_millis(expected), "{percent} percent");
        }
        assert_eq!(percentile(&[], 50), Duration::ZERO, "of nothing");
    }
}
