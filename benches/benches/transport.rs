//! layerfs's two transports against each other: what a round trip costs over `/dev/fuse` and over the
//! ring (io_uring).
//!
//! `--quick` does three rounds in place of nine; any other word keeps the operations whose name holds it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use benches::rounds::median;
use benches::unions::{Ground, Maker, Stand};
use benches::{Failure, cache};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

#[path = "../../layerfs/tests/union/uring.rs"]
#[allow(dead_code, reason = "the tests ask for more of it")]
mod uring;

const ROUNDS: usize = 9;
const QUICK: usize = 3;

/// Room for the lower files and what is written above them.
const GROUND: u64 = 2 << 30;

/// Files in each client's directory.
const FILES: usize = 4000;

/// The length of each client's large file.
const LARGE: u64 = 32 << 20;

/// Who works at the same time.
const CLIENTS: [usize; 2] = [1, 2];

/// One operation that is repeated.
struct Operation {
    name: &'static str,
    /// How often a client does it in a round.
    count: usize,
    /// Does it: in a client's directory, for the how-manieth time, in which round.
    once: fn(&OwnedFd, &OwnedFd, usize, usize) -> Result<(), Errno>,
}

const OPERATIONS: &[Operation] = &[
    Operation { name: "stat of a missing name", count: 8000, once: missing },
    Operation { name: "stat with LOOKUP", count: FILES, once: found },
    Operation { name: "create + close + unlink", count: 1500, once: created },
    Operation { name: "pread 4K, direct", count: 8000, once: read::<4096> },
    Operation { name: "pread 128K, direct", count: 2000, once: read::<{ 128 << 10 }> },
];

fn missing(dir: &OwnedFd, _: &OwnedFd, number: usize, round: usize) -> Result<(), Errno> {
    // A name that was asked for before is the kernel's to answer.
    match statat(dir, format!("missing-{round}-{number}"), AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Errno::EXIST),
    }
}

fn found(dir: &OwnedFd, _: &OwnedFd, number: usize, _: usize) -> Result<(), Errno> {
    statat(dir, format!("f{number}"), AtFlags::empty()).map(drop)
}

fn created(dir: &OwnedFd, _: &OwnedFd, number: usize, _: usize) -> Result<(), Errno> {
    let name = format!("new{number}");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(openat(dir, &name, flags, Mode::RUSR | Mode::WUSR)?);
    unlinkat(dir, &name, AtFlags::empty())
}

fn read<const SIZE: usize>(
    _: &OwnedFd,
    large: &OwnedFd,
    number: usize,
    _: usize,
) -> Result<(), Errno> {
    let mut buffer = [0; SIZE];
    // Far from the last place, so that nothing reads ahead.
    let at = (number as u64).wrapping_mul(0x9e37_79b9) % (LARGE / SIZE as u64) * SIZE as u64;
    match rustix::io::pread(large, &mut buffer, at)? {
        size if size == SIZE => Ok(()),
        _ => Err(Errno::IO),
    }
}

fn lay_out(lower: &Path) -> Result<(), Failure> {
    for client in 0..CLIENTS[1] {
        let dir = lower.join(format!("c{client}"));
        std::fs::create_dir_all(&dir)?;
        for number in 0..FILES {
            File::create(dir.join(format!("f{number}")))?;
        }
        std::fs::write(dir.join("large"), vec![7; usize::try_from(LARGE)?])?;
    }
    Ok(())
}

/// What one client does in one round.
fn client(root: &Path, number: usize, operation: &Operation, round: usize) -> Result<(), Errno> {
    let plain = OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, plain | OFlags::DIRECTORY, Mode::empty())?;
    let dir = openat(&root, format!("c{number}"), plain | OFlags::DIRECTORY, Mode::empty())?;
    let large = openat(&dir, "large", plain | OFlags::DIRECT, Mode::empty())?;
    (0..operation.count).try_for_each(|number| (operation.once)(&dir, &large, number, round))
}

/// The time of one operation with this many clients in directories of their own.
fn time(
    stand: &mut Stand,
    operation: &Operation,
    clients: usize,
    round: usize,
) -> Result<Duration, Failure> {
    // So that every name has to be looked up.
    stand.remount()?;
    let root = stand.root();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..clients)
            .map(|number| {
                scope.spawn({
                    let root = &root;
                    move || client(root, number, operation, round)
                })
            })
            .collect();
        running.into_iter().try_for_each(|client| client.join().map_err(|_| Errno::IO)?)
    })?;
    Ok(start.elapsed() / u32::try_from(operation.count)?)
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn row(name: &str, clients: usize, [device, ring]: &[Vec<Duration>; 2]) {
    let micros = |times: &[Duration]| median(times).as_secs_f64() * 1e6;
    println!(
        "{name:<26} {clients:>7} {:>11.1} {:>9.1} {:>7.2}",
        micros(device),
        micros(ring),
        micros(ring) / micros(device),
    );
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn main() -> Result<(), Failure> {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--bench")).collect();
    let rounds = if words.iter().any(|word| word == "--quick") { QUICK } else { ROUNDS };
    let wanted: Vec<_> = words.iter().filter(|word| !word.starts_with("--")).collect();
    if let Some((missing, _)) = uring::unavailable() {
        println!("transports: cannot be compared here: needs {missing}");
        return Ok(());
    }
    let _enabled = uring::Enabled::hold()?;
    std::fs::create_dir_all(cache())?;
    let dir = tempfile::tempdir_in(cache())?;
    let ground = Ground::new(dir.path(), GROUND)?;
    let lower = ground.path().join("lower");
    lay_out(&lower)?;
    let mut stands = Vec::new();
    for transport in ["device", "ring"] {
        let maker = Maker::Layerfs(format!("transport={transport},passthrough=0"));
        let mut stand =
            Stand::new(maker, std::slice::from_ref(&lower), ground.path().join(transport))?;
        stand.renew()?;
        stands.push(stand);
    }
    println!(
        "transports: us for each operation, of each client\n{:<26} {:>7} {:>11} {:>9} {:>7}",
        "", "clients", "/dev/fuse", "ring", "ratio"
    );
    for operation in OPERATIONS {
        if !wanted.is_empty() && !wanted.iter().any(|word| operation.name.contains(word.as_str())) {
            continue;
        }
        for clients in CLIENTS {
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..=rounds {
                for (stand, times) in stands.iter_mut().zip(&mut times) {
                    let took = time(stand, operation, clients, round)
                        .map_err(|error| format!("{}: {error}", operation.name))?;
                    // The first round warms up what both share.
                    if round > 0 {
                        times.push(took);
                    }
                }
            }
            row(operation.name, clients, &times);
        }
    }
    Ok(())
}
