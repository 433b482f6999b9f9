//! Interleaved rounds, medians, and the table they end in.

use std::time::{Duration, Instant};

use crate::Failure;

/// One contestant: its name and what it does in a round. Preparation and cleaning between rounds belong
/// into `reset`, which is not timed.
pub struct Contestant<'a> {
    /// The name in the table.
    pub name: &'a str,
    /// What is timed.
    pub work: Box<dyn FnMut() -> Result<(), Failure> + 'a>,
    /// What puts everything back before the next round.
    pub reset: Box<dyn FnMut() -> Result<(), Failure> + 'a>,
}

impl std::fmt::Debug for Contestant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contestant").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Times every contestant `rounds` times after one round that does not count.
///
/// # Errors
/// The first failure of any contestant.
pub fn race(
    rounds: usize,
    contestants: &mut [Contestant<'_>],
) -> Result<Vec<(String, Vec<Duration>)>, Failure> {
    let mut times: Vec<_> =
        contestants.iter().map(|contestant| (contestant.name.to_owned(), Vec::new())).collect();
    for round in 0..=rounds {
        for (contestant, (_, kept)) in contestants.iter_mut().zip(&mut times) {
            let start = Instant::now();
            (contestant.work)().map_err(|error| format!("{}: {error}", contestant.name))?;
            let took = start.elapsed();
            (contestant.reset)()?;
            if round > 0 {
                kept.push(took);
            }
        }
    }
    Ok(times)
}

/// The middle of the sorted times.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Prints minimum, median, maximum and the ratio to the first row.
#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
pub fn table(title: &str, times: &[(String, Vec<Duration>)]) {
    let base = times.first().map_or(Duration::ZERO, |(_, times)| median(times));
    println!(
        "\n{title}\n{:<44} {:>10} {:>10} {:>10} {:>8}",
        "", "min ms", "median ms", "max ms", "ratio"
    );
    for (name, times) in times {
        let (low, middle) = (times.iter().min(), median(times));
        let (low, high) = (low.copied().unwrap_or_default(), times.iter().max());
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "{name:<44} {:>10.1} {:>10.1} {:>10.1} {:>8.2}",
            millis(low),
            millis(middle),
            millis(high.copied().unwrap_or_default()),
            base.as_secs_f64() / middle.as_secs_f64()
        );
    }
}
