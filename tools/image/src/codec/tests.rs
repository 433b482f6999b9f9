use super::*;
use crate::fixtures::{gzip, noise, rootfs, zstd};
use cow::ErrorKind;

/// Decompresses through small reads, as a slow file would give them.
fn undo(compression: Compression, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    compression.undo(io::BufReader::with_capacity(333, data))?.read_to_end(&mut out)?;
    Ok(out)
}

/// An empty gzip header with all optional fields.
fn gzip_with_all_fields(data: &[u8]) -> Vec<u8> {
    let mut plain = gzip(data);
    plain[3] = 0x02 | 0x04 | 0x08 | 0x10;
    let fields = b"\x03\0abcname\0comment\0\x12\x34";
    plain.splice(10..10, fields.iter().copied());
    plain
}

#[test]
fn compressions_are_told_by_content() {
    let tar = rootfs(1, 10);
    let mut fake = tar.clone();
    fake[..2].copy_from_slice(b"BZ");
    let cases: [(&[u8], Result<Compression, &str>); 12] = [
        (&tar, Ok(Compression::None)),
        (&[0; 512], Ok(Compression::None)),
        (&gzip(&tar), Ok(Compression::Gzip)),
        (&zstd(&tar), Ok(Compression::Zstd)),
        (b"\x5a\x2a\x4d\x18\0\0\0\0", Ok(Compression::Zstd)),
        (b"\xfd7zXZ\0", Err("xz")),
        (b"BZh9", Err("bzip2")),
        (b"\x04\x22\x4d\x18", Err("lz4")),
        (b"PK\x03\x04", Err("zip")),
        (&fake, Err("neither")),
        (&tar[..511], Err("neither")),
        (b"", Err("neither")),
    ];
    for (head, want) in cases {
        let found = Compression::tell(head);
        match (found, want) {
            (Err(found), Err(want)) => assert!(found.contains(want), "{found:?} lacks {want:?}"),
            _ => assert_eq!(found, want, "{:?}", head.get(..4)),
        }
    }
}

#[test]
fn streams_of_all_shapes_are_undone() {
    let data = noise(7, 100_000);
    let halves = |compress: fn(&[u8]) -> Vec<u8>| {
        let (a, b) = data.split_at(40_000);
        [compress(a), compress(b""), compress(b)].concat()
    };
    let padded = [gzip(&data), vec![0; 1000]].concat();
    let skipped = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(&data)].concat();
    let chunked = [zstd(&data), b"\x51\x2a\x4d\x18\x03\0\0\0abc".to_vec()].concat();
    let cases = [
        ("plain", Compression::None, data.clone()),
        ("gzip", Compression::Gzip, gzip(&data)),
        ("several members", Compression::Gzip, halves(gzip)),
        ("zero padding", Compression::Gzip, padded),
        ("all header fields", Compression::Gzip, gzip_with_all_fields(&data)),
        ("zstd", Compression::Zstd, zstd(&data)),
        ("several frames", Compression::Zstd, halves(zstd)),
        ("skippable frame first", Compression::Zstd, skipped),
        ("skippable frame last", Compression::Zstd, chunked),
    ];
    for (what, compression, stream) in cases {
        let found = undo(compression, &stream).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(found == data, "{what}: {} bytes differ from {}", found.len(), data.len());
    }
}

#[test]
fn a_cut_off_stream_is_an_error_at_every_length() {
    let data = noise(3, 300);
    for (compression, stream) in [
        (Compression::Gzip, gzip(&data)),
        (Compression::Gzip, gzip_with_all_fields(&data)),
        (Compression::Gzip, [gzip(&data), gzip(&data)].concat()),
        (Compression::Zstd, zstd(&data)),
    ] {
        let whole_members: Vec<usize> =
            (1..stream.len()).filter(|&len| undo(compression, &stream[..len]).is_ok()).collect();
        // Only the end of the first of two members is an end.
        let expected: &[usize] =
            if stream.len() == 2 * gzip(&data).len() { &[gzip(&data).len()] } else { &[] };
        assert_eq!(whole_members, expected, "{compression}: prefixes that were accepted");
    }
}

#[test]
fn damage_is_an_error() {
    let data = noise(3, 300);
    let good = gzip(&data);
    let change = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    let end = good.len();
    let endless_name = [&good[..3], &[0x08], &good[4..10], &[b'a'; 70_000][..]].concat();
    let cases = [
        ("garbage", [&good[..], b"garbage"].concat(), "garbage after"),
        ("padding, then garbage", [&good[..], &[0; 700], b"x"].concat(), "garbage after"),
        ("half a header", [&good[..], b"\x1f\x8b\x08"].concat(), "cut off"),
        ("other magic", [&good[..], &[0x1f; 20]].concat(), "garbage after"),
        ("method", change(2, 9), "unknown method"),
        ("reserved flag", change(3, 0x20), "unknown method or flag"),
        ("checksum", change(end - 8, good[end - 8] ^ 1), "checksum"),
        ("length", change(end - 1, good[end - 1] ^ 1), "checksum"),
        ("deflate block type", change(10, 0x07), "damaged"),
        ("endless name", endless_name, "endless"),
    ];
    for (what, stream, reason) in cases {
        let error = undo(Compression::Gzip, &stream).unwrap_err();
        assert!(error.to_string().contains(reason), "{what}: {error} lacks {reason:?}");
    }
    let mut flipped = zstd(&data);
    // The block type is then the reserved one (RFC 8878 section 3.1.1.2.2).
    flipped[7] |= 0x06;
    let garbage = [zstd(&data), b"garbage".to_vec()].concat();
    for (what, stream) in [("garbage after a zstd frame", garbage), ("zstd data", flipped)] {
        let error = undo(Compression::Zstd, &stream).unwrap_err();
        assert_eq!(ErrorKind::of_io(&error), ErrorKind::Corrupt, "{what}: {error}");
    }
}

#[test]
fn a_zstd_window_beyond_the_bound_is_refused() {
    // A frame header that asks for a window of 2^31 bytes (RFC 8878 section 3.1.1.1.2).
    let header = b"\x28\xb5\x2f\xfd\x00\xa8\x01\0\0";
    let error = undo(Compression::Zstd, header).unwrap_err();
    assert_eq!(ErrorKind::of_io(&error), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("memory"), "{error}");
}
