use super::*;
use crate::fixtures::Tar;
use cow::ErrorKind::{self, Corrupt, NotFound, Unsupported};
use serde_json::json;

pub(super) fn fails(what: &str, result: Result<usize>, kind: ErrorKind, words: &[&str]) {
    let error = match result {
        Ok(_) => panic!("{what}: it was accepted"),
        Err(error) => error,
    };
    for word in words {
        assert!(error.to_string().contains(word), "{what}: {error} lacks {word:?}");
    }
    assert_eq!(error.kind(), kind, "{what}: {error}");
}

pub(super) fn read(scratch: &Scratch, data: &[u8]) -> Result<usize> {
    read_all(&open(scratch, data)?)
}

#[test]
fn what_is_no_archive_is_refused() {
    let scratch = Scratch::new();
    let legacy = Tar::default().file("repositories", b"{}").file("a/layer.tar", b"").done();
    let cases: [(&str, Vec<u8>, ErrorKind, &str); 8] = [
        ("empty", Vec::new(), Corrupt, "empty"),
        ("text", b"hello".to_vec(), Unsupported, "neither a tar"),
        ("much text", vec![b'a'; 5000], Unsupported, "neither a tar"),
        ("xz", b"\xfd7zXZ\0rest".to_vec(), Unsupported, "xz"),
        ("gzip of text", gzip(&vec![b'a'; 5000]), Corrupt, "not a tar"),
        ("gzip of nothing", gzip(b""), Corrupt, "no end-of-archive mark"),
        ("gzip of a gzip", gzip(&gzip(&rootfs(1, 9999))), Corrupt, "not a tar"),
        ("docker before 1.10", legacy, Unsupported, "1.10"),
    ];
    for (what, data, kind, word) in cases {
        fails(what, read(&scratch, &data), kind, &[word, "archive"]);
    }
    let missing = Source::open(scratch.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind(), NotFound, "{missing}");
    let directory = Source::open(scratch.path()).unwrap_err();
    assert_eq!(directory.kind(), Unsupported, "{directory}");
    assert!(directory.to_string().contains("index.json"), "{directory}");
    let device = Source::open("/dev/null").unwrap_err();
    assert_eq!(device.kind(), Unsupported, "{device}");
}

#[test]
fn a_compressed_archive_needs_a_scratch_directory_and_keeps_its_limit() {
    let scratch = Scratch::new();
    let tar = Docker::new(&layers(), <[u8]>::to_vec).tar();
    let path = scratch.file(&gzip(&tar));
    let error = Source::open(&path).unwrap_err();
    assert_eq!(error.kind(), Unsupported, "{error}");
    assert!(error.to_string().contains("scratch"), "{error}");
    let dir = std::fs::File::open(scratch.path()).unwrap();
    let options = |limit| Options { scratch: Some(dir.as_fd()), scratch_limit: limit };
    let error = Source::open_with(&path, &options(tar.len() as u64 - 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(Source::open_with(&path, &options(tar.len() as u64)).is_ok(), "exactly the limit");
    let left = std::fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 1, "the unpacked archive has no name");
}

#[test]
fn bad_docker_manifests() {
    let scratch = Scratch::new();
    let elsewhere = format!("{:064x}/layer.tar", 7);
    let cases = [
        ("no such config", "Config", json!("x"), NotFound, "x"),
        ("config up and out", "Config", json!("../../etc/passwd"), Corrupt, "'..'"),
        ("absolute config", "Config", json!("/etc/passwd"), Corrupt, "absolute"),
        ("empty config", "Config", json!(""), Corrupt, "empty"),
        ("config is a layer", "Config", json!(format!("{:064x}/layer.tar", 0)), Corrupt, "parse"),
        ("a layer too few", "Layers", json!([]), Corrupt, "3 diffIDs"),
        ("a layer too many", "Layers", json!(["a", "b", "c", "d"]), Corrupt, "lists 4 layers"),
        ("missing layer", "Layers", json!([elsewhere, "b", "c"]), NotFound, "layer 1"),
        ("layer up and out", "Layers", json!(["../../x", "b", "c"]), Corrupt, "'..'"),
        ("absolute layer", "Layers", json!(["/etc/passwd", "b", "c"]), Corrupt, "absolute"),
        ("layer is JSON", "Layers", json!(["config.json", "b", "c"]), Unsupported, "layer 1"),
        ("bad name", "RepoTags", json!(["UPPER CASE"]), Corrupt, "UPPER CASE"),
        ("layers no list", "Layers", json!(3), Corrupt, "parse"),
    ];
    for (what, member, value, kind, word) in cases {
        let mut docker = Docker::new(&layers(), gzip);
        docker.manifest[0][member] = value;
        fails(what, read(&scratch, &docker.tar()), kind, &[word, "archive"]);
    }
    for manifest in [json!([]), json!({}), json!(null), json!([{}])] {
        let mut docker = Docker::new(&layers(), gzip);
        docker.manifest = manifest.clone();
        fails(&manifest.to_string(), read(&scratch, &docker.tar()), Corrupt, &["manifest.json"]);
    }
}

#[test]
fn bad_docker_layers() {
    let scratch = Scratch::new();
    let build = |change: &dyn Fn(&mut Docker)| {
        let mut docker = Docker::new(&layers(), gzip);
        change(&mut docker);
        read(&scratch, &docker.tar())
    };
    let swapped = build(&|docker| {
        let (first, second) = docker.entries.split_at_mut(1);
        std::mem::swap(&mut first[0].1, &mut second[0].1);
    });
    fails("swapped layers", swapped, Corrupt, &["layer 1", "diffID", "sha256:"]);
    let xz = build(&|docker| docker.entries[1].1 = b"\xfd7zXZ\0".to_vec());
    fails("an xz layer", xz, Unsupported, &["layer 2", "xz"]);
    let cut = build(&|docker| docker.entries[2].1.truncate(40));
    fails("a cut layer", cut, Corrupt, &["layer 3", "cut off"]);
    let empty = build(&|docker| docker.entries[0].1.clear());
    fails("an empty layer", empty, Unsupported, &["layer 1"]);
    let twice = build(&|docker| docker.entries.push(docker.entries[0].clone()));
    fails("a layer twice", twice, Corrupt, &["more than once"]);
    let padded = build(&|docker| docker.entries[0].1.extend_from_slice(&[0; 100]));
    assert_eq!(padded.unwrap(), 3, "zeros after a gzip stream are padding");
}

#[test]
fn a_config_that_is_named_by_its_digest_must_have_it() {
    let scratch = Scratch::new();
    let docker = Docker::new(&layers(), gzip);
    let config = docker.config.to_string();
    for (data, good) in [(config.clone(), true), (format!("{config} "), false)] {
        let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
        let mut manifest = docker.manifest.clone();
        manifest[0]["Config"] = json!(name);
        let mut tar = Tar::default().file(&name, data.as_bytes());
        for (name, data) in &docker.entries {
            tar = tar.file(name, data);
        }
        let tar = tar.file("manifest.json", manifest.to_string().as_bytes()).done();
        match read(&scratch, &tar) {
            Ok(layers) => assert!(good && layers == 3, "a wrong digest was accepted"),
            error => fails("config digest", error, Corrupt, &["digest", &name]),
        }
    }
}

#[test]
fn many_images_of_one_large_config_are_bounded() {
    let scratch = Scratch::new();
    let mut docker = Docker::new(&[], gzip);
    docker.config["padding"] = json!("x".repeat(1 << 20));
    docker.manifest = json!(vec![docker.manifest[0].clone(); 100]);
    fails("100 MiB of configs", read(&scratch, &docker.tar()), Corrupt, &["32 MiB"]);
}

#[test]
fn a_fifo_holds_nobody_up() {
    let scratch = Scratch::new();
    let oci = oci(&layers(), gzip);
    let dir = scratch.path().join("layout");
    oci.write(&dir);
    let blob = dir.join(oci.blobs.keys().next().unwrap());
    std::fs::remove_file(&blob).unwrap();
    for path in [blob, scratch.path().join("fifo")] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }
    let error = Source::open(scratch.path().join("fifo")).unwrap_err();
    assert_eq!(error.kind(), Unsupported, "{error}");
    let error = Source::open(&dir).and_then(|source| read_all(&source)).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}
