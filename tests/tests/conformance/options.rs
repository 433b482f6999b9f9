//! Options: what is unknown or cannot be honoured is refused by name.

use std::collections::BTreeMap;

use drivers::{CreateOptions, ErrorKind};
use tests::host::provides;
use tests::root::TempRoot;

use crate::bench::{GUEST, backends, each, id, kind};

#[test]
fn unknown_options_are_refused_by_name() {
    // Its pool has nothing to do with it, and a guest cannot build the programs that others need.
    if std::env::var_os(GUEST).is_some() || !provides(&["mkfs.btrfs"]) {
        return;
    }
    for driver in drivers::NAMES {
        let root = TempRoot::for_driver(driver, "options");
        let own = format!("{driver}.colour=red");
        let with = |option: &str| {
            let mut options = tests::programs::options(driver);
            options.push(option.to_owned());
            options
        };
        for option in ["colour=red", own.as_str(), "size"] {
            let error = drivers::open(driver, &root.join("home"), &with(option)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{driver} {option}: {error}");
            let name = option.split('=').next().unwrap_or(option).rsplit('.').next().unwrap_or("");
            assert!(error.to_string().contains(name), "{driver} {option}: {error}");
            assert!(error.to_string().starts_with(driver), "{driver} {option}: {error}");
        }
        if driver == "devicemapper" {
            // These options are its own, and it needs a pool.
            continue;
        }
        // Another driver's option in a list for all.
        drivers::open(driver, &root.join("home"), &with("dm.thinp_percent=95"))
            .unwrap_or_else(|error| panic!("{driver}: {error}"));
    }
}

#[test]
fn a_limit_that_cannot_be_kept_is_refused_with_the_reason() {
    each("limit", |bench| {
        if bench.driver().capabilities().quota {
            return;
        }
        let with = |name: &str| CreateOptions {
            options: BTreeMap::from([(name.to_owned(), "10m".to_owned())]),
            ..CreateOptions::active()
        };
        let own = format!("{}.size", bench.backend.driver);
        let size = CreateOptions { size: Some(1 << 20), ..CreateOptions::active() };
        let cases = [
            (size, ErrorKind::Unsupported, "quota"),
            (with("size"), ErrorKind::Unsupported, "quota"),
            (with(&own), ErrorKind::Unsupported, "quota"),
            (with("colour"), ErrorKind::InvalidArgument, "colour"),
        ];
        for (options, expected, word) in cases {
            let error = bench.driver().create(&id("1"), None, &options).unwrap_err();
            assert_eq!(error.kind(), expected, "{}: {options:?}: {error}", bench.label);
            assert!(error.to_string().contains(word), "{}: {error}", bench.label);
        }
        bench.create("1", None);
        let mut options = tests::programs::options(bench.backend.driver);
        options.push("size=1g".to_owned());
        let error = drivers::open(bench.backend.driver, &bench.root.join("other"), &options);
        assert_eq!(kind(error), Some(ErrorKind::Unsupported), "{}", bench.label);
    });
}

#[test]
fn status_and_metadata_have_dockers_keys() {
    each("status", |bench| {
        let status = bench.driver().status();
        let value = |key: &str| {
            status.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
        };
        assert!(value("Backing Filesystem").is_some(), "{}: {status:?}", bench.label);
        if bench.backend.driver == "overlay2" {
            let metacopy = bench.backend.options.contains(&"metacopy=on").to_string();
            let expected = [
                ("Supports d_type", "true"),
                ("Using metacopy", metacopy.as_str()),
                ("Native Overlay Diff", "true"),
                ("userxattr", "false"),
            ];
            for (key, expected) in expected {
                assert_eq!(value(key), Some(expected), "{}: {key}", bench.label);
            }
        }
        bench.layer("1", None, &[]);
        bench.create("2", Some("1"));
        let metadata = bench.ok("metadata", bench.driver().metadata(&id("2")));
        let merged = bench.mount("2");
        assert_eq!(metadata["MergedDir"], merged.display().to_string(), "{}", bench.label);
        bench.unmount("2");
        if bench.backend.driver == "overlay2" {
            for key in ["LowerDir", "UpperDir", "WorkDir"] {
                let dir = std::path::Path::new(&metadata[key]);
                assert!(dir.is_dir(), "{}: {key} {}", bench.label, dir.display());
            }
        }
    });
}

#[test]
fn features_in_use_stay_in_use() {
    if !provides(&[]) {
        return;
    }
    // Layers with metadata-only copies and renamed directories stay readable when the options that
    // made them are taken away.
    let mut backends = backends().into_iter();
    let Some(with) = backends.find(|backend| backend.options == ["metacopy=on"]) else { return };
    let mut bench = crate::bench::Bench::new(with, "features");
    use tests::ops::Op::*;
    bench.layer("1", None, &[Dir("d", 0o755), File("d/f", "content"), Mtime("d/f", 5, 5)]);
    bench.layer("2", Some("1"), &[Chmod("d/f", 0o600), Rename("d", "e")]);
    let expected = bench.portrait("2");
    bench.backend.options = &["metacopy=off", "redirect_dir=off"];
    bench.reopen();
    bench.same("2", &bench.portrait("2"), &expected);
    assert_eq!(bench.changes("2", None), ["Deleted /d", "Added /e", "Added /e/f"]);
}
