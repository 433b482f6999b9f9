//! `/v1/images`, `/v1/prune`, `/v1/gc`.

use axum::extract::State;
use layerd_api::{
    ImageDetails, ImageLayer, ImageList, ImageSummary, PruneRequest, RemoveImageRequest, Removed,
    TagRequest, Usage,
};
use serde_json::Value;

use super::super::App;
use super::super::error::ApiResult;
use super::super::extract::{Json, Name};
use crate::catalogue::Image;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{self, PruneScope, Store};

pub(super) async fn list(State(app): State<App>) -> ApiResult<Json<ImageList>> {
    let images = app.store(|store| store.images()).await?;
    Ok(Json(ImageList { images: images.iter().map(summary).collect() }))
}

pub(super) async fn inspect(
    State(app): State<App>,
    Name(reference): Name,
) -> ApiResult<Json<ImageDetails>> {
    let details = app.store(move |store| {
        let image = store.resolve(&reference)?;
        details(store, &image)
    });
    Ok(Json(details.await?))
}

pub(super) async fn tag(
    State(app): State<App>,
    Json(request): Json<TagRequest>,
) -> ApiResult<Json<ImageSummary>> {
    let image = app.store(move |store| store.tag(&request.image, &request.name)).await?;
    Ok(Json(summary(&image)))
}

pub(super) async fn remove(
    State(app): State<App>,
    Json(request): Json<RemoveImageRequest>,
) -> ApiResult<Json<Removed>> {
    let work = app.store(move |store| store.remove_image(&request.image, request.force));
    Ok(Json(removed(work.await?)))
}

pub(super) async fn prune(
    State(app): State<App>,
    Json(request): Json<PruneRequest>,
) -> ApiResult<Json<Removed>> {
    let scope = if request.all { PruneScope::Unused } else { PruneScope::Dangling };
    Ok(Json(removed(app.store(move |store| store.prune(scope)).await?)))
}

pub(super) async fn gc(State(app): State<App>) -> ApiResult<Json<Removed>> {
    Ok(Json(removed(app.store(|store| store.gc()).await?)))
}

/// An image as listings show it.
pub(super) fn summary(image: &Image) -> ImageSummary {
    ImageSummary {
        id: image.id.to_string(),
        names: image.names.iter().cloned().collect(),
        created: image.created.clone(),
        size: image.size,
        driver: image.drivers.first().cloned().unwrap_or_default(),
        drivers: image.drivers.clone(),
        platform: image.platform.clone(),
        layers: image.layers.iter().map(ToString::to_string).collect(),
        labels: image.labels.clone(),
    }
}

fn details(store: &Store, image: &Image) -> Result<ImageDetails> {
    let config: Value =
        serde_json::from_slice(&store.image_config(&image.id)?).map_err(|error| {
            let id = image.id.to_string();
            Error::refused("read config of image", id, error.to_string(), ErrorKind::Corrupt)
        })?;
    let driver = image.drivers.first().map(String::as_str).unwrap_or_default();
    let layers = image.layers.iter().map(|chain_id| {
        let layer = store.image_layer(driver, chain_id)?;
        Ok(ImageLayer {
            chain_id: chain_id.to_string(),
            diff_id: layer.diff_id.to_string(),
            size: layer.content_size,
            tar_size: layer.tar_size,
            usage: Usage { bytes: layer.usage.bytes, inodes: layer.usage.inodes },
        })
    });
    let layers = layers.collect::<Result<_>>()?;
    Ok(ImageDetails { image: summary(image), config, layers })
}

fn removed(removed: store::Removed) -> Removed {
    Removed {
        untagged: removed.untagged,
        deleted: removed.deleted.iter().map(ToString::to_string).collect(),
        layers: removed.layers.iter().map(ToString::to_string).collect(),
        bytes: removed.bytes,
    }
}
