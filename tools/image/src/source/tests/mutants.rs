//! Cut off and altered archives: an error or the same content, never a panic, a hang or a lie.

use super::*;
use crate::fixtures::Rng;
use cow::ErrorKind;

/// Small archives of every kind, with the number of layers that a good one has.
fn archives() -> Vec<(&'static str, Vec<u8>, usize)> {
    let layers = vec![rootfs(1, 200), rootfs(2, 3)];
    let docker = Docker::new(&layers, gzip).tar();
    let oci = oci(&layers, zstd).tar();
    vec![
        ("docker gzip", gzip(&docker), 2),
        ("docker", docker, 2),
        ("oci zstd", zstd(&oci), 2),
        ("oci", oci, 2),
        ("rootfs", rootfs(1, 200), 1),
        ("rootfs gzip", gzip(&rootfs(1, 200)), 1),
        ("rootfs zstd", zstd(&rootfs(1, 200)), 1),
    ]
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_an_error() {
    let scratch = Scratch::new();
    for (what, data, layers) in archives() {
        // The last zeros are the end-of-archive mark, of which one block is enough.
        let needed = if what.contains(' ') { data.len() } else { data.len() - 512 };
        let step = (data.len() / 150).max(1);
        for len in (1..needed).step_by(step).chain(needed - 3..needed) {
            let result = open(&scratch, &data[..len]).and_then(|source| read_all(&source));
            let error = match result {
                Ok(_) => panic!("{what}: {len} of {} bytes were accepted", data.len()),
                Err(error) => error,
            };
            let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{what} at {len}: {error}");
            assert!(error.to_string().contains("archive"), "{what} at {len}: {error}");
        }
        let source = open(&scratch, &data[..needed]).unwrap();
        assert_eq!(read_all(&source).unwrap(), layers, "{what}: with nothing missing");
    }
}

#[test]
fn altered_archives_are_judged_without_panic() {
    let scratch = Scratch::new();
    for (what, data, layers) in archives() {
        let mut refused = 0;
        for seed in 0..250 {
            let mut rng = Rng::new(seed);
            let mut data = data.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(data.len());
                data[at] = if rng.below(2) == 0 { rng.byte() } else { data[at] ^ 1 };
            }
            match open(&scratch, &data).and_then(|source| read_all(&source)) {
                // An alteration may hit what nobody reads, or turn an image into a root file system.
                Ok(found) => assert!(found == layers || found == 1, "{what}, seed {seed}"),
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty(), "{what}, seed {seed}");
                }
            }
        }
        assert!(refused > 0, "{what}: some of the alterations are noticed");
    }
}
