//! Archives of all kinds, made in memory for the tests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cow::digest::Digest;
use serde_json::{Value, json};

use crate::platform::Platform;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Writes a tar by hand, so that it can be wrong.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// A header whose fields are given as they are, and data that need not agree with it.
    pub(crate) fn entry(
        mut self,
        flag: u8,
        name: &[u8],
        link: &str,
        size: u64,
        data: &[u8],
    ) -> Self {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = flag;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        self.0.extend_from_slice(&sealed(header));
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(b'0', name.as_bytes(), "", data.len() as u64, data)
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(b'5', name.as_bytes(), "", 0, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name.as_bytes(), target, 0, b"")
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name.as_bytes(), target, 0, b"")
    }

    /// A pax header with records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let data: String = records.iter().map(|(key, value)| record(key, value)).collect();
        self.entry(b'x', b"PaxHeaders/x", "", data.len() as u64, data.as_bytes())
    }

    /// With the end-of-archive mark.
    pub(crate) fn done(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while format!("{length}{rest}").len() != length {
        length += 1;
    }
    format!("{length}{rest}")
}

/// Sets the checksum of a header.
pub(crate) fn sealed(mut header: [u8; 512]) -> [u8; 512] {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A tar that begins as root file systems do.
pub(crate) fn rootfs(seed: u64, bytes: usize) -> Vec<u8> {
    Tar::default()
        .dir("./")
        .dir("./bin/")
        .file("./bin/sh", b"#!")
        .file("./data", &noise(seed, bytes))
        .done()
}

/// Bytes that compress to about half.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..bytes).map(|_| rng.byte() & 0x0f).collect()
}

/// A small generator, so that every failure can be repeated from its seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[6]
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % limit
    }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(data, 1).unwrap()
}

/// The config of an image of these layers (uncompressed tars).
pub(crate) fn config_for(platform: &Platform, layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|tar| Digest::of(tar).to_string()).collect();
    json!({
        "architecture": platform.arch(),
        "os": platform.os(),
        "variant": platform.variant(),
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

/// A docker-archive: layers may be compressed, the diffIDs are those of the plain ones.
pub(crate) struct Docker {
    pub(crate) config: Value,
    pub(crate) manifest: Value,
    pub(crate) entries: Vec<(String, Vec<u8>)>,
}

impl Docker {
    pub(crate) fn new(layers: &[Vec<u8>], compress: fn(&[u8]) -> Vec<u8>) -> Self {
        let config = config_for(&Platform::host(), layers);
        let name = |index: usize| format!("{index:064x}/layer.tar");
        let entries = layers.iter().enumerate();
        let entries = entries.map(|(index, tar)| (name(index), compress(tar))).collect();
        let names: Vec<_> = (0..layers.len()).map(name).collect();
        let manifest = json!([{
            "Config": "config.json",
            "RepoTags": ["example:1", "quay.io/a/b:2"],
            "Layers": names,
        }]);
        Self { config, manifest, entries }
    }

    /// The manifest last, as Docker has it.
    pub(crate) fn tar(&self) -> Vec<u8> {
        let mut tar = Tar::default();
        for (name, data) in &self.entries {
            tar = tar.file(name, data);
        }
        tar.file("config.json", self.config.to_string().as_bytes())
            .file("manifest.json", self.manifest.to_string().as_bytes())
            .done()
    }
}

/// An OCI layout.
#[derive(Default)]
pub(crate) struct Oci {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) index: Vec<Value>,
}

impl Oci {
    /// Adds a blob; its descriptor.
    pub(crate) fn blob(&mut self, media_type: &str, data: &[u8]) -> Value {
        let digest = Digest::of(data);
        self.blobs.insert(format!("blobs/sha256/{}", digest.hex()), data.to_vec());
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": data.len()})
    }

    /// Adds config, layers and manifest of an image; the manifest's descriptor.
    pub(crate) fn image(
        &mut self,
        platform: &Platform,
        layers: &[Vec<u8>],
        media_type: &str,
        compress: fn(&[u8]) -> Vec<u8>,
    ) -> Value {
        let config = config_for(platform, layers).to_string();
        let config = self.blob(OCI_CONFIG, config.as_bytes());
        let layers: Vec<Value> =
            layers.iter().map(|tar| self.blob(media_type, &compress(tar))).collect();
        self.manifest(config, layers)
    }

    pub(crate) fn manifest(&mut self, config: Value, layers: Vec<Value>) -> Value {
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        self.blob(OCI_MANIFEST, manifest.to_string().as_bytes())
    }

    /// Adds an index; its descriptor.
    pub(crate) fn nested(&mut self, manifests: Vec<Value>) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        self.blob(OCI_INDEX, index.to_string().as_bytes())
    }

    /// All files of the layout.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let index = json!({"schemaVersion": 2, "manifests": self.index});
        let mut files: Vec<_> = self.blobs.clone().into_iter().collect();
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        files
    }

    pub(crate) fn tar(&self) -> Vec<u8> {
        let files = self.files();
        files.iter().fold(Tar::default(), |tar, (name, data)| tar.file(name, data)).done()
    }

    pub(crate) fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        for (name, data) in self.files() {
            std::fs::write(dir.join(name), data).unwrap();
        }
    }
}

/// A layout with one image of the host's platform, named `example:1`.
pub(crate) fn oci(layers: &[Vec<u8>], compress: fn(&[u8]) -> Vec<u8>) -> Oci {
    let mut oci = Oci::default();
    let image = oci.image(&Platform::host(), layers, OCI_LAYER, compress);
    oci.index.push(annotated(image, "docker.io/library/example:1"));
    oci
}

/// The descriptor with containerd's name.
pub(crate) fn annotated(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({"io.containerd.image.name": name});
    descriptor
}

/// The descriptor with a platform.
pub(crate) fn on(mut descriptor: Value, platform: &str) -> Value {
    let parts: Vec<&str> = platform.split('/').collect();
    descriptor["platform"] = json!({"os": parts[0], "architecture": parts[1]});
    if let Some(variant) = parts.get(2) {
        descriptor["platform"]["variant"] = json!(variant);
    }
    descriptor
}

/// A temporary directory with a file in it.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, data: &[u8]) -> PathBuf {
        let path = self.path().join("archive");
        // A file of its own each time: an earlier one may still be open as a source.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, data).unwrap();
        path
    }
}
