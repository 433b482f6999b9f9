//! Limits of layers.

use std::fs;
use std::io::{ErrorKind as IoKind, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use drivers::{CreateOptions, ErrorKind};

use crate::bench::{Bench, here, id};

const MIB: u64 = 1 << 20;

/// How long the kernel may take to free what was deleted.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes until it is refused, or up to `most`; gives the bytes that were written.
fn write(path: &Path, most: u64) -> (u64, Option<IoKind>) {
    let mut file = fs::File::create(path).unwrap();
    let mut written = 0;
    // Noise, so that compression does not help.
    let mut noise = vec![0; 1 << 20];
    let mut state = 88_172_645_463_325_252_u64;
    while written < most {
        for chunk in noise.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        match file.write_all(&noise).and_then(|()| file.sync_data()) {
            Ok(()) => written += noise.len() as u64,
            Err(error) => return (written, Some(error.kind())),
        }
    }
    (written, None)
}

#[test]
fn a_layer_cannot_grow_past_its_size_and_others_do_not_notice() {
    if !here() {
        return;
    }
    for (mode, shown) in [("auto", "simple"), ("full", "full")] {
        let mut bench = Bench::new("quota", &[&format!("quota={mode}"), "btrfs.min_space=1m"]);
        bench.create("image", None);
        // What is below does not count.
        assert_eq!(write(&bench.mount("image").join("large"), 80 * MIB), (80 * MIB, None));
        bench.unmount("image");
        bench.commit("image");
        bench.create("free", Some("image"));
        let size = CreateOptions {
            options: [("size".to_owned(), "64m".to_owned())].into(),
            ..CreateOptions::active()
        };
        bench.driver().create(&id("limited"), Some(&id("image")), &size).unwrap();
        let limited = bench.mount("limited");
        let (written, error) = write(&limited.join("file"), 200 * MIB);
        let refused = matches!(error, Some(IoKind::QuotaExceeded | IoKind::StorageFull));
        assert!(refused, "{mode}: {error:?} after {written} bytes");
        assert!((60 * MIB..=64 * MIB).contains(&written), "{mode}: after {written} bytes");
        let free = bench.mount("free");
        assert_eq!(write(&free.join("file"), 100 * MIB), (100 * MIB, None), "{mode}: the other");

        let status = bench.driver().status();
        assert!(status.contains(&("Quota".to_owned(), shown.to_owned())), "{mode}: {status:?}");
        let keys = bench.driver().metadata(&id("limited")).unwrap();
        assert_eq!(keys["Size"], (64 * MIB).to_string(), "{mode}: {keys:?}");
        let usage = bench.driver().usage(&id("limited")).unwrap();
        assert!((60 * MIB..66 * MIB).contains(&usage.bytes), "{mode}: {usage:?}");
        let keys = bench.driver().metadata(&id("free")).unwrap();
        let exclusive: u64 = keys["ExclusiveBytes"].parse().unwrap();
        assert!((100 * MIB..110 * MIB).contains(&exclusive), "{mode}: {keys:?}");

        bench.unmount("limited");
        bench.unmount("free");
        for layer in ["limited", "free", "image"] {
            bench.driver().remove(&id(layer)).unwrap();
        }
        bench.settle();
        let root = bench.root.path().to_str().unwrap();
        // The kernel lets go of the group of a subvolume some transactions after the subvolume.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let groups = bench.btrfs(&["qgroup", "show", root]);
            if groups.lines().filter(|line| line.starts_with("0/")).count() == 1 {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{mode}: groups are left besides the top's: {groups}"
            );
            bench.btrfs(&["filesystem", "sync", root]);
        }
    }
}

#[test]
fn a_size_below_the_least_is_refused() {
    if !here() {
        return;
    }
    let bench = Bench::new("min-space", &["btrfs.min_space=10m"]);
    let size = |size| CreateOptions { size: Some(size), ..CreateOptions::active() };
    let error = bench.driver().create(&id("1"), None, &size(MIB)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("min_space"), "{error}");
    bench.driver().create(&id("1"), None, &size(10 * MIB)).unwrap();
}

/// What btrfs(8) says of a layer: the bytes that it alone has, and those of files that others have too.
fn du(bench: &Bench, layer: &str) -> (u64, u64) {
    let tree = bench.home().join("layers").join(layer).join("ro");
    let said = bench.btrfs(&["filesystem", "du", "-s", "--raw", tree.to_str().unwrap()]);
    let mut numbers = said.lines().last().unwrap().split_whitespace().skip(1);
    let mut number = || numbers.next().unwrap().parse().unwrap();
    (number(), number())
}

/// What the driver says of a layer.
fn said(bench: &Bench, layer: &str) -> (u64, u64) {
    let keys = bench.driver().metadata(&id(layer)).unwrap();
    let number = |key: &str| keys[key].parse().unwrap();
    (number("ExclusiveBytes"), number("SharedBytes"))
}

#[test]
fn shared_and_exclusive_bytes_are_those_of_btrfs() {
    if !here() {
        return;
    }
    for quotas in [false, true] {
        let mut bench = Bench::new("shares", &["quota=full"]);
        bench.create("image", None);
        let image = bench.mount("image");
        for (name, size) in [("kept", 3 * MIB), ("replaced", MIB), ("removed", 2 * MIB)] {
            assert_eq!(write(&image.join(name), size), (size, None), "{name}");
        }
        bench.unmount("image");
        bench.commit("image");
        let size = CreateOptions { size: quotas.then_some(64 * MIB), ..CreateOptions::active() };
        bench.driver().create(&id("layer"), Some(&id("image")), &size).unwrap();
        let layer = bench.mount("layer");
        fs::remove_file(layer.join("removed")).unwrap();
        fs::remove_file(layer.join("replaced")).unwrap();
        for (name, size) in [("replaced", 4 * MIB), ("new", 5 * MIB)] {
            assert_eq!(write(&layer.join(name), size), (size, None), "{name}");
        }
        bench.unmount("layer");
        if !quotas {
            assert_eq!(said(&bench, "layer"), (9 * MIB, 3 * MIB), "active");
        }
        bench.commit("layer");
        // The writable copies share everything until they are freed.
        bench.settle();
        assert_eq!(bench.driver().usage(&id("layer")).unwrap().bytes, 9 * MIB);
        assert_eq!(du(&bench, "layer"), (9 * MIB, 3 * MIB), "as btrfs(8) sees it");
        let (exclusive, shared) = said(&bench, "layer");
        if quotas {
            // Quota groups count the blocks of the tree too.
            let blocks = (exclusive - 9 * MIB, shared - 3 * MIB);
            assert!(
                blocks.0.is_multiple_of(4096) && blocks.0 <= 256 << 10,
                "{blocks:?} of the tree"
            );
            assert!(
                blocks.1.is_multiple_of(4096) && blocks.1 <= 256 << 10,
                "{blocks:?} of the tree"
            );
        } else {
            assert_eq!((exclusive, shared), (9 * MIB, 3 * MIB), "measured");
            assert_eq!(said(&bench, "image"), (6 * MIB, 0), "what is written there");
        }
    }
}
