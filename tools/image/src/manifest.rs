//! The JSON documents that lead to a config and layers: Docker's `manifest.json`, and the
//! manifests and indexes of OCI (image-spec `manifest.md`, `image-index.md`) and Docker (schema 2).

use std::collections::BTreeMap;

use cow::digest::Digest;
use serde::Deserialize;
use serde_json::Value;

use crate::config::nullable;
use crate::error::{Error, Place, Result};
use crate::platform::Platform;

/// containerd's annotation with an image's full name.
pub(crate) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// OCI's annotation with an image's name, tag or whatever its writer thought of.
pub(crate) const OCI_NAME: &str = "org.opencontainers.image.ref.name";

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// Layers that are tars; the last two are Microsoft's, which archives usually leave out.
const LAYER_TYPES: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
const LAYER_SUFFIXES: [&str; 5] = ["", "+gzip", ".gzip", "+zstd", ".zstd"];

/// One image of a docker-archive.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub(crate) config: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) layers: Vec<String>,
}

/// A pointer to a blob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) media_type: String,
    /// Parsed late, so that an unknown algorithm is refused as such and where it matters.
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<DescriptorPlatform>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) urls: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct DescriptorPlatform {
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    variant: String,
}

impl Descriptor {
    /// The digest, as sha256.
    pub(crate) fn digest(&self, at: impl FnOnce(&str) -> Place) -> Result<Digest> {
        self.digest.parse().map_err(|error: cow::Error| Error::Refused {
            op: "read descriptor",
            at: at(&self.digest),
            reason: error.to_string().into(),
            kind: error.kind(),
        })
    }

    /// The platform, where the descriptor names one.
    pub(crate) fn platform(&self) -> Option<Platform> {
        let platform = self.platform.as_ref().filter(|platform| !platform.os.is_empty())?;
        Some(Platform::new(&platform.os, &platform.architecture, &platform.variant))
    }

    /// Whether this is a layer that its writer may have left out.
    pub(crate) fn is_foreign(&self) -> bool {
        LAYER_TYPES[2..].iter().any(|prefix| self.media_type.starts_with(prefix))
    }

    /// Whether the media type is that of a tar layer.
    pub(crate) fn is_layer(&self) -> bool {
        LAYER_TYPES.iter().any(|prefix| {
            self.media_type
                .strip_prefix(prefix)
                .is_some_and(|suffix| LAYER_SUFFIXES.contains(&suffix))
        })
    }

    /// Whether the media type is that of an image config.
    pub(crate) fn is_config(&self) -> bool {
        CONFIG_TYPES.contains(&self.media_type.as_str())
    }
}

/// Where a blob lies in an OCI layout.
pub(crate) fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A manifest or an index.
#[derive(Debug)]
pub(crate) enum Document {
    /// Several manifests to choose from.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    schema_version: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    media_type: String,
    #[serde(default, deserialize_with = "nullable")]
    artifact_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<Value>,
}

impl Document {
    /// Parses a document that a descriptor said to be of a media type (empty where none did).
    pub(crate) fn parse(raw: &[u8], media_type: &str, at: Place) -> Result<Self> {
        let members: Members = match serde_json::from_slice(raw) {
            Ok(members) => members,
            Err(source) => return Err(Error::Json { at, source }),
        };
        if members.schema_version == Some(1) || members.fs_layers.is_some() {
            let reason =
                "a schema 1 manifest, which has no config; push it again with Docker 1.10 or later";
            return Err(Error::unsupported("read manifest", at, reason));
        }
        let stated = if media_type.is_empty() { &members.media_type } else { media_type };
        let known =
            stated.is_empty() || INDEX_TYPES.contains(&stated) || MANIFEST_TYPES.contains(&stated);
        if !known {
            let reason = format!("the media type {stated:?} is neither a manifest nor an index");
            return Err(Error::unsupported("read manifest", at, reason));
        }
        // One document that is both would be read differently by different readers.
        match (members.manifests, members.config, members.layers) {
            (Some(manifests), None, None) if !MANIFEST_TYPES.contains(&stated) => {
                Ok(Self::Index(manifests))
            }
            (None, Some(config), layers) if !INDEX_TYPES.contains(&stated) => {
                if !config.is_config() || !members.artifact_type.is_empty() {
                    let what = if members.artifact_type.is_empty() {
                        config.media_type
                    } else {
                        members.artifact_type
                    };
                    let reason = format!("an artifact of type {what:?}, not an image");
                    return Err(Error::unsupported("read manifest", at, reason));
                }
                Ok(Self::Manifest { config, layers: layers.unwrap_or_default() })
            }
            (None, None, None) => {
                Err(Error::corrupt("read manifest", at, "neither manifests nor a config is in it"))
            }
            _ => Err(Error::corrupt("read manifest", at, "a mixture of manifest and index")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cow::ErrorKind;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str, media_type: &str) -> Result<Document> {
        let text = text.replace("HEX", HEX).replace('\'', "\"");
        Document::parse(text.as_bytes(), media_type, Place::inside("a.tar", "m"))
    }

    #[test]
    fn documents_are_told_by_type_and_content() {
        let config = "'config':{'mediaType':'application/vnd.oci.image.config.v1+json','digest':'sha256:HEX','size':0}";
        let cases = [
            (format!("{{{config},'layers':[]}}"), "", "Manifest"),
            (format!("{{{config},'layers':null}}"), MANIFEST_TYPES[1], "Manifest"),
            ("{'manifests':[]}".to_owned(), "", "Index"),
            (
                "{'manifests':[{'digest':'sha512:0','size':1,'platform':null}]}".to_owned(),
                INDEX_TYPES[1],
                "Index",
            ),
        ];
        for (text, media_type, want) in cases {
            let document = parse(&text, media_type).unwrap();
            assert!(format!("{document:?}").starts_with(want), "{text}: {document:?}");
        }
    }

    #[test]
    fn other_documents_are_refused() {
        let config = "'config':{'mediaType':'application/vnd.oci.image.config.v1+json','digest':'sha256:HEX','size':0}";
        let helm = "{'config':{'mediaType':'application/vnd.cncf.helm.config.v1+json','digest':'sha256:HEX','size':0}}";
        let cases = [
            ("", "", ErrorKind::Corrupt, "EOF"),
            ("[]", "", ErrorKind::Corrupt, "parse"),
            ("{}", "", ErrorKind::Corrupt, "neither"),
            ("{'manifests':[{'size':-1,'digest':''}]}", "", ErrorKind::Corrupt, "invalid value"),
            (&format!("{{'manifests':[],{config}}}"), "", ErrorKind::Corrupt, "mixture"),
            ("{'manifests':[]}", MANIFEST_TYPES[0], ErrorKind::Corrupt, "mixture"),
            (&format!("{{{config}}}"), INDEX_TYPES[0], ErrorKind::Corrupt, "mixture"),
            ("{'schemaVersion':1,'fsLayers':[]}", "", ErrorKind::Unsupported, "schema 1"),
            ("{}", "text/plain", ErrorKind::Unsupported, "text/plain"),
            (helm, "", ErrorKind::Unsupported, "helm"),
        ];
        for (text, media_type, kind, reason) in cases {
            let error = parse(text, media_type).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error} lacks {reason:?}");
            assert!(error.to_string().contains("a.tar: m"), "{text}: {error} names no place");
            assert_eq!(error.kind(), kind, "{text}: {error}");
        }
    }

    #[test]
    fn layer_media_types() {
        let cases = [
            ("application/vnd.oci.image.layer.v1.tar", true, false),
            ("application/vnd.oci.image.layer.v1.tar+gzip", true, false),
            ("application/vnd.oci.image.layer.v1.tar+zstd", true, false),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", true, false),
            ("application/vnd.docker.image.rootfs.diff.tar", true, false),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true, true),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true, true),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", false, false),
            ("application/vnd.in-toto+json", false, false),
            ("", false, false),
        ];
        for (media_type, layer, foreign) in cases {
            let text = format!("{{\"mediaType\":{media_type:?},\"digest\":\"\",\"size\":0}}");
            let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
            let found = (descriptor.is_layer(), descriptor.is_foreign());
            assert_eq!(found, (layer, foreign), "{media_type:?}");
        }
    }
}
