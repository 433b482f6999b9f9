use super::*;
use crate::blocks::StreamBlocks;
use crate::fixtures::{Rng, Tar, sealed};
use cow::ErrorKind;

fn place() -> Place {
    Place::file("a.tar")
}

/// Scans through a reader that gives a few bytes at a time.
fn scan(tar: &[u8]) -> Result<Vec<Entry>> {
    let reader = std::io::BufReader::with_capacity(100, tar);
    let mut scan = Scan::new(StreamBlocks::new(reader, place()));
    std::iter::from_fn(|| scan.next().transpose()).collect()
}

fn index(tar: &[u8]) -> TarIndex {
    TarIndex::read(StreamBlocks::new(tar, place())).unwrap().unwrap()
}

/// Changes bytes of the first header and seals it again.
fn patched(tar: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut tar = tar;
    let mut header: [u8; BLOCK] = *tar.first_chunk().unwrap();
    header[at..at + bytes.len()].copy_from_slice(bytes);
    tar[..BLOCK].copy_from_slice(&sealed(header));
    tar
}

#[test]
fn entries_are_found_however_they_are_spelt() {
    let long = "d/".repeat(80) + "file";
    let pax = || Tar::default().pax(&[("path", &long), ("mtime", "1.5")]).file("short", b"pax");
    let gnu = || {
        let name = format!("{long}\0");
        let header =
            Tar::default().entry(b'L', b"././@LongLink", "", name.len() as u64, name.as_bytes());
        header.file("short", b"gnu")
    };
    let prefixed = patched(Tar::default().file("file", b"ustar").done(), 345, b"some/dir");
    let base256 =
        patched(Tar::default().file("f", b"base-256").done(), 124, b"\x80\0\0\0\0\0\0\0\0\0\0\x08");
    // A pax size stands in for a header field that cannot hold it.
    let pax_size =
        Tar::default().pax(&[("size", "3")]).entry(b'0', b"f", "", 0, b"abc").file("g", b"").done();
    let cases = [
        ("plain", Tar::default().file("f", b"data").done(), "f", "data"),
        ("dot slash", Tar::default().file("./f", b"data").done(), "f", "data"),
        ("pax path", pax().done(), &long, "pax"),
        ("gnu long name", gnu().done(), &long, "gnu"),
        ("ustar prefix", prefixed, "some/dir/file", "ustar"),
        ("base-256 size", base256, "f", "base-256"),
        ("pax size", pax_size, "f", "abc"),
        (
            "global header first",
            Tar::default().entry(b'g', b"g", "", 3, b"6 a=b\n").file("f", b"x").done(),
            "f",
            "x",
        ),
    ];
    for (what, tar, name, data) in cases {
        let index = index(&tar);
        let entry = index.find(name).unwrap().unwrap_or_else(|| panic!("{what}: not found"));
        let start = usize::try_from(entry.offset).unwrap();
        let found = &tar[start..start + usize::try_from(entry.size).unwrap()];
        assert_eq!(found, data.as_bytes(), "{what}");
    }
}

#[test]
fn links_lead_to_files_inside_the_archive() {
    let tar = Tar::default()
        .dir("a/")
        .file("a/layer.tar", b"x")
        .symlink("b/layer.tar", "../a/layer.tar")
        .hardlink("c/layer.tar", "./a/layer.tar")
        .symlink("chain", "b/../b/./layer.tar")
        .symlink("up", "../x")
        .symlink("b/up", "../../etc/passwd")
        .symlink("absolute", "/etc/passwd")
        .symlink("circle", "ring")
        .symlink("ring", "circle")
        .symlink("nowhere", "a/other")
        .hardlink("hard-up", "../etc/passwd")
        .hardlink("self", "self")
        .entry(b'3', b"device", "", 0, b"")
        .pax(&[("GNU.sparse.major", "1")])
        .file("sparse", b"x")
        .file("twice", b"1")
        .file("twice", b"2")
        .dir("same/")
        .dir("same/")
        .done();
    let index = index(&tar);
    let target = index.find("a/layer.tar").unwrap();
    for name in ["b/layer.tar", "c/layer.tar", "chain", "./a//layer.tar"] {
        assert_eq!(index.find(name).unwrap(), target, "{name}");
    }
    for name in ["nowhere", "other", "a/layer.tar/x"] {
        assert_eq!(index.find(name).unwrap(), None, "{name}");
    }
    let refused = [
        ("up", "out of the archive"),
        ("b/up", "out of the archive"),
        ("absolute", "out of the archive"),
        ("hard-up", "out of the archive"),
        ("circle", "circle"),
        ("self", "circle"),
        ("device", "no regular file"),
        ("sparse", "no regular file"),
        ("a", "directory"),
        ("same", "directory"),
        ("twice", "more than once"),
        ("../../etc/passwd", "absolute, empty or has '..'"),
        ("a/../a/layer.tar", "absolute, empty or has '..'"),
        ("/a/layer.tar", "absolute, empty or has '..'"),
        ("", "absolute, empty or has '..'"),
        (".", "absolute, empty or has '..'"),
        ("a\0", "absolute, empty or has '..'"),
    ];
    for (name, reason) in refused {
        let found = index.find(name).unwrap_err();
        assert!(found.contains(reason), "{name:?}: {found:?} lacks {reason:?}");
    }
}

#[test]
fn malformed_headers_are_refused() {
    let good = || Tar::default().file("f", b"data");
    let pax = |data: &[u8]| {
        Tar::default().entry(b'x', b"x", "", data.len() as u64, data).file("f", b"").done()
    };
    let huge = patched(good().done(), 124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    let mut unsealed = good().done();
    unsealed[0] ^= 1;
    let cases = [
        ("text", vec![b'a'; 1024], "not a tar archive"),
        ("empty", Vec::new(), "no end-of-archive mark"),
        ("half a header", good().done()[..300].to_vec(), "partial header"),
        ("no mark", good().0, "no end-of-archive mark"),
        ("checksum", unsealed, "not a tar archive"),
        ("size in letters", patched(good().done(), 124, b"00000000xyz"), "malformed size"),
        ("negative size", patched(good().done(), 124, &[0xff; 12]), "malformed size"),
        ("size beyond 64 bits", patched(good().done(), 124, &[0x80, 1, 1, 1]), "malformed size"),
        ("size that overflows", huge, "malformed size"),
        ("pax length", pax(b"99 path=x\n"), "pax record"),
        ("pax length 0", pax(b"0 path=x\n"), "pax record"),
        ("pax length short", pax(b"1 path=x\n"), "pax record"),
        ("pax without newline", pax(b"8 path=xx"), "pax record"),
        ("pax without equals", pax(b"7 path\n"), "pax record"),
        ("pax size", pax(b"10 size=-\n"), "pax record"),
        ("pax not a number", pax(b"x path=x\n"), "pax record"),
        ("long pax", Tar::default().entry(b'x', b"x", "", 2 << 20, b"").done(), "over 1 MiB"),
        ("cut pax", Tar::default().entry(b'x', b"x", "", 4000, b"").0, "cut off"),
    ];
    for (what, tar, reason) in cases {
        let error = scan(&tar).unwrap_err();
        assert!(error.to_string().contains(reason), "{what}: {error} lacks {reason:?}");
        assert!(error.to_string().contains("a.tar"), "{what}: {error} names no file");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
    }
}

#[test]
fn the_maps_of_old_sparse_files_are_passed_over() {
    let mut header = *Tar::default().entry(b'S', b"sparse", "", 512, b"").0.first_chunk().unwrap();
    header[482] = 1;
    let mut tar = sealed(header).to_vec();
    for more in [1, 0] {
        tar.resize(tar.len() + BLOCK, b'm');
        let last = tar.len();
        tar[last - 8] = more;
    }
    tar.resize(tar.len() + BLOCK, b'd');
    tar.extend_from_slice(&Tar::default().file("after", b"x").done());
    let index = index(&tar);
    assert!(index.find("after").unwrap().is_some(), "the entry after it is found");
    assert!(index.find("sparse").is_err(), "it is not read as if it were dense");
}

#[test]
fn an_index_is_bounded() {
    let read = |tar: &[u8]| TarIndex::read(StreamBlocks::new(tar, place())).unwrap();
    let one = Tar::default().file("00000000", b"").0;
    let mut tar = Vec::with_capacity((MAX_ENTRIES + 3) * BLOCK);
    for number in 0..=MAX_ENTRIES {
        // Hexadecimal digits, whose sum is put right in the checksum alone.
        let name = format!("{number:08x}");
        let more = name.bytes().map(u32::from).sum::<u32>() - 8 * u32::from(b'0');
        let sum = u32::from_str_radix(std::str::from_utf8(&one[148..154]).unwrap(), 8).unwrap();
        tar.extend_from_slice(&one);
        let header = &mut tar[number * BLOCK..];
        header[..8].copy_from_slice(name.as_bytes());
        header[148..154].copy_from_slice(format!("{:06o}", sum + more).as_bytes());
    }
    tar.extend_from_slice(&[0; 2 * BLOCK]);
    assert!(read(&tar[BLOCK..]).is_some(), "as many entries as there may be");
    assert!(read(&tar).is_none(), "one more entry");

    let names = |count: usize| {
        let name = |number: usize| format!("{number}{}", "x".repeat(1_000_000));
        let entries = (0..count).map(name);
        entries.fold(Tar::default(), |tar, name| tar.pax(&[("path", &name)]).file("f", b"")).done()
    };
    assert!(read(&names(8)).is_some(), "8 MB of names");
    assert!(read(&names(9)).is_none(), "9 MB of names");
}

#[test]
fn mutated_archives_are_judged_without_panic() {
    let good = Tar::default()
        .pax(&[("path", "some/long/name"), ("size", "4")])
        .file("short", b"data")
        .symlink("link", "some/long/name")
        .entry(b'L', b"x", "", 5, b"name\0")
        .file("x", b"more")
        .done();
    let mut accepted = 0;
    for seed in 0..4000 {
        let mut rng = Rng::new(seed);
        let mut tar = good.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(tar.len());
            tar[at] = rng.byte();
        }
        // Half of them with sealed headers, or hardly one would get past the checksum.
        if seed % 2 == 0 {
            for block in tar.chunks_exact_mut(BLOCK).step_by(2) {
                let header = sealed(*block.first_chunk().unwrap());
                block.copy_from_slice(&header);
            }
        }
        tar.truncate(tar.len() - rng.below(2) * rng.below(good.len()));
        if let Ok(entries) = scan(&tar) {
            accepted += 1;
            let index = index(&tar);
            for entry in entries {
                let _ = index.find(&entry.name);
            }
        }
    }
    assert!(accepted > 0, "some mutants still parse, so that look-ups are tried too");
}
