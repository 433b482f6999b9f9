//! Small image archives, made on the spot.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A layer: files by path with their content. A path that ends in `/` is a directory; whiteouts are
/// spelt as the tar has them (`dir/.wh.name`).
pub type Files<'a> = &'a [(&'a str, &'a str)];

/// An image to be archived.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Names; may be none.
    pub names: &'a [&'a str],
    /// Layers, bottom to top.
    pub layers: &'a [Files<'a>],
    /// When it was made, RFC 3339.
    pub created: &'a str,
    /// What its config's `config` holds: `Cmd`, `Env`, `Labels`, ...
    pub config: &'a Value,
}

/// The uncompressed tar of a layer.
///
/// # Panics
/// For a path that a tar cannot hold.
#[must_use]
pub fn layer(files: Files<'_>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, files);
    tar.into_inner().expect("writing to memory")
}

/// The same with a static busybox as `/bin/busybox`, `/bin/sh` and the rest of what these tests run.
///
/// # Panics
/// When the machine has no busybox.
#[must_use]
pub fn layer_with_busybox(files: Files<'_>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, &[("bin/", ""), ("etc/", ""), ("proc/", ""), ("sys/", ""), ("dev/", "")]);
    let mut header = tar::Header::new_gnu();
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    tar.append_data(&mut header, "bin/busybox", &busybox[..]).expect("a good entry");
    for applet in ["sh", "cat", "ls", "true", "echo", "rm", "wc", "id", "sleep"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("a good entry");
    }
    append(&mut tar, files);
    tar.into_inner().expect("writing to memory")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, files: Files<'_>) {
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        let (kind, mode) = match path.ends_with('/') {
            true => (tar::EntryType::Directory, 0o755),
            false => (tar::EntryType::Regular, 0o644),
        };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, content.as_bytes()).expect("a good entry");
    }
}

/// Writes a tar of a root file system.
///
/// # Panics
/// When the file cannot be written.
pub fn rootfs(path: &Path, files: Files<'_>) {
    fs::write(path, layer(files)).expect("write the archive");
}

/// Writes a docker-archive, as `docker save` does.
///
/// # Panics
/// When the file cannot be written.
pub fn docker(path: &Path, images: &[Image<'_>]) {
    let with_tars = images.iter().map(|image| {
        let tars = image.layers.iter().map(|files| layer(files)).collect();
        (image.names.to_vec(), tars, *image)
    });
    let images = with_tars.collect();
    write(path, images);
}

/// Writes a docker-archive of one image whose layers are tars already, bottom to top.
///
/// # Panics
/// When the file cannot be written.
pub fn docker_of_tars(path: &Path, name: &str, tars: Vec<Vec<u8>>, config: &Value) {
    let image = Image { names: &[], layers: &[], created: "2024-01-01T00:00:00Z", config };
    write(path, vec![(vec![name], tars, image)]);
}

/// Writes an OCI layout directory of one image whose layers are tars already, bottom to top.
///
/// # Panics
/// When it cannot be written.
pub fn layout_of_tars(dir: &Path, tars: &[Vec<u8>], config: &Value) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory for blobs");
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = hex(bytes);
        fs::write(blobs.join(&digest), bytes).expect("write a blob");
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"),
            "size": bytes.len(),
        })
    };
    let json = |value: &Value| serde_json::to_vec(value).expect("JSON");
    let layers: Vec<_> = tars.iter().map(|tar| blob("layer.v1.tar", tar)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob("config.v1+json", &json(&config));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    let manifest = blob("manifest.v1+json", &json(&manifest));
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), json(&index)).expect("write the index");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write a file");
}

/// An image's names, the tars of its layers, and the rest of it.
type Tarred<'a> = (Vec<&'a str>, Vec<Vec<u8>>, Image<'a>);

fn write(path: &Path, images: Vec<Tarred<'_>>) {
    let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
    let mut manifest = Vec::new();
    for (names, tars, image) in images {
        let mut diff_ids = Vec::new();
        let mut layers = Vec::new();
        for tar in tars {
            let digest = hex(&tar);
            diff_ids.push(format!("sha256:{digest}"));
            layers.push(format!("{digest}/layer.tar"));
            entries.push((format!("{digest}/layer.tar"), tar));
        }
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "created": image.created,
            "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "test"})).collect::<Vec<_>>(),
        });
        let config = serde_json::to_vec(&config).expect("JSON");
        let name = format!("{}.json", hex(&config));
        let names = if names.is_empty() { Value::Null } else { json!(names) };
        manifest.push(json!({"Config": name, "RepoTags": names, "Layers": layers}));
        entries.push((name, config));
    }
    entries.push(("manifest.json".to_owned(), serde_json::to_vec(&manifest).expect("JSON")));
    entries.sort();
    entries.dedup();
    let mut tar = tar::Builder::new(File::create(path).expect("create the archive"));
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, &content[..]).expect("write the archive");
    }
    tar.into_inner().and_then(|mut file| file.flush()).expect("write the archive");
}

/// The host's architecture in Go's words, which images use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
