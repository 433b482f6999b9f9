use super::*;
use crate::fixtures::{OCI_LAYER, on};
use cow::ErrorKind;

/// Adds an image whose platform can be told by its only layer.
fn image(oci: &mut Oci, platform: &str) -> serde_json::Value {
    let seed = platform.bytes().map(u64::from).sum();
    let descriptor = oci.image(&platform.parse().unwrap(), &[rootfs(seed, 100)], OCI_LAYER, gzip);
    on(descriptor, platform)
}

/// What `images` finds, as the platforms of the configs.
fn found(source: &Source, wanted: Option<&str>) -> Result<Vec<String>> {
    let wanted = wanted.map(|wanted| wanted.parse().unwrap());
    let images = source.images(wanted.as_ref())?;
    Ok(images.iter().map(|image| image.platform.to_string()).collect())
}

const ALL: [&str; 6] =
    ["linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/arm/v5", "linux/386", "windows/amd64"];

#[test]
fn the_best_image_of_an_index_is_taken() {
    let cases = [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64"),
        ("linux/arm/v6", "linux/arm/v5"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/386", "linux/386"),
        ("windows/amd64", "windows/amd64"),
    ];
    let scratch = Scratch::new();
    for depth in [0, 1, 4] {
        let mut oci = Oci::default();
        let mut entries: Vec<_> = ALL.iter().map(|name| image(&mut oci, name)).collect();
        let attestation = on(oci.blob(crate::fixtures::OCI_MANIFEST, b"{}"), "unknown/unknown");
        entries.push(attestation);
        for _ in 0..depth {
            entries = vec![oci.nested(entries)];
        }
        oci.index = entries;
        let source = open(&scratch, &oci.tar()).unwrap();
        for (wanted, want) in cases {
            let found = found(&source, Some(wanted)).unwrap();
            assert_eq!(found, [want], "{wanted} at depth {depth}");
        }
        let error = found(&source, Some("linux/s390x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let list = "linux/386, linux/amd64, linux/arm/v5, linux/arm/v7, linux/arm64, windows/amd64";
        assert!(error.to_string().contains(list), "{error}");
    }
}

#[test]
fn an_image_without_choice_is_taken_unless_another_was_asked_for() {
    let scratch = Scratch::new();
    let mut oci = Oci::default();
    let only = image(&mut oci, "linux/s390x");
    oci.index.push(only);
    let source = open(&scratch, &oci.tar()).unwrap();
    assert_eq!(found(&source, None).unwrap(), ["linux/s390x"]);
    assert_eq!(found(&source, Some("linux/s390x")).unwrap(), ["linux/s390x"]);
    let error = found(&source, Some("linux/arm64")).unwrap_err();
    assert!(error.to_string().contains("there is: linux/s390x"), "{error}");

    let docker = Docker::new(&layers(), gzip);
    let source = open(&scratch, &docker.tar()).unwrap();
    assert!(found(&source, Some("linux/s390x")).is_err(), "a docker-archive of the host");
    assert_eq!(found(&source, Some(&Platform::host().to_string())).unwrap().len(), 1);
}

#[test]
fn an_archive_that_is_both_has_the_platforms_of_its_index() {
    let scratch = Scratch::new();
    let mut oci = Oci::default();
    let entries = vec![image(&mut oci, "linux/arm64"), image(&mut oci, "linux/s390x")];
    oci.index = vec![oci.nested(entries)];
    let docker = Docker::new(&layers(), gzip);
    let both = |tar: crate::fixtures::Tar| {
        let files = docker.entries.iter().fold(tar, |tar, (name, data)| tar.file(name, data));
        files
            .file("config.json", docker.config.to_string().as_bytes())
            .file("manifest.json", docker.manifest.to_string().as_bytes())
            .done()
    };
    let tar = oci
        .files()
        .iter()
        .fold(crate::fixtures::Tar::default(), |tar, (name, data)| tar.file(name, data));
    let source = open(&scratch, &both(tar)).unwrap();
    assert_eq!(source.kind(), Kind::DockerArchive);
    assert_eq!(found(&source, None).unwrap(), [Platform::host().to_string()]);
    assert_eq!(found(&source, Some("linux/s390x")).unwrap(), ["linux/s390x"]);
    assert!(found(&source, Some("linux/riscv64")).is_err(), "neither has it");
}

#[test]
fn platforms_are_read_from_configs_where_descriptors_lack_them() {
    let scratch = Scratch::new();
    let mut oci = Oci::default();
    for name in ["linux/arm64", "linux/s390x"] {
        let mut descriptor = image(&mut oci, name);
        descriptor.as_object_mut().unwrap().remove("platform");
        oci.index.push(crate::fixtures::annotated(descriptor, "one:1"));
    }
    let source = open(&scratch, &oci.tar()).unwrap();
    assert_eq!(found(&source, Some("linux/s390x")).unwrap(), ["linux/s390x"]);
}

#[test]
fn an_index_may_come_without_the_blobs_of_other_platforms() {
    let scratch = Scratch::new();
    let mut oci = Oci::default();
    let absent = image(&mut oci, "linux/arm64");
    oci.blobs.clear();
    let present = image(&mut oci, "linux/s390x");
    let index = oci.nested(vec![absent, present]);
    oci.index.push(index);
    let source = open(&scratch, &oci.tar()).unwrap();
    assert_eq!(found(&source, Some("linux/s390x")).unwrap(), ["linux/s390x"]);
    let error = found(&source, Some("linux/amd64")).unwrap_err();
    assert!(error.to_string().contains("listed without its blobs: linux/arm64"), "{error}");
}
