//! How a layer differs from the one below: the same on every driver, exactly, and a tar of it makes
//! the same layer again.

use std::path::Path;
use tests::host::provides;

use tests::ops::Op::*;
use tests::tree::Portrait;

use crate::bench::{Bench, VFS, backends, each, id, kind};
use crate::content::{CASES, build, name};
use drivers::ErrorKind;

#[test]
fn every_kind_of_change_is_found_exactly() {
    if !provides(&[]) {
        return;
    }
    for case in CASES {
        let oracle = Bench::new(VFS, case.name);
        build(&oracle, case);
        for backend in backends().iter().filter(|backend| (case.needs)(backend)) {
            let bench = Bench::new(*backend, case.name);
            build(&bench, case);
            for at in (0..case.layers.len()).map(name) {
                let (got, expected) = (bench.changes(&at, None), oracle.changes(&at, None));
                assert_eq!(got, expected, "{}: changes of {at}", bench.label);
            }
        }
    }
}

/// Takes out what no tar tells: the time of the root, which counts as no change, and with
/// `links_below` that two names are one file.
fn told(mut portrait: Portrait, links_below: bool) -> Portrait {
    for (path, line) in &mut portrait {
        let is_told = |word: &&str| {
            let is_time = path == Path::new("") && word.starts_with("mtime=");
            let is_link = links_below && word.starts_with("linked-with=");
            !(is_time || is_link)
        };
        *line = line.split(' ').filter(is_told).collect::<Vec<_>>().join(" ");
    }
    portrait
}

#[test]
fn the_tar_of_a_difference_makes_the_layer_again() {
    if !provides(&[]) {
        return;
    }
    for case in CASES {
        for backend in backends().iter().filter(|backend| (case.needs)(backend)) {
            let bench = Bench::new(*backend, case.name);
            build(&bench, case);
            for at in 0..case.layers.len() {
                let (original, copy) = (name(at), format!("copy{at}"));
                let below = at.checked_sub(1).map(|at| format!("copy{at}"));
                bench.create(&copy, below.as_deref());
                bench.apply(&copy, &bench.diff(&original, None));
                bench.commit(&copy);
                let shown = |name: &str| told(bench.portrait(name), case.links_below);
                bench.same(&copy, &shown(&copy), &shown(&original));
                let (again, once) = (bench.diff(&copy, None), bench.diff(&original, None));
                assert!(again == once, "{}: the tar of {copy} is another one", bench.label);
            }
        }
    }
}

#[test]
fn a_difference_can_be_taken_from_any_ancestor() {
    each("base", |bench| {
        bench.layer("1", None, &[Dir("d", 0o755), File("d/a", "1"), File("b", "1")]);
        bench.layer("2", Some("1"), &[File("d/a", "2"), File("c", "2"), Mtime("d", 5, 5)]);
        bench.layer("3", Some("2"), &[Remove("c"), File("b", "3")]);
        bench.active("4", Some("3"), &[File("d/a", "1"), Mtime("d", 6, 6)]);
        bench.layer("other", None, &[]);
        bench.view("view", Some("2"));
        let cases = [
            ("4", None, &["Modified /d", "Modified /d/a"][..]),
            ("4", Some("3"), &["Modified /d", "Modified /d/a"]),
            ("4", Some("1"), &["Modified /b", "Modified /d", "Modified /d/a"]),
            ("3", Some("1"), &["Modified /b", "Modified /d", "Modified /d/a"]),
            ("2", Some("1"), &["Added /c", "Modified /d", "Modified /d/a"]),
            ("1", None, &["Added /b", "Added /d", "Added /d/a"]),
            ("view", None, &[]),
            ("view", Some("1"), &["Added /c", "Modified /d", "Modified /d/a"]),
        ];
        for (layer, base, expected) in cases {
            let got = bench.changes(layer, base);
            assert_eq!(got, expected, "{}: {layer} against {base:?}", bench.label);
        }
        for (base, expected) in
            [("nobody", ErrorKind::NotFound), ("other", ErrorKind::InvalidArgument)]
        {
            let got = kind(bench.driver().changes(&id("4"), Some(&id(base))));
            assert_eq!(got, Some(expected), "{}: base {base}", bench.label);
        }
    });
}

#[test]
fn a_mounted_layer_can_be_compared() {
    each("mounted", |bench| {
        bench.layer("1", None, &[File("a", "1")]);
        bench.create("2", Some("1"));
        let path = bench.mount("2");
        tests::ops::apply(&path, &[Remove("a"), File("b", "2")]);
        assert_eq!(bench.changes("2", None), ["Deleted /a", "Added /b"], "{}", bench.label);
        assert!(bench.diff("2", None).len() >= 1024, "{}: no tar", bench.label);
        bench.unmount("2");
    });
}
