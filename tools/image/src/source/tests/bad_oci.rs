use super::bad::{fails, read};
use super::*;
use crate::fixtures::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Tar, config_for};
use cow::ErrorKind::{self, Corrupt, InvalidArgument, NotFound, Unsupported};
use serde_json::{Value, json};

#[test]
fn bad_blobs() {
    let scratch = Scratch::new();
    let (manifest, config, layer): (&[u8], &[u8], &[u8]) =
        (b"{\"config", b"{\"architecture", b"\x1f\x8b");
    for (what, start) in [("manifest", manifest), ("config", config), ("layer", layer)] {
        let good = oci(&layers(), gzip);
        let name = good.blobs.iter().find(|(_, data)| data.starts_with(start)).unwrap().0;
        let digest = name.rsplit('/').next().unwrap();

        let mut missing = oci(&layers(), gzip);
        missing.blobs.remove(name);
        let result = read(&scratch, &missing.tar());
        fails(&format!("missing {what}"), result, NotFound, &[digest, "archive"]);

        let mut longer = oci(&layers(), gzip);
        longer.blobs.get_mut(name).unwrap().push(b' ');
        let result = read(&scratch, &longer.tar());
        fails(&format!("longer {what}"), result, Corrupt, &[digest, "archive"]);

        let mut other = oci(&layers(), gzip);
        // For the layer this is in the gzip header's time, which only the blob digest covers.
        other.blobs.get_mut(name).unwrap()[5] ^= 1;
        let result = read(&scratch, &other.tar());
        fails(&format!("altered {what}"), result, Corrupt, &[digest, "archive"]);
    }
}

#[test]
fn bad_descriptors() {
    type Change<'a> = &'a dyn Fn(&mut Oci, &mut Value, &mut Vec<Value>);
    let scratch = Scratch::new();
    let tars = layers();
    let build = |change: Change<'_>| {
        let mut oci = Oci::default();
        let config = config_for(&Platform::host(), &tars).to_string();
        let mut config = oci.blob(OCI_CONFIG, config.as_bytes());
        let mut layers = tars.iter().map(|tar| oci.blob(OCI_LAYER, &gzip(tar))).collect();
        change(&mut oci, &mut config, &mut layers);
        let manifest = oci.manifest(config, layers);
        oci.index.push(manifest);
        read(&scratch, &oci.tar())
    };
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let sent_away = |oci: &mut Oci, _: &mut Value, layers: &mut Vec<Value>| {
        layers[0]["mediaType"] = json!(foreign);
        layers[0]["urls"] = json!(["https://example.com/layer"]);
        oci.blobs.retain(|_, data| *data != gzip(&tars[0]));
    };
    let cases: [(&str, Change<'_>, ErrorKind, &[&str]); 12] = [
        (
            "media type",
            &|_, _, l| l[1]["mediaType"] = json!("application/x-foo"),
            Unsupported,
            &["layer 2", "application/x-foo"],
        ),
        (
            "layer size",
            &|_, _, l| l[1]["size"] = json!(1),
            Corrupt,
            &["layer 2", "descriptor says 1"],
        ),
        ("negative size", &|_, _, l| l[1]["size"] = json!(-1), Corrupt, &["parse"]),
        (
            "sha512",
            &|_, _, l| l[0]["digest"] = json!("sha512:00"),
            Unsupported,
            &["layer 1", "sha512:00"],
        ),
        (
            "a path for a digest",
            &|_, _, l| l[0]["digest"] = json!("../../etc/passwd"),
            InvalidArgument,
            &["../../etc/passwd"],
        ),
        ("two of three layers", &|_, _, l| l.truncate(2), Corrupt, &["3 diffIDs", "2 layers"]),
        ("swapped layers", &|_, _, l| l.swap(0, 1), Corrupt, &["layer 1", "diffID"]),
        (
            "artifact",
            &|_, c, _| c["mediaType"] = json!("application/vnd.x"),
            Unsupported,
            &["application/vnd.x"],
        ),
        ("config size", &|_, c, _| c["size"] = json!(7), Corrupt, &["descriptor says"]),
        (
            "compression",
            &|o, _, l| l[0] = o.blob(OCI_LAYER, b"BZh9"),
            Unsupported,
            &["layer 1", "bzip2", OCI_LAYER],
        ),
        (
            "foreign layer",
            &sent_away,
            NotFound,
            &["layer 1", "foreign", "https://example.com/layer"],
        ),
        ("many layers", &|_, _, l| *l = vec![l[0].clone(); 1025], Corrupt, &["1,024"]),
    ];
    assert_eq!(build(&|_, _, _| {}).unwrap(), 3, "the unchanged one is good");
    for (what, change, kind, words) in cases {
        fails(what, build(change), kind, words);
    }
}

#[test]
fn bad_layouts() {
    let scratch = Scratch::new();
    let with = |name: &str, data: &[u8]| {
        let mut files = oci(&layers(), gzip).files();
        files.retain(|(other, _)| other != name);
        files.push((name.to_owned(), data.to_vec()));
        let tar = files.iter().fold(Tar::default(), |tar, (name, data)| tar.file(name, data));
        read(&scratch, &tar.done())
    };
    let big = vec![b' '; 9 << 20];
    let many = json!({"manifests": vec![json!({"digest": "", "size": 0}); 5000]}).to_string();
    let path = br#"{"manifests":[{"digest":"../../etc/passwd","size":1}]}"#;
    let cases: [(&str, &str, &[u8], ErrorKind, &str); 8] = [
        ("marker no JSON", "oci-layout", b"", Corrupt, "oci-layout"),
        ("marker version", "oci-layout", br#"{"imageLayoutVersion":"2.0"}"#, Unsupported, "2.0"),
        ("index no JSON", "index.json", b"{", Corrupt, "index.json"),
        ("index too long", "index.json", &big, Corrupt, "8 MiB"),
        ("no images", "index.json", br#"{"manifests":[]}"#, NotFound, "no image"),
        ("a manifest", "index.json", br#"{"layers":[]}"#, Corrupt, "index.json"),
        ("many entries", "index.json", many.as_bytes(), Corrupt, "4,096"),
        ("a path for a digest", "index.json", path, InvalidArgument, "passwd"),
    ];
    for (what, name, data, kind, word) in cases {
        fails(what, with(name, data), kind, &[word, "archive"]);
    }
}

#[test]
fn nested_indexes_end() {
    let scratch = Scratch::new();
    let mut oci = oci(&layers(), gzip);
    let mut entry = oci.index[0].clone();
    for _ in 0..6 {
        entry = oci.nested(vec![entry]);
    }
    oci.index = vec![entry];
    fails("6 deep", read(&scratch, &oci.tar()), Corrupt, &["4 deep"]);

    // Thirty entries that each name one index, four times over: 810,000 manifests.
    let config = oci.blob(OCI_CONFIG, b"{}");
    let manifest = json!({"config": config}).to_string();
    let mut entry = oci.blob(OCI_MANIFEST, manifest.as_bytes());
    for _ in 0..4 {
        entry = oci.nested(vec![entry; 30]);
    }
    oci.index = vec![entry];
    fails("a bomb", read(&scratch, &oci.tar()), Corrupt, &["4,096"]);
}

#[test]
fn a_layout_directory_is_never_left() {
    let scratch = Scratch::new();
    let outside = scratch.path().join("outside");
    for victim in ["index.json", "oci-layout", "blobs", "blob"] {
        let dir = scratch.path().join(victim);
        let oci = oci(&layers(), gzip);
        oci.write(&dir);
        let blob = oci.blobs.keys().next().unwrap();
        let path = dir.join(if victim == "blob" { blob } else { victim });
        std::fs::rename(&path, &outside).unwrap();
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        let error = Source::open(&dir).and_then(|source| read_all(&source)).unwrap_err();
        assert!(error.to_string().contains("openat2"), "{victim}: {error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&outside, &path).unwrap();
        assert_eq!(read_all(&Source::open(&dir).unwrap()).unwrap(), 3, "{victim}: put back");
    }
}
