//! Two hundred clients of one daemon for a minute: how much it does, how long each waits, and what is
//! left.
//!
//! `LOAD_SECONDS` and `LOAD_CLIENTS` change how long and how many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use benches::Failure;
use benches::engines;
use tests::load::{Footprint, Load, Outcome, percentile};
use tests::root::mounts_below;

const SECONDS: usize = 60;
const CLIENTS: usize = 200;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[expect(clippy::print_stdout, reason = "the figures are what a benchmark is for")]
fn report(outcome: &Outcome, took: Duration) {
    let rate = |count: usize| count as f64 / took.as_secs_f64();
    println!(
        "\n{} lives in {:.1} s: {:.0} lives and {:.0} calls a second",
        outcome.lives,
        took.as_secs_f64(),
        rate(outcome.lives),
        rate(outcome.samples.len())
    );
    let mut times: BTreeMap<_, Vec<Duration>> = BTreeMap::new();
    for sample in &outcome.samples {
        times.entry((sample.dialect, sample.op)).or_default().push(sample.took);
    }
    println!("{:<20} {:>9} {:>9} {:>9} {:>9}", "", "calls", "p50 ms", "p99 ms", "max ms");
    for ((dialect, op), times) in &mut times {
        times.sort_unstable();
        let at = |percent| percentile(times, percent).as_secs_f64() * 1000.0;
        let name = format!("{dialect:?} {op:?}");
        println!("{name:<20} {:>9} {:>9.2} {:>9.2} {:>9.2}", times.len(), at(50), at(99), at(100));
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what a benchmark is for")]
fn main() -> Result<(), Failure> {
    let seconds = u64::try_from(setting("LOAD_SECONDS", SECONDS))?;
    std::fs::create_dir_all(benches::cache())?;
    let dir = tempfile::tempdir_in(benches::cache())?;
    let daemon = engines::layerd(dir.path(), "overlay2")?;
    let load = Load {
        socket: daemon.socket.clone(),
        dir: dir.path().to_owned(),
        clients: setting("LOAD_CLIENTS", CLIENTS),
    };
    let before = Footprint::of(daemon.pid())?;
    load.prepare().map_err(|error| error.to_string())?;
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let outcome = load.run(|_, _| Instant::now() < end);
    report(&outcome, start.elapsed());
    for failure in &outcome.failures {
        println!("failed: {failure}");
    }
    load.remove().map_err(|error| error.to_string())?;
    // Connections that were closed are let go of in their own time.
    std::thread::sleep(Duration::from_secs(1));
    let after = Footprint::of(daemon.pid())?;
    println!("layerd before: {before:?}; after: {after:?}; peak {} KiB", daemon.peak_memory()?);
    let mounts = mounts_below(dir.path()).len();
    let layers = std::fs::read_dir(dir.path().join("layerd/overlay2/layers"))?.count();
    println!("left: {mounts} mounts, {layers} layers");
    if outcome.failures.is_empty() && mounts == 0 && layers == 0 {
        return Ok(());
    }
    Err(format!("{} clients failed", outcome.failures.len()).into())
}
