//! Tall stacks.

use std::fs;

use drivers::{CreateOptions, ErrorKind};
use tests::ops::{self, Op};

use crate::bench::{Backend, Bench, Place, backends, id, kind};
use tests::host::provides;

/// Stacks `count` layers; each has a file of its own and replaces a directory of all.
fn stack(bench: &Bench, count: usize) {
    for at in 0..count {
        let below = at.checked_sub(1).map(|below| format!("l{below}"));
        let layer = format!("l{at}");
        bench.create(&layer, below.as_deref());
        let path = bench.mount(&layer);
        let (own, mark) = (format!("file{at}"), format!("dir/mark{at}"));
        let mut steps = vec![Op::File(&own, "x"), Op::File("top", &own)];
        if at > 0 {
            steps.push(Op::Remove("dir"));
        }
        steps.extend([Op::Dir("dir", 0o755), Op::File(&mark, "x")]);
        ops::apply(&path, &steps);
        bench.unmount(&layer);
        bench.commit(&layer);
    }
}

/// Runs a case over every driver in memory: a sync of the disk for each layer proves nothing here.
fn each_in_memory(case: &str, run: impl Fn(&mut Bench)) {
    if provides(&[]) {
        for backend in backends() {
            let place = match backend.place {
                Place::Disk => Place::Memory,
                place => place,
            };
            run(&mut Bench::new(Backend { place, ..backend }, case));
        }
    }
}

fn look(bench: &Bench, top: usize) {
    let layer = format!("l{top}");
    let path = bench.mount(&layer);
    assert_eq!(fs::read_to_string(path.join("top")).unwrap(), format!("file{top}"));
    for at in 0..=top {
        assert!(path.join(format!("file{at}")).exists(), "{}: file{at} in {layer}", bench.label);
        let marked = path.join(format!("dir/mark{at}")).exists();
        assert_eq!(marked, at == top, "{}: dir/mark{at} in {layer}", bench.label);
    }
    bench.unmount(&layer);
}

#[test]
fn a_stack_of_128_layers_shows_each() {
    each_in_memory("128 layers", |bench| {
        let count = bench.backend.depth.min(128);
        stack(bench, count);
        for top in [0, 1, count / 2, count - 1] {
            look(bench, top);
        }
        let (top, below) = (format!("l{}", count - 1), format!("l{}", count - 2));
        assert_eq!(bench.changes(&top, Some(&below)).len(), 5, "{}", bench.label);
    });
}

#[test]
fn a_stack_as_tall_as_the_driver_allows() {
    each_in_memory("tall", |bench| {
        if bench.backend.driver != "overlay2" || !bench.backend.options.is_empty() {
            return;
        }
        stack(bench, bench.backend.depth);
        let top = bench.backend.depth - 1;
        look(bench, 399);
        look(bench, top);
        bench.view("view", Some(&format!("l{top}")));
        bench.mount("view");
        bench.unmount("view");
        let parent = id(&format!("l{top}"));
        let one_more = bench.driver().create(&id("more"), Some(&parent), &CreateOptions::active());
        assert_eq!(kind(one_more), Some(ErrorKind::Unsupported), "{}", bench.label);
    });
}
