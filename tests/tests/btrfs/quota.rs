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
