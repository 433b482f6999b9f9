//! The images of an OCI layout, in a directory or in an archive (image-spec `image-layout.md`).
//!
//! `index.json` lists manifests and further indexes. Entries of one name are one image for several
//! platforms; an entry that is an index is one too. Of each such image the manifest is taken that
//! the wanted platform runs best.

use std::sync::Arc;

use cow::digest::{DiffId, Digest};

use crate::config::{Config, MAX_LAYERS};
use crate::error::{Error, Result};
use crate::image::{Image, check_layers};
use crate::layer::Layer;
use crate::manifest::{CONTAINERD_NAME, Descriptor, Document, OCI_NAME, blob_name};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Budget, Store};
use crate::stream::Promise;

/// The document that everything starts from.
pub(crate) const INDEX: &str = "index.json";
/// The file that marks a layout.
pub(crate) const MARKER: &str = "oci-layout";

/// How deep indexes nest; buildkit's are one deep.
const MAX_DEPTH: usize = 4;
/// The most manifests and indexes that are looked at.
const MAX_DOCUMENTS: usize = 4096;

/// Reads the images that the platform runs; none means the host, and whatever there is where an
/// entry offers no choice.
pub(crate) fn images(store: &Arc<Store>, platform: Option<&Platform>) -> Result<Vec<Image>> {
    let mut walk = Walk { store, budget: Budget::default(), documents: 0 };
    walk.check_marker()?;
    let at = store.place(INDEX);
    let raw = store.document(INDEX, &mut walk.budget)?;
    let Document::Index(entries) = Document::parse(&raw, "", at.clone())? else {
        return Err(Error::corrupt("read index", at, "it is a manifest, not an index"));
    };
    if entries.len() > MAX_DOCUMENTS {
        return Err(Error::corrupt("read index", at, "it lists more than 4,096 manifests"));
    }
    let mut images: Vec<Image> = Vec::new();
    for group in group(entries) {
        for image in walk.choose(&group, platform)? {
            // One manifest under several names is one image.
            match images.iter_mut().find(|other| other.manifest == image.manifest) {
                Some(other) => {
                    let new = image.names.into_iter().filter(|name| !other.names.contains(name));
                    let new: Vec<_> = new.collect();
                    other.names.extend(new);
                }
                None => images.push(image),
            }
        }
    }
    if images.is_empty() {
        return Err(Error::missing("read index", at, "it lists no image"));
    }
    Ok(images)
}

/// Entries of the top index that are one image.
struct Group {
    name: Option<Reference>,
    entries: Vec<Descriptor>,
}

/// Sorts the entries of the top index by name, in their order; those without stay together.
fn group(entries: Vec<Descriptor>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for entry in entries {
        let name = name_of(&entry);
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.entries.push(entry),
            None => groups.push(Group { name, entries: vec![entry] }),
        }
    }
    groups
}

/// The name that an entry's annotations give it.
///
/// The specification lets `ref.name` be anything. A single word that looks like a version is taken
/// for the tag of a repository that is not known, hence for no name.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let full = entry.annotations.get(CONTAINERD_NAME);
    if let Some(name) = full.and_then(|name| name.parse().ok()) {
        return Some(name);
    }
    let name = entry.annotations.get(OCI_NAME)?;
    let numbered = name.strip_prefix('v').unwrap_or(name);
    let tag_alone = !name.contains(['/', ':'])
        && (name == "latest" || numbered.starts_with(|c: char| c.is_ascii_digit()));
    if tag_alone {
        return None;
    }
    match name.parse() {
        Ok(reference) => Some(reference),
        Err(error) => {
            tracing::warn!(%error, "an image's name in the index is ignored");
            None
        }
    }
}

/// A manifest that was found, with what is known of its platform.
struct Candidate {
    digest: Digest,
    config: Descriptor,
    layers: Vec<Descriptor>,
    platform: Option<Platform>,
}

/// What an image of the top index comes to.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    /// Platforms that an index lists, but whose manifests are not there.
    absent: Vec<String>,
}

/// A walk through indexes that ends, whatever they say.
struct Walk<'a> {
    store: &'a Arc<Store>,
    budget: Budget,
    documents: usize,
}

impl Walk<'_> {
    /// Makes sure that the layout is of the one version that there is.
    fn check_marker(&mut self) -> Result<()> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let at = || self.store.place(MARKER);
        let raw = self.store.document(MARKER, &mut self.budget)?;
        let marker: Marker =
            serde_json::from_slice(&raw).map_err(|source| Error::Json { at: at(), source })?;
        if !marker.image_layout_version.starts_with("1.") {
            let reason = format!("layout version {:?} is not 1.x", marker.image_layout_version);
            return Err(Error::unsupported("read layout", at(), reason));
        }
        Ok(())
    }

    /// Collects the manifests at and below an entry.
    fn visit(&mut self, entry: &Descriptor, depth: usize, found: &mut Found) -> Result<()> {
        let platform = entry.platform();
        if platform.as_ref().is_some_and(Platform::is_unknown) {
            return Ok(());
        }
        let store = self.store;
        let digest = entry.digest(|text| store.place(text))?;
        let name = blob_name(digest);
        let refuse = |reason| Err(Error::corrupt("read index", store.place(&name), reason));
        if depth > MAX_DEPTH {
            return refuse("indexes are nested more than 4 deep");
        }
        self.documents += 1;
        if self.documents > MAX_DOCUMENTS {
            return refuse("there are more than 4,096 manifests");
        }
        // An index of all platforms often comes with the blobs of some only.
        if depth > 0 && store.find(&name)?.is_none() {
            found.absent.push(platform.map_or_else(|| digest.short(), |p| p.to_string()));
            return Ok(());
        }
        let raw = store.verified(&name, digest, &mut self.budget)?;
        if raw.len() as u64 != entry.size {
            return refuse("it is not as long as its descriptor says");
        }
        match Document::parse(&raw, &entry.media_type, store.place(&name))? {
            Document::Manifest { layers, .. } if layers.len() > MAX_LAYERS => {
                refuse("it has more than 1,024 layers")
            }
            Document::Manifest { config, layers } => {
                found.candidates.push(Candidate { digest, config, layers, platform });
                Ok(())
            }
            Document::Index(entries) => {
                entries.iter().try_for_each(|entry| self.visit(entry, depth + 1, found))
            }
        }
    }

    /// Takes the manifests that the platform runs best: one of a named image, else all of a rank.
    fn choose(&mut self, group: &Group, platform: Option<&Platform>) -> Result<Vec<Image>> {
        let mut found = Found::default();
        group.entries.iter().try_for_each(|entry| self.visit(entry, 0, &mut found))?;
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        // A manifest by itself leaves no choice, so that it is taken unless one was asked for.
        let alone = platform.is_none() && group.entries.len() == 1 && found.candidates.len() == 1;
        let mut ranked = Vec::new();
        let mut others = Vec::new();
        for candidate in std::mem::take(&mut found.candidates) {
            let offered = match &candidate.platform {
                Some(platform) => platform.clone(),
                None => self.config(&candidate)?.image().platform(),
            };
            match wanted.rank(&offered) {
                Some(rank) => ranked.push((rank, candidate)),
                None if alone && group.lists(&candidate) => ranked.push((0, candidate)),
                None => others.push(offered.to_string()),
            }
        }
        let Some(best) = ranked.iter().map(|(rank, _)| *rank).min() else {
            if group.entries.is_empty() || (others.is_empty() && found.absent.is_empty()) {
                return Ok(Vec::new());
            }
            return Err(self.no_platform(group, wanted, others, found.absent));
        };
        let names: Vec<_> = group.name.iter().cloned().collect();
        let limit = if group.name.is_some() { 1 } else { usize::MAX };
        ranked
            .into_iter()
            .filter(|(rank, _)| *rank == best)
            .take(limit)
            .map(|(_, candidate)| self.load(candidate, names.clone()))
            .collect()
    }

    /// Says what there is, where none of it runs on the platform.
    fn no_platform(
        &self,
        group: &Group,
        wanted: &Platform,
        mut others: Vec<String>,
        mut absent: Vec<String>,
    ) -> Error {
        let image = group.name.as_ref().map_or_else(|| "the image".to_owned(), Reference::familiar);
        let mut reason = format!("{image} is not there for {wanted}");
        for (what, list) in [("there is", &mut others), ("listed without its blobs", &mut absent)] {
            list.sort();
            list.dedup();
            if !list.is_empty() {
                reason = format!("{reason}; {what}: {}", list.join(", "));
            }
        }
        Error::missing("choose platform", self.store.place(INDEX), reason)
    }

    /// Reads the config of a manifest.
    fn config(&mut self, candidate: &Candidate) -> Result<Config> {
        let store = self.store;
        let digest = candidate.config.digest(|text| store.place(text))?;
        let name = blob_name(digest);
        let raw = store.verified(&name, digest, &mut self.budget)?;
        if raw.len() as u64 != candidate.config.size {
            let reason = "it is not as long as its descriptor says";
            return Err(Error::corrupt("read config", store.place(&name), reason));
        }
        Config::parse(raw, store.place(&name))
    }

    fn load(&mut self, candidate: Candidate, names: Vec<Reference>) -> Result<Image> {
        let config = self.config(&candidate)?;
        let diff_ids = &config.image().rootfs.diff_ids;
        let at = self.store.place(&candidate.config.digest);
        check_layers(diff_ids.len(), candidate.layers.len(), at)?;
        let layers = diff_ids
            .iter()
            .zip(&candidate.layers)
            .enumerate()
            .map(|(index, (diff_id, layer))| locate(self.store, index, *diff_id, layer))
            .collect::<Result<_>>()?;
        Ok(Image {
            names,
            platform: config.image().platform(),
            config: Some(config),
            manifest: Some(candidate.digest),
            layers,
        })
    }
}

impl Group {
    /// Whether a manifest is in the top index itself, not in an index of platforms below it.
    fn lists(&self, candidate: &Candidate) -> bool {
        let digest = candidate.digest.to_string();
        self.entries.iter().any(|entry| entry.digest == digest)
    }
}

fn locate(store: &Arc<Store>, index: usize, diff_id: DiffId, layer: &Descriptor) -> Result<Layer> {
    let at = || store.place(&format!("layer {} ({})", index + 1, layer.digest));
    if !layer.is_layer() {
        let reason = format!("the media type {:?} is not supported", layer.media_type);
        return Err(Error::unsupported("read manifest", at(), reason));
    }
    let digest = layer.digest(|_| at())?;
    let name = blob_name(digest);
    if layer.is_foreign() && store.find(&name)?.is_none() {
        let from = layer.urls.first().map_or("elsewhere", String::as_str);
        let reason = format!("a foreign layer, not in the archive; it comes from {from}");
        return Err(Error::missing("look up", at(), reason));
    }
    let promise =
        Promise { blob_digest: Some(digest), blob_size: Some(layer.size), diff_id: Some(diff_id) };
    Layer::locate(store, index, &name, promise, Some(layer.media_type.clone()))
}
