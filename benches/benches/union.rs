//! layerfs and fuse-overlayfs against the kernel's overlay, over the same lower directories.
//!
//! `--quick` does three rounds in place of seven; any other word keeps the workloads whose name holds
//! it. `LAYERFS_BENCH_OPTIONS` adds further layerfs mounts: their options, separated by semicolons.
//! `--lay-out ABOVE BELOW` only fills two lower directories, and `--on DIR WORKLOAD` only runs a workload
//! on a mount that is there, for profilers and counters.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use benches::rounds::median;
use benches::unions::{Ground, Maker, RING, Stand};
use benches::work::{self, Work};
use benches::{Failure, cache};

#[path = "../../layerfs/tests/union/uring.rs"]
#[allow(dead_code, reason = "the tests ask for more of it")]
mod uring;

const ROUNDS: usize = 7;
const QUICK: usize = 3;

/// Room for the lowers and for what the rounds of all makers write.
const GROUND: u64 = 12 << 30;

/// The times of one workload, for each maker.
type Times = Vec<Vec<Duration>>;

fn time(stand: &mut Stand, work: &Work) -> Result<Duration, Failure> {
    (work.prepare)(&stand.root())?;
    if work.cold {
        stand.remount()?;
    }
    let start = Instant::now();
    (work.run)(&stand.root())?;
    Ok(start.elapsed())
}

/// Runs one workload once.
fn once(dir: &Path, name: &str) -> Result<(), Failure> {
    let work = work::ALL.iter().find(|work| work.name.contains(name)).ok_or("no such workload")?;
    (work.run)(dir)
}

fn makers(ring: bool) -> Vec<Maker> {
    let layerfs = |options: &str| Maker::Layerfs(options.to_owned());
    let mut makers = vec![Maker::Kernel, Maker::FuseOverlayfs, layerfs("transport=device")];
    if ring {
        makers.push(layerfs(RING));
    }
    // What promises no more than fuse-overlayfs does.
    makers.push(layerfs("volatile"));
    if let Ok(more) = std::env::var("LAYERFS_BENCH_OPTIONS") {
        makers.extend(more.split(';').map(layerfs));
    }
    makers
}

/// Prints for each maker the median of what it took in each round as a multiple of what the kernel took
/// in the same round.
#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn table(makers: &[Maker], rows: &[(&Work, Times)]) {
    print!("\nunions: times slower than the kernel's overlay\n{:<32} {:>10}", "", "kernel ms");
    for maker in &makers[1..] {
        print!(" {:>15}", maker.name());
    }
    println!(" {:>8}", "target");
    for (work, times) in rows {
        let base = median(&times[0]).as_secs_f64();
        print!("{:<32} {:>10.1}", work.name, base * 1000.0);
        for own in &times[1..] {
            print!(" {:>15.2}", median_ratio(own, &times[0]));
        }
        println!(" {:>8.2}", work.target);
    }
}

fn median_ratio(own: &[Duration], others: &[Duration]) -> f64 {
    let mut ratios: Vec<f64> = own
        .iter()
        .zip(others)
        .map(|(own, other)| own.as_secs_f64() / other.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

#[expect(clippy::print_stderr, reason = "a run takes minutes")]
fn progress(round: usize) {
    eprintln!("unions: round {round}");
}

/// Whose turn it is in a round, one after the other: each comes first and last as often as another, and not
/// always after the same one, for something of that one is always left.
fn order(count: usize, round: usize) -> impl Iterator<Item = usize> {
    let divides = |step: usize, by: usize| step.is_multiple_of(by) && count.is_multiple_of(by);
    let steps: Vec<usize> =
        (1..count.max(2)).filter(|step| !(2..=*step).any(|by| divides(*step, by))).collect();
    let step = steps[round % steps.len()];
    (0..count).map(move |turn| (turn * step + round) % count)
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--bench")).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--lay-out", above, below] => return work::lay_out(above.as_ref(), below.as_ref()),
        ["--on", dir, name] => return once(dir.as_ref(), name),
        _ => {}
    }
    let quick = words.iter().any(|word| word == "--quick");
    let wanted: Vec<_> = words.iter().filter(|word| !word.starts_with("--")).collect();
    let works = work::ALL.iter().filter(|work| {
        wanted.is_empty() || wanted.iter().any(|word| work.name.contains(word.as_str()))
    });
    std::fs::create_dir_all(cache())?;
    let dir = tempfile::tempdir_in(cache())?;
    let ground = Ground::new(dir.path(), GROUND)?;
    let (above, below) = (ground.path().join("above"), ground.path().join("below"));
    work::lay_out(&above, &below)?;
    let ring = uring::unavailable().is_none().then(uring::Enabled::hold).transpose()?;
    let makers = makers(ring.is_some());
    let lowers: [PathBuf; 2] = [above, below];
    let mut stands = Vec::new();
    for (number, maker) in makers.iter().enumerate() {
        let dir = ground.path().join(format!("stand-{number}"));
        stands.push(Stand::new(maker.clone(), &lowers, dir)?);
    }
    let mut rows: Vec<(&Work, Times)> =
        works.map(|work| (work, vec![Vec::new(); makers.len()])).collect();
    for round in 0..=if quick { QUICK } else { ROUNDS } {
        progress(round);
        for stand in &mut stands {
            stand.renew()?;
        }
        ground.sync()?;
        for (work, times) in &mut rows {
            for turn in order(makers.len(), round) {
                let (stand, times) = (&mut stands[turn], &mut times[turn]);
                let took = time(stand, work)
                    .map_err(|error| format!("{}: {}: {error}", stand.maker().name(), work.name))?;
                // The first round warms up what all share.
                if round > 0 {
                    times.push(took);
                }
                // What one has written is not left to the next one's time.
                ground.sync()?;
            }
        }
    }
    table(&makers, &rows);
    Ok(())
}
