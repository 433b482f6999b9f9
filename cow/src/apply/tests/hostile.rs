//! Damaged and random archives.

use super::Place::{Dir, File, Symlink};
use super::*;

fn rich() -> Vec<u8> {
    Tar::new()
        .dir("etc", 0o755)
        .file("etc/passwd", "inside")
        .symlink("../../../etc", "up")
        .symlink("/etc", "abs")
        .file("up/a", "a")
        .link("abs/passwd", "second")
        .file("etc/.wh.old", "")
        .dir("d", 0o755)
        .file("d/.wh..wh..opq", "")
        .file("d/sub/new", "new")
        .symlink("..", "d/parent")
        .file("d/parent/d/parent/x", "x")
        .bytes()
}

const LOWER: &[Place] = &[
    File("etc/old", "old"),
    File("d/sub/old", "old"),
    Symlink("../..", "climb"),
    Dir("usr"),
    Symlink("/usr", "u"),
];

#[test]
fn a_cut_off_archive_is_an_error_at_every_block() {
    let tar = rich();
    for format in BOTH {
        for cut in (0..tar.len()).step_by(512).chain([100, 700, 1100]) {
            let error = Ground::on(format, LOWER).apply(&tar[..cut]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{format:?} cut at {cut}: {error}");
        }
    }
}

#[test]
fn too_many_entries_are_refused() {
    let ground = Ground::on(OVERLAY, LOWER);
    let limits = Limits { entries: 3, ..Limits::default() };
    let options = ApplyOptions { limits, ..ground.options() };
    let error = ground.apply_with(&rich(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[test]
fn a_path_that_links_stretch_without_end_is_refused() {
    let long = "l/".repeat(1500);
    let tar = Tar::new()
        .symlink(&format!("{long}b"), "a")
        .symlink(&long, "b-target")
        .file(&format!("a/{long}x"), "")
        .bytes();
    for format in BOTH {
        let ground = Ground::new(format);
        let error = ground.apply(&tar).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{format:?}: {error}");
    }
}

/// Thousands of random changes to names, link texts, kinds and order: whatever comes of it, nothing
/// panics and nothing outside changes.
#[test]
fn random_archives_never_get_out() {
    let names = [
        "etc",
        "up",
        "abs",
        "d",
        "sub",
        "..",
        ".",
        "climb",
        "u",
        "usr",
        ".wh.d",
        ".wh.etc",
        ".wh..wh..opq",
        "parent",
        "x",
        "/",
        ".wh..wh.plnk",
        "passwd",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut path = move || {
        let parts: Vec<_> = (0..=next(4)).map(|_| names[next(names.len())]).collect();
        (parts.join("/"), next(8))
    };
    let mut accepted = 0;
    for format in BOTH {
        // One ground for many archives: each builds on what the others left.
        for _ in 0..20 {
            let ground = Ground::on(format, LOWER);
            for _ in 0..40 {
                let mut tar = Tar::new();
                for _ in 0..12 {
                    let ((name, kind), (text, _)) = (path(), path());
                    tar = match kind {
                        0 | 1 => tar.dir(&name, 0o755),
                        2 | 3 => tar.file(&name, "content"),
                        4 | 5 => tar.symlink(&format!("/{text}")[kind - 4..], &name),
                        _ => tar.link(&text, &name),
                    };
                }
                let root = Root::open(ground.root()).unwrap();
                let applied = apply(&root, &tar.bytes()[..], &ground.options());
                accepted += usize::from(applied.is_ok());
            }
            ground.check_outside();
        }
    }
    assert!(accepted > 50, "many are sound: {accepted}");
}

#[test]
fn mutated_archives_never_get_out() {
    let sound = rich();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for format in BOTH {
        let ground = Ground::on(format, LOWER);
        let root = Root::open(ground.root()).unwrap();
        for _ in 0..1000 {
            let mut tar = sound.clone();
            for _ in 0..=next(3) {
                let at = next(tar.len());
                tar[at] = next(256) as u8;
                reseal(&mut tar, at - at % 512);
            }
            // Only that it returns matters, and that nothing got out.
            let _ = apply(&root, &tar[..], &ground.options());
        }
        ground.check_outside();
    }
}

/// Makes a header's checksum right again.
fn reseal(tar: &mut [u8], start: usize) {
    let block = &mut tar[start..start + 512];
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A container can make a tree deeper than a path is long; a later layer must still get rid of it.
#[test]
fn a_tree_of_any_depth_is_removed() {
    for tar in [Tar::new().file(".wh.deep", ""), Tar::new().file("deep", "a file in its place")] {
        let ground = Ground::new(WhiteoutFormat::Remove);
        let mut at = rustix::fs::openat(
            rustix::fs::CWD,
            ground.root(),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "deep", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        ground.apply(&tar.bytes()).unwrap();
        let left = ground.root().join("deep").symlink_metadata();
        assert!(left.map_or(true, |meta| meta.is_file()), "the tree is gone");
    }
}
