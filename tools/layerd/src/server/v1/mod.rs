//! layerd's own dialect: JSON under `/v1/`, described in `docs/api.md`.

mod containers;
mod events;
mod images;
mod import;
mod info;
mod layers;
mod metrics;
mod pool;
mod snapshots;

use axum::Router;
use axum::routing::{delete, get, post};

use super::App;
pub(super) use events::LISTENERS;

/// Imports that run at once; more wait. Each keeps the processors busy by itself.
pub(super) const IMPORTS: usize = 4;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/v1/info", get(info::info))
        .route("/v1/events", get(events::stream))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/pool", get(pool::list))
        .route("/v1/pool/devices", post(pool::add_device))
        .route("/v1/images", get(images::list))
        .route("/v1/images/import", post(import::import))
        .route("/v1/images/tag", post(images::tag))
        .route("/v1/images/remove", post(images::remove))
        .route("/v1/images/{*reference}", get(images::inspect))
        .route("/v1/prune", post(images::prune))
        .route("/v1/gc", post(images::gc))
        .route("/v1/layers", get(layers::list))
        .route("/v1/layers/{chain_id}/files", get(layers::files))
        .route("/v1/layers/{chain_id}/tar", get(layers::tar))
        .route("/v1/layers/{chain_id}/verify", post(layers::verify))
        .route("/v1/containers/{id}/files", get(layers::container_files))
        .route("/v1/containers/{id}/usage", get(layers::container_usage))
        .route("/v1/containers/{id}/tar", get(layers::container_tar))
        .route("/v1/snapshots", get(snapshots::list).post(snapshots::prepare))
        .route("/v1/snapshots/mounts", get(snapshots::mounts))
        .route("/v1/snapshots/usage", get(snapshots::usage))
        .route("/v1/snapshots/commit", post(snapshots::commit))
        .route("/v1/snapshots/remove", post(snapshots::remove))
        .route("/v1/containers", get(containers::list).post(containers::create))
        .route("/v1/containers/{id}", get(containers::inspect))
        .route("/v1/containers/{id}", delete(containers::remove))
        .route("/v1/containers/{id}/state", post(containers::report))
        .route("/v1/containers/{id}/commit", post(containers::commit))
        .route("/v1/containers/{id}/changes", get(containers::changes))
}
