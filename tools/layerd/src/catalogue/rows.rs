//! Reading and writing rows, one method a question.

use cow::digest::{ChainId, Digest};
use drivers::LayerId;
use redb::ReadableTable as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::records::{Container, Image, Layer, Snapshot};
use super::{
    CHILDREN, CONTAINER_NAMES, CONTAINERS, IMAGES, LAYERS, NAMES, SNAPSHOTS, Tables, Writer,
};
use crate::error::{Error, ErrorKind, Result};

/// How an image stands in the table of children; no layer id has a colon.
pub(crate) fn image_child(id: &Digest) -> String {
    format!("image:{}", id.hex())
}

/// Whether a child is an image.
pub(crate) fn is_image_child(child: &str) -> bool {
    child.starts_with("image:")
}

/// How a snapshot that shares a layer of images stands in the table of children.
pub(crate) fn sharer_child(namespace: &str, key: &str) -> String {
    format!("snapshot:{namespace}:{key}")
}

fn decode<T: DeserializeOwned>(table: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        Error::refused("read catalogue table", table, e.to_string(), ErrorKind::Corrupt)
    })
}

fn encode<T: Serialize>(table: &str, row: &T) -> Result<Vec<u8>> {
    crate::root::to_json(row, table)
}

/// The questions that both kinds of transactions answer.
pub(crate) trait Lookup: Tables {
    /// An image by its id.
    fn image(&self, id: &Digest) -> Result<Option<Image>> {
        let table = self.table(IMAGES)?;
        table.get(id.as_bytes())?.map(|row| decode("images", row.value())).transpose()
    }

    /// All images, by id.
    fn images(&self) -> Result<Vec<Image>> {
        let table = self.table(IMAGES)?;
        table.iter()?.map(|row| decode("images", row?.1.value())).collect()
    }

    /// The images whose id begins with some hexadecimal digits; at most two.
    fn images_by_prefix(&self, hex: &str) -> Result<Vec<Digest>> {
        let table = self.table(IMAGES)?;
        let mut low = [0; 32];
        for (at, digit) in hex.bytes().enumerate().take(64) {
            let value = char::from(digit).to_digit(16).unwrap_or(0);
            low[at / 2] |= u8::try_from(value).unwrap_or(0) << if at % 2 == 0 { 4 } else { 0 };
        }
        let mut found = Vec::new();
        for row in table.range::<&[u8; 32]>(&low..)?.take(2) {
            let digest = Digest::from_sha256(*row?.0.value());
            if digest.hex().starts_with(hex) {
                found.push(digest);
            }
        }
        Ok(found)
    }

    /// The image that has a full name.
    fn image_of_name(&self, name: &str) -> Result<Option<Digest>> {
        let table = self.table(NAMES)?;
        Ok(table.get(name)?.map(|row| Digest::from_sha256(*row.value())))
    }

    /// A layer of an image by driver and chainID.
    fn layer(&self, driver: &str, chain: &ChainId) -> Result<Option<Layer>> {
        let table = self.table(LAYERS)?;
        let key = (driver, chain.digest().as_bytes());
        table.get(key)?.map(|row| decode("layers", row.value())).transpose()
    }

    /// The layers of images in all drivers.
    fn layers(&self) -> Result<Vec<(String, ChainId, Layer)>> {
        let table = self.table(LAYERS)?;
        let decoded = table.iter()?.map(|row| {
            let (key, value) = row?;
            let (driver, chain) = key.value();
            let chain = ChainId::new(Digest::from_sha256(*chain));
            Ok((driver.to_owned(), chain, decode("layers", value.value())?))
        });
        decoded.collect()
    }

    /// A snapshot by namespace and key.
    fn snapshot(&self, namespace: &str, key: &str) -> Result<Option<Snapshot>> {
        let table = self.table(SNAPSHOTS)?;
        table.get((namespace, key))?.map(|row| decode("snapshots", row.value())).transpose()
    }

    /// Up to `limit` snapshots of a namespace whose keys come after `after`, by key.
    fn snapshots_after(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Snapshot>> {
        let table = self.table(SNAPSHOTS)?;
        let mut found = Vec::new();
        for row in table.range((namespace, after.unwrap_or_default())..)? {
            let (key, value) = row?;
            let (theirs, name) = key.value();
            if theirs != namespace || found.len() == limit {
                break;
            }
            if after != Some(name) {
                found.push(decode("snapshots", value.value())?);
            }
        }
        Ok(found)
    }

    /// The snapshots of all namespaces.
    fn snapshots(&self) -> Result<Vec<(String, Snapshot)>> {
        let table = self.table(SNAPSHOTS)?;
        let decoded = table.iter()?.map(|row| {
            let (key, value) = row?;
            Ok((key.value().0.to_owned(), decode("snapshots", value.value())?))
        });
        decoded.collect()
    }

    /// Whether anything lies on a layer: another layer, or an image of which it is the top.
    fn has_children(&self, driver: &str, layer: &LayerId) -> Result<bool> {
        let table = self.table(CHILDREN)?;
        let Some(row) = table.range((driver, layer.as_str(), "")..)?.next() else {
            return Ok(false);
        };
        let (key, _) = row?;
        let (theirs, parent, _) = key.value();
        Ok(theirs == driver && parent == layer.as_str())
    }

    /// What lies on a layer.
    fn children_of(&self, driver: &str, layer: &LayerId) -> Result<Vec<String>> {
        let table = self.table(CHILDREN)?;
        let mut found = Vec::new();
        for row in table.range((driver, layer.as_str(), "")..)? {
            let (key, _) = row?;
            let (theirs, parent, child) = key.value();
            if theirs != driver || parent != layer.as_str() {
                break;
            }
            found.push(child.to_owned());
        }
        Ok(found)
    }

    /// Whether one thing lies on a layer.
    fn is_child(&self, driver: &str, parent: &str, child: &str) -> Result<bool> {
        Ok(self.table(CHILDREN)?.get((driver, parent, child))?.is_some())
    }

    /// All (driver, parent, child).
    fn children(&self) -> Result<Vec<(String, String, String)>> {
        let table = self.table(CHILDREN)?;
        let decoded = table.iter()?.map(|row| {
            let (key, _) = row?;
            let (driver, parent, child) = key.value();
            Ok((driver.to_owned(), parent.to_owned(), child.to_owned()))
        });
        decoded.collect()
    }

    /// The top layer of an image in each of its drivers.
    fn tops(&self, image: &Image) -> Result<Vec<(String, LayerId)>> {
        let Some(top) = image.layers.last() else { return Ok(Vec::new()) };
        let mut tops = Vec::new();
        for driver in &image.drivers {
            tops.extend(self.layer(driver, top)?.map(|layer| (driver.clone(), layer.layer)));
        }
        Ok(tops)
    }

    /// A container by its whole id.
    fn container(&self, id: &str) -> Result<Option<Container>> {
        let table = self.table(CONTAINERS)?;
        table.get(id)?.map(|row| decode("containers", row.value())).transpose()
    }

    /// All containers, by id.
    fn containers(&self) -> Result<Vec<Container>> {
        let table = self.table(CONTAINERS)?;
        table.iter()?.map(|row| decode("containers", row?.1.value())).collect()
    }

    /// The ids of containers that begin so; at most two.
    fn containers_by_prefix(&self, prefix: &str) -> Result<Vec<String>> {
        let table = self.table(CONTAINERS)?;
        let mut found = Vec::new();
        for row in table.range::<&str>(prefix..)?.take(2) {
            let (key, _) = row?;
            if key.value().starts_with(prefix) {
                found.push(key.value().to_owned());
            }
        }
        Ok(found)
    }

    /// The id of the container that has a name.
    fn container_of_name(&self, name: &str) -> Result<Option<String>> {
        let table = self.table(CONTAINER_NAMES)?;
        Ok(table.get(name)?.map(|row| row.value().to_owned()))
    }
}

impl<T: Tables> Lookup for T {}

/// The changes, each of which keeps the tables in step with one another.
pub(crate) trait Change {
    /// Writes an image and its names, which it takes from the images that had them.
    ///
    /// The answer is the images that lost a name.
    fn put_image(&self, image: &Image) -> Result<Vec<Image>>;
    /// Takes away an image and its names.
    fn delete_image(&self, image: &Image) -> Result<()>;
    /// Writes a layer of an image; `below` is its parent in the driver.
    fn put_layer(
        &self,
        driver: &str,
        chain: &ChainId,
        layer: &Layer,
        below: Option<&LayerId>,
    ) -> Result<()>;
    /// Takes away a layer of an image; `below` is its parent in the driver.
    fn delete_layer(
        &self,
        driver: &str,
        chain: &ChainId,
        layer: &LayerId,
        below: Option<&LayerId>,
    ) -> Result<()>;
    /// Writes a snapshot.
    fn put_snapshot(&self, namespace: &str, snapshot: &Snapshot) -> Result<()>;
    /// Takes away a snapshot's row.
    fn delete_snapshot(&self, namespace: &str, key: &str) -> Result<()>;
    /// Notes that a layer lies on another.
    fn put_child(&self, driver: &str, parent: &str, child: &str) -> Result<()>;
    /// Forgets that a layer lies on another.
    fn delete_child(&self, driver: &str, parent: &str, child: &str) -> Result<()>;
    /// Writes a container and its name.
    fn put_container(&self, container: &Container) -> Result<()>;
    /// Takes away a container and its name.
    fn delete_container(&self, container: &Container) -> Result<()>;
}

impl Change for Writer {
    fn put_image(&self, image: &Image) -> Result<Vec<Image>> {
        let mut losers = Vec::new();
        for name in &image.names {
            let holder = self.image_of_name(name)?.filter(|holder| *holder != image.id);
            if let Some(mut loser) = holder.map(|id| self.image(&id)).transpose()?.flatten() {
                loser.names.remove(name);
                let row = encode("images", &loser)?;
                self.0.open_table(IMAGES)?.insert(loser.id.as_bytes(), row.as_slice())?;
                losers.retain(|other: &Image| other.id != loser.id);
                losers.push(loser);
            }
            self.0.open_table(NAMES)?.insert(name.as_str(), image.id.as_bytes())?;
        }
        if let Some(before) = self.image(&image.id)? {
            let mut names = self.0.open_table(NAMES)?;
            for gone in before.names.difference(&image.names) {
                names.remove(gone.as_str())?;
            }
        }
        let row = encode("images", image)?;
        self.0.open_table(IMAGES)?.insert(image.id.as_bytes(), row.as_slice())?;
        for (driver, top) in self.tops(image)? {
            self.put_child(&driver, top.as_str(), &image_child(&image.id))?;
        }
        Ok(losers)
    }

    fn delete_image(&self, image: &Image) -> Result<()> {
        let mut names = self.0.open_table(NAMES)?;
        for name in &image.names {
            names.remove(name.as_str())?;
        }
        drop(names);
        self.0.open_table(IMAGES)?.remove(image.id.as_bytes())?;
        for (driver, top) in self.tops(image)? {
            self.delete_child(&driver, top.as_str(), &image_child(&image.id))?;
        }
        Ok(())
    }

    fn put_layer(
        &self,
        driver: &str,
        chain: &ChainId,
        layer: &Layer,
        below: Option<&LayerId>,
    ) -> Result<()> {
        let row = encode("layers", layer)?;
        let key = (driver, chain.digest().as_bytes());
        self.0.open_table(LAYERS)?.insert(key, row.as_slice())?;
        below.map_or(Ok(()), |below| self.put_child(driver, below.as_str(), layer.layer.as_str()))
    }

    fn delete_layer(
        &self,
        driver: &str,
        chain: &ChainId,
        layer: &LayerId,
        below: Option<&LayerId>,
    ) -> Result<()> {
        self.0.open_table(LAYERS)?.remove((driver, chain.digest().as_bytes()))?;
        below.map_or(Ok(()), |below| self.delete_child(driver, below.as_str(), layer.as_str()))
    }

    fn put_snapshot(&self, namespace: &str, snapshot: &Snapshot) -> Result<()> {
        let row = encode("snapshots", snapshot)?;
        let key = (namespace, snapshot.key.as_str());
        self.0.open_table(SNAPSHOTS)?.insert(key, row.as_slice())?;
        Ok(())
    }

    fn delete_snapshot(&self, namespace: &str, key: &str) -> Result<()> {
        self.0.open_table(SNAPSHOTS)?.remove((namespace, key))?;
        Ok(())
    }

    fn put_child(&self, driver: &str, parent: &str, child: &str) -> Result<()> {
        self.0.open_table(CHILDREN)?.insert((driver, parent, child), ())?;
        Ok(())
    }

    fn delete_child(&self, driver: &str, parent: &str, child: &str) -> Result<()> {
        self.0.open_table(CHILDREN)?.remove((driver, parent, child))?;
        Ok(())
    }

    fn put_container(&self, container: &Container) -> Result<()> {
        let row = encode("containers", container)?;
        let id = container.id.as_str();
        self.0.open_table(CONTAINERS)?.insert(id, row.as_slice())?;
        self.0.open_table(CONTAINER_NAMES)?.insert(container.name.as_str(), id)?;
        Ok(())
    }

    fn delete_container(&self, container: &Container) -> Result<()> {
        self.0.open_table(CONTAINERS)?.remove(container.id.as_str())?;
        self.0.open_table(CONTAINER_NAMES)?.remove(container.name.as_str())?;
        Ok(())
    }
}
