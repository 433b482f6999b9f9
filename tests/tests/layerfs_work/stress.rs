//! Many threads at random work in one union, each with a tree whose content it knows.
//!
//! `LAYERFS_STRESS_SECONDS`, `LAYERFS_STRESS_SEED` and `LAYERFS_STRESS_OPTIONS` (of the mount) make it
//! longer and different.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::model::{Model, Random, populate};
use crate::stage::{Stage, provides};

const THREADS: u64 = 24;
/// Steps of each thread, unless `LAYERFS_STRESS_SECONDS` says for how long.
const STEPS: usize = 300;

fn tree(thread: u64) -> String {
    format!("tree-{thread}")
}

/// The work of one thread, besides which it makes and removes names in a directory that all share.
fn work(root: &Path, thread: u64, seed: u64, until: Option<Instant>) -> (Model, usize) {
    let mut model = Model::populated(root.join(tree(thread)));
    let mut random = Random::new(seed + thread);
    let shared = root.join("shared");
    let mut steps = 0;
    while until.map_or(steps < STEPS, |until| Instant::now() < until) {
        let outcome = model.step(&mut random);
        outcome
            .unwrap_or_else(|error| panic!("seed {seed}, thread {thread}, step {steps}: {error}"));
        let name = |step: usize| shared.join(format!("{thread}-{step}"));
        fs::write(name(steps), name(steps).to_str().expect("UTF-8")).expect("a file of its own");
        if steps > 0 {
            fs::remove_file(name(steps - 1)).expect("its last file is there");
        }
        steps += 1;
    }
    (model, steps)
}

#[test]
fn threads_find_what_they_wrote() {
    if !provides(&["mkfs.ext4"]) {
        return;
    }
    let seconds = std::env::var("LAYERFS_STRESS_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("a number of seconds"));
    let seed =
        std::env::var("LAYERFS_STRESS_SEED").map_or(1, |text| text.parse().expect("a number"));
    let stage = Stage::on_journal("stress", |bottom, top| {
        fs::create_dir(bottom.join("shared")).expect("a directory");
        for thread in 0..THREADS {
            let dir = tree(thread);
            populate(&bottom.join(&dir), &top.join(&dir)).expect("the lower layers");
        }
    });
    let root = stage.merged();
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let worked: Vec<(Model, usize)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let root = &root;
                scope.spawn(move || work(root, thread, seed, until))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    println!("{} steps", worked.iter().map(|(_, steps)| steps).sum::<usize>());
    let left = fs::read_dir(root.join("shared")).expect("the shared directory").count();
    assert_eq!(left, 24, "each thread leaves one file in the shared directory");
    for round in ["at the end", "mounted again"] {
        for (thread, (model, _)) in worked.iter().enumerate() {
            let outcome = model.check();
            outcome
                .unwrap_or_else(|error| panic!("{round}: seed {seed}, thread {thread}: {error}"));
        }
        stage.remount();
    }
}
