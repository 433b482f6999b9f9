//! All kinds in all compressions, and what is wrong with them, from outside.

use super::*;
use crate::error::Result;
use crate::fixtures::{Docker, Oci, Scratch, gzip, oci, rootfs, zstd};
use cow::digest::Digest;
use std::os::fd::AsFd as _;

mod bad;
mod bad_oci;
mod mutants;
mod platforms;

type Compress = fn(&[u8]) -> Vec<u8>;

const CODECS: [(&str, Compress); 3] = [("plain", <[u8]>::to_vec), ("gzip", gzip), ("zstd", zstd)];

/// Opens bytes as an archive, with a scratch directory.
fn open(scratch: &Scratch, data: &[u8]) -> Result<Source> {
    let dir = std::fs::File::open(scratch.path()).unwrap();
    let options = Options { scratch: Some(dir.as_fd()), scratch_limit: 1 << 30 };
    Source::open_with(scratch.file(data), &options)
}

/// Reads everything that there is of all images; the number of layers.
fn read_all(source: &Source) -> Result<usize> {
    let mut layers = 0;
    for image in source.images(None)? {
        for layer in &image.layers {
            layer.open()?.finish()?;
            layers += 1;
        }
    }
    Ok(layers)
}

fn layers() -> Vec<Vec<u8>> {
    vec![rootfs(1, 3000), rootfs(2, 70_000), rootfs(3, 0)]
}

#[test]
fn docker_archives_of_all_compressions() {
    let scratch = Scratch::new();
    for (inner, compress) in CODECS {
        let docker = Docker::new(&layers(), compress);
        for (outer, compress_all) in CODECS {
            let what = format!("{inner} layers, {outer} archive");
            let source = open(&scratch, &compress_all(&docker.tar())).unwrap();
            assert_eq!(source.kind(), Kind::DockerArchive, "{what}");
            let images = source.images(None).unwrap();
            assert_eq!(images.len(), 1, "{what}");
            let names: Vec<_> = images[0].names.iter().map(ToString::to_string).collect();
            assert_eq!(names, ["docker.io/library/example:1", "quay.io/a/b:2"], "{what}");
            let config = images[0].config.as_ref().unwrap();
            assert_eq!(config.digest(), Digest::of(docker.config.to_string().as_bytes()), "{what}");
            for (layer, tar) in images[0].layers.iter().zip(layers()) {
                let verified = layer.open().unwrap().finish().unwrap();
                assert_eq!(*verified.diff_id.digest(), Digest::of(&tar), "{what}");
                assert_eq!(verified.compressed_size, layer.size(), "{what}");
            }
            assert_eq!(images[0].layers.len(), 3, "{what}");
        }
    }
}

#[test]
fn oci_archives_and_layouts_of_all_compressions() {
    let scratch = Scratch::new();
    for (inner, compress) in CODECS {
        let oci = oci(&layers(), compress);
        let layout = scratch.path().join(inner);
        oci.write(&layout);
        let mut sources = vec![("directory", Source::open(&layout).unwrap(), Kind::OciLayout)];
        for (outer, compress_all) in CODECS {
            let source = open(&scratch, &compress_all(&oci.tar())).unwrap();
            sources.push((outer, source, Kind::OciArchive));
        }
        for (outer, source, kind) in sources {
            let what = format!("{inner} layers in {outer}");
            assert_eq!(source.kind(), kind, "{what}");
            let images = source.images(None).unwrap();
            assert_eq!(images.len(), 1, "{what}");
            assert_eq!(images[0].names[0].familiar(), "example:1", "{what}");
            assert_eq!(images[0].manifest.unwrap().to_string(), oci.index[0]["digest"], "{what}");
            for (layer, tar) in images[0].layers.iter().zip(layers()) {
                let verified = layer.open().unwrap().finish().unwrap();
                assert_eq!(*verified.diff_id.digest(), Digest::of(&tar), "{what}");
                assert_eq!(layer.blob_digest(), Some(verified.blob_digest), "{what}");
            }
        }
    }
}

#[test]
fn root_file_systems_of_all_compressions() {
    let scratch = Scratch::new();
    let tar = rootfs(1, 300_000);
    for (outer, compress) in CODECS {
        // No scratch directory: a root file system is never unpacked beforehand.
        let source = Source::open(scratch.file(&compress(&tar))).unwrap();
        assert_eq!(source.kind(), Kind::RootfsTar, "{outer}");
        let images = source.images(None).unwrap();
        assert_eq!((images.len(), images[0].layers.len()), (1, 1), "{outer}");
        assert!(images[0].config.is_none() && images[0].names.is_empty(), "{outer}");
        let verified = images[0].layers[0].open().unwrap().finish().unwrap();
        assert_eq!(*verified.diff_id.digest(), Digest::of(&tar), "{outer}");
        let config = crate::Config::for_rootfs(&[verified.diff_id]).unwrap();
        assert_eq!(config.image().rootfs.diff_ids, [verified.diff_id], "{outer}");
    }
}

#[test]
fn docker_25_writes_both_and_the_names_are_its_manifests() {
    let layers = layers();
    let mut oci = oci(&layers, <[u8]>::to_vec);
    oci.index[0]["annotations"] = serde_json::json!({});
    let blobs: Vec<_> =
        layers.iter().map(|tar| format!("blobs/sha256/{}", Digest::of(tar).hex())).collect();
    let config = oci.blobs.iter().find(|(_, data)| data.starts_with(b"{\"architecture")).unwrap();
    let manifest = serde_json::json!([{"Config": config.0, "RepoTags": ["both:1"], "Layers": blobs,
        "LayerSources": {}}]);
    let mut tar = crate::fixtures::Tar::default().dir("blobs/").dir("blobs/sha256/");
    for (name, data) in oci.files() {
        tar = tar.file(&name, &data);
    }
    let tar = tar.file("manifest.json", manifest.to_string().as_bytes()).done();
    let scratch = Scratch::new();
    let source = open(&scratch, &tar).unwrap();
    assert_eq!(source.kind(), Kind::DockerArchive);
    assert_eq!(source.images(None).unwrap()[0].names[0].familiar(), "both:1");
    assert_eq!(read_all(&source).unwrap(), 3);
}

#[test]
fn layers_may_be_links_to_other_images_layers() {
    let layers = vec![rootfs(1, 1000)];
    let mut docker = Docker::new(&layers, <[u8]>::to_vec);
    docker.manifest[0]["Layers"] = serde_json::json!(["link/layer.tar"]);
    let tar = crate::fixtures::Tar::default()
        .file("real/layer.tar", &layers[0])
        .symlink("link/layer.tar", "../real/layer.tar")
        .file("config.json", docker.config.to_string().as_bytes())
        .file("manifest.json", docker.manifest.to_string().as_bytes())
        .done();
    let scratch = Scratch::new();
    assert_eq!(read_all(&open(&scratch, &tar).unwrap()).unwrap(), 1);
}

#[test]
fn several_images_of_one_archive() {
    let scratch = Scratch::new();
    let mut docker = Docker::new(&layers(), <[u8]>::to_vec);
    let mut second = docker.manifest[0].clone();
    second["RepoTags"] = serde_json::json!(null);
    docker.manifest.as_array_mut().unwrap().push(second);
    let images = open(&scratch, &docker.tar()).unwrap().images(None).unwrap();
    assert_eq!(images.iter().map(|image| image.names.len()).collect::<Vec<_>>(), [2, 0]);

    let mut oci = oci(&layers(), gzip);
    let other = oci.image(&Platform::host(), &[rootfs(9, 9)], crate::fixtures::OCI_LAYER, zstd);
    let again = crate::fixtures::annotated(oci.index[0].clone(), "second.example/name:2");
    oci.index.extend([other, again]);
    let images = open(&scratch, &oci.tar()).unwrap().images(None).unwrap();
    assert_eq!(images.len(), 2, "one manifest under two names is one image");
    let names: Vec<_> = images[0].names.iter().map(crate::Reference::familiar).collect();
    assert_eq!(names, ["example:1", "second.example/name:2"]);
    assert!(images[1].names.is_empty());
}

#[test]
fn names_in_annotations() {
    let scratch = Scratch::new();
    let cases = [
        (
            r#"{"io.containerd.image.name":"a/b:1","org.opencontainers.image.ref.name":"2"}"#,
            "a/b:1",
        ),
        (r#"{"org.opencontainers.image.ref.name":"ghcr.io/a/b:1"}"#, "ghcr.io/a/b:1"),
        (r#"{"org.opencontainers.image.ref.name":"debian:12"}"#, "debian:12"),
        (r#"{"org.opencontainers.image.ref.name":"debian"}"#, "debian:latest"),
        (r#"{"org.opencontainers.image.ref.name":"latest"}"#, ""),
        (r#"{"org.opencontainers.image.ref.name":"12"}"#, ""),
        (r#"{"org.opencontainers.image.ref.name":"v1.2"}"#, ""),
        (r#"{"org.opencontainers.image.ref.name":"NOT A NAME"}"#, ""),
        (r#"{"io.containerd.image.name":"!","org.opencontainers.image.ref.name":"x:1"}"#, "x:1"),
        ("null", ""),
        ("{}", ""),
    ];
    for (annotations, want) in cases {
        let mut oci = oci(&layers(), gzip);
        oci.index[0]["annotations"] = serde_json::from_str(annotations).unwrap();
        let images = open(&scratch, &oci.tar()).unwrap().images(None).unwrap();
        let names: Vec<_> = images[0].names.iter().map(crate::Reference::familiar).collect();
        assert_eq!(names.join(" "), want, "{annotations}");
    }
}

#[test]
fn a_source_is_told_by_content_not_by_name() {
    let scratch = Scratch::new();
    let path = scratch.path().join("rootfs.tar.xz");
    std::fs::write(&path, gzip(&Docker::new(&layers(), gzip).tar())).unwrap();
    let dir = std::fs::File::open(scratch.path()).unwrap();
    let options = Options { scratch: Some(dir.as_fd()), ..Options::default() };
    assert_eq!(Source::open_with(&path, &options).unwrap().kind(), Kind::DockerArchive);
}

#[test]
fn the_open_source_is_read_whatever_its_path_names_later() {
    let scratch = Scratch::new();
    let source = open(&scratch, &Docker::new(&layers(), gzip).tar()).unwrap();
    std::fs::remove_file(source.path()).unwrap();
    assert_eq!(read_all(&source).unwrap(), 3);
    assert!(Oci::default().index.is_empty());
}

#[test]
fn the_first_names_tell_an_archive_of_images() {
    let hex = "7".repeat(64);
    for (name, expected) in [
        ("blobs/sha256/", true),
        ("oci-layout", true),
        ("manifest.json", true),
        ("0.tar", true),
        (&format!("{hex}.json"), true),
        (&format!("{hex}/layer.tar"), true),
        ("etc/", false),
        ("usr/src/linux.tar", false),
        ("package.json", false),
    ] {
        assert_eq!(is_image_name(name), expected, "{name}");
    }
}
