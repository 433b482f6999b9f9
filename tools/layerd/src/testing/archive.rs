//! Small docker-archives.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use cow::digest::Digest;
use serde_json::{Value, json};

/// One image of an archive: its names, its config's `config`, and its layers.
struct Member {
    names: Vec<String>,
    config: Value,
    layers: Vec<Vec<u8>>,
}

/// A docker-archive in the making.
#[derive(Default)]
pub(crate) struct Archive {
    members: Vec<Member>,
    /// The layer (by its bytes) whose blob is spoiled.
    spoiled: Option<Vec<u8>>,
}

/// A layer's tar with one file.
pub(crate) fn layer_tar(name: &str, content: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, name, content.as_bytes());
    tar.into_inner().unwrap()
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, content).unwrap();
}

impl Archive {
    /// An archive with one image.
    pub(crate) fn of(name: &str, layers: &[Vec<u8>]) -> Self {
        Self::default().and(&[name], json!({"Cmd": ["sh"]}), layers)
    }

    /// One more image.
    pub(crate) fn and(mut self, names: &[&str], config: Value, layers: &[Vec<u8>]) -> Self {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        self.members.push(Member { names, config, layers: layers.to_vec() });
        self
    }

    /// Changes one byte of a layer, whose digest is then another.
    pub(crate) fn spoiling(mut self, layer: &[u8]) -> Self {
        self.spoiled = Some(layer.to_vec());
        self
    }

    /// Writes the archive into a directory, under a name of its own.
    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let path = dir.join(format!("{}.tar", NUMBER.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }

    fn bytes(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut manifest = Vec::new();
        let mut written = Vec::new();
        for member in &self.members {
            let diff_ids: Vec<String> =
                member.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
            let config = json!({
                "architecture": "amd64",
                "os": "linux",
                "created": "2024-01-02T03:04:05Z",
                "config": member.config,
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [],
            });
            let config = serde_json::to_vec(&config).unwrap();
            let config_name = format!("{}.json", Digest::of(&config).hex());
            append(&mut tar, &config_name, &config);
            let mut names = Vec::new();
            for layer in &member.layers {
                let name = format!("{}/layer.tar", Digest::of(layer).hex());
                if !written.contains(&name) {
                    let mut bytes = layer.clone();
                    if self.spoiled.as_ref() == Some(layer) {
                        // Within the content of the one file.
                        bytes[512] ^= 1;
                    }
                    append(&mut tar, &name, &bytes);
                    written.push(name.clone());
                }
                names.push(name);
            }
            manifest.push(json!({
                "Config": config_name,
                "RepoTags": member.names,
                "Layers": names,
            }));
        }
        append(&mut tar, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
        tar.into_inner().unwrap()
    }
}
