use super::*;
use crate::file::Archive;
use crate::fixtures::{Scratch, gzip, noise, zstd};
use crate::pool::CHUNK;
use cow::ErrorKind;

type Compress = fn(&[u8]) -> Vec<u8>;

const CODECS: [(Compression, Compress); 3] =
    [(Compression::None, <[u8]>::to_vec), (Compression::Gzip, gzip), (Compression::Zstd, zstd)];

fn extent(scratch: &Scratch, data: &[u8]) -> Extent {
    let file = std::fs::File::open(scratch.file(data)).unwrap();
    Extent::whole(Arc::new(Archive::new(scratch.path(), file, data.len() as u64)), "layer 1 (x)")
}

fn promise(blob: &[u8], tar: &[u8]) -> Promise {
    Promise {
        blob_digest: Some(Digest::of(blob)),
        blob_size: Some(blob.len() as u64),
        diff_id: Some(DiffId::new(Digest::of(tar))),
    }
}

#[test]
fn streams_of_all_sizes_are_read_and_verified() {
    let scratch = Scratch::new();
    for size in [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 20 * CHUNK + 7] {
        let data = noise(size as u64, size);
        for (compression, compress) in CODECS {
            let blob = compress(&data);
            let extent = extent(&scratch, &blob);
            let promise = promise(&blob, &data);
            let mut stream = LayerStream::start(&extent, compression, promise).unwrap();
            let progress = stream.progress();
            let mut found = Vec::new();
            stream.read_to_end(&mut found).unwrap();
            assert!(found == data, "{compression}, {size} bytes");
            let verified = stream.finish().unwrap();
            let want = Verified {
                diff_id: DiffId::new(Digest::of(&data)),
                blob_digest: Digest::of(&blob),
                size: size as u64,
                compressed_size: blob.len() as u64,
            };
            assert_eq!(verified, want, "{compression}, {size} bytes");
            assert_eq!(progress.read(), blob.len() as u64, "{compression}, {size} bytes");
        }
    }
}

#[test]
fn finish_reads_what_is_left() {
    let scratch = Scratch::new();
    let data = noise(5, 12 * CHUNK);
    for (compression, compress) in CODECS {
        for skip in [0, 1, CHUNK, 3 * CHUNK + 5] {
            let blob = compress(&data);
            let extent = extent(&scratch, &blob);
            let promise = promise(&blob, &data);
            let mut stream = LayerStream::start(&extent, compression, promise).unwrap();
            stream.read_exact(&mut vec![0; skip]).unwrap();
            let verified = stream.finish().unwrap();
            assert_eq!(verified.size, data.len() as u64, "{compression} after {skip} bytes");
        }
    }
}

#[test]
fn broken_promises_are_named() {
    let scratch = Scratch::new();
    let data = noise(5, 1000);
    let other = Digest::of(b"other");
    for (compression, compress) in CODECS {
        let blob = compress(&data);
        let good = promise(&blob, &data);
        let cases = [
            (Promise { blob_digest: Some(other), ..good.clone() }, "blob digest"),
            (Promise { diff_id: Some(DiffId::new(other)), ..good.clone() }, "diffID"),
            (Promise { blob_size: Some(1), ..good.clone() }, "bytes long"),
        ];
        for (promise, what) in cases {
            let extent = extent(&scratch, &blob);
            let error =
                LayerStream::start(&extent, compression, promise).unwrap().finish().unwrap_err();
            assert!(error.to_string().contains(what), "{compression}: {error} lacks {what}");
            assert!(error.to_string().contains("layer 1"), "{compression}: {error}");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{compression}: {error}");
        }
    }
}

#[test]
fn damage_reaches_the_reader_and_stays() {
    let scratch = Scratch::new();
    let data = noise(5, 5 * CHUNK);
    for (compression, compress) in &CODECS[1..] {
        let mut blob = compress(&data);
        blob.truncate(blob.len() - 3);
        let extent = extent(&scratch, &blob);
        let mut stream = LayerStream::start(&extent, *compression, Promise::default()).unwrap();
        let error = io::copy(&mut stream, &mut io::sink()).unwrap_err();
        assert_eq!(ErrorKind::of_io(&error), ErrorKind::Corrupt, "{compression}: {error}");
        assert!(error.to_string().contains("layer 1 (x)"), "{compression}: {error}");
        assert!(stream.read(&mut [0]).is_err(), "{compression}: it does not recover");
        let error = stream.finish().unwrap_err();
        assert!(error.to_string().contains("failed before"), "{compression}: {error}");
    }
}

#[test]
fn a_file_that_shrinks_is_an_error() {
    let scratch = Scratch::new();
    let data = noise(5, 30 * CHUNK);
    for (compression, compress) in CODECS {
        let blob = compress(&data);
        let extent = extent(&scratch, &blob);
        let mut stream = LayerStream::start(&extent, compression, Promise::default()).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        let path = scratch.path().join("archive");
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(blob.len() as u64 - 100).unwrap();
        let error = stream.finish().unwrap_err();
        assert!(error.to_string().contains("cut off"), "{compression}: {error}");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{compression}: {error}");
    }
}

#[test]
fn a_thread_is_waited_for_when_its_handle_goes() {
    let (held, at) = (Arc::new(()), Place::file("x"));
    let (go, gate) = crossbeam::channel::bounded::<()>(0);
    let inside = Arc::clone(&held);
    let thread = Joined::spawn("test", &at, move || {
        let _ = gate.recv();
        drop(inside);
    });
    drop(go);
    drop(thread.unwrap());
    assert_eq!(Arc::strong_count(&held), 1, "what the thread held is gone");
}

#[test]
fn dropping_early_stops_and_joins_the_threads() {
    let scratch = Scratch::new();
    let data = noise(5, 40 * CHUNK);
    for (compression, compress) in CODECS {
        let blob = compress(&data);
        for skip in [0, 1, CHUNK, 10 * CHUNK] {
            let extent = extent(&scratch, &blob);
            let promise = Promise::default();
            let mut stream = LayerStream::start(&extent, compression, promise).unwrap();
            stream.read_exact(&mut vec![0; skip]).unwrap();
            let progress = stream.progress();
            drop(stream);
            // The thread that reads holds the counter and is the last to hear of the end.
            let users = Arc::strong_count(&progress.0);
            assert_eq!(users, 1, "{compression} after {skip} bytes: the threads are gone");
            let left = blob.len() as u64 - progress.read();
            assert!(left > 0, "{compression} after {skip} bytes: the rest was not read");
        }
    }
}
