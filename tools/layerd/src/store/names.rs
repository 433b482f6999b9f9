//! What the names of clients mean: images by name or id, containers by name or id.

use cow::digest::Digest;
use image::Reference;

use super::Store;
use crate::catalogue::{Container, Image, Lookup};
use crate::error::{Error, ErrorKind, Result};

/// The full form of an image's name (`debian` is `docker.io/library/debian:latest`).
///
/// # Errors
/// `InvalidArgument` for a string that is no name.
pub(crate) fn full_name(op: &'static str, name: &str) -> Result<String> {
    match name.parse::<Reference>() {
        Ok(reference) => Ok(reference.to_string()),
        Err(error) => Err(Error::refused(op, name, error.to_string(), ErrorKind::InvalidArgument)),
    }
}

/// Finds the image that a client means: by its whole id, by a name, or by the beginning of its id,
/// in this order. The answer also says by which full name it was found.
pub(crate) fn image(
    rows: &impl Lookup,
    op: &'static str,
    reference: &str,
) -> Result<(Image, Option<String>)> {
    let missing = || Error::refused(op, reference, "no such image", ErrorKind::NotFound);
    let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
    let is_hex = !hex.is_empty() && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && hex.len() == 64 {
        let id: Digest = format!("sha256:{hex}")
            .parse()
            .map_err(|_| Error::refused(op, reference, "no id", ErrorKind::InvalidArgument))?;
        return rows.image(&id)?.map(|image| (image, None)).ok_or_else(missing);
    }
    if let Ok(name) = reference.parse::<Reference>() {
        let full = name.to_string();
        if let Some(image) = rows.image_of_name(&full)?.map(|id| rows.image(&id)).transpose()? {
            return image.map(|image| (image, Some(full))).ok_or_else(missing);
        }
        if let Some(image) = name.digest().map(|id| rows.image(id)).transpose()?.flatten() {
            return Ok((image, None));
        }
    }
    if is_hex && hex.len() < 64 {
        return match rows.images_by_prefix(hex)?.as_slice() {
            [] => Err(missing()),
            [only] => rows.image(only)?.map(|image| (image, None)).ok_or_else(missing),
            _ => {
                let reason = "several images have an id that begins so";
                Err(Error::refused(op, reference, reason, ErrorKind::InvalidArgument))
            }
        };
    }
    Err(missing())
}

/// Finds a container by its whole id, its name, or the beginning of its id, in this order.
pub(crate) fn container(
    rows: &impl Lookup,
    op: &'static str,
    reference: &str,
) -> Result<Container> {
    let missing = || Error::refused(op, reference, "no such container", ErrorKind::NotFound);
    if let Some(container) = rows.container(reference)? {
        return Ok(container);
    }
    let name = reference.strip_prefix('/').unwrap_or(reference);
    if let Some(id) = rows.container_of_name(name)? {
        return rows.container(&id)?.ok_or_else(missing);
    }
    if reference.is_empty() {
        return Err(missing());
    }
    match rows.containers_by_prefix(reference)?.as_slice() {
        [] => Err(missing()),
        [only] => rows.container(only)?.ok_or_else(missing),
        _ => {
            let reason = "several containers have an id that begins so";
            Err(Error::refused(op, reference, reason, ErrorKind::InvalidArgument))
        }
    }
}

impl Store {
    /// Finds an image by full name, short name, id, or beginning of an id.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidArgument` when several ids begin so.
    pub fn resolve(&self, reference: &str) -> Result<Image> {
        image(&self.catalogue.read()?, "find image", reference).map(|(image, _)| image)
    }
}
