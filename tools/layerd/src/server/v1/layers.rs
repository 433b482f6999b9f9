//! `/v1/layers`, and what containers changed file by file.

use std::io::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cow::digest::ChainId;
use hyper::header::CONTENT_TYPE;
use layerd_api::{KeptLayer, LayerList, LayerSummary, Usage, VerifiedLayer, VerifyList};

use super::super::App;
use super::super::error::ApiResult;
use super::super::extract::{Json, Name};
use super::super::written;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{KnownLayer, Store, Verdict};

const LINES: &str = "application/x-ndjson";
const TAR: &str = "application/x-tar";

pub(super) async fn list(State(app): State<App>) -> ApiResult<Json<LayerList>> {
    let layers = app.store(|store| store.known_layers()).await?;
    Ok(Json(LayerList { layers: layers.into_iter().filter_map(summary).collect() }))
}

pub(super) async fn files(State(app): State<App>, Name(chain): Name) -> ApiResult<Response> {
    let chain = chain_id(&chain)?;
    answer(app, "layer-files", LINES, move |store, out| store.layer_files(&chain, out)).await
}

pub(super) async fn tar(State(app): State<App>, Name(chain): Name) -> ApiResult<Response> {
    let chain = chain_id(&chain)?;
    answer(app, "layer-tar", TAR, move |store, out| store.layer_tar(&chain, out)).await
}

pub(super) async fn verify(
    State(app): State<App>,
    Name(chain): Name,
) -> ApiResult<Json<VerifyList>> {
    let chain = chain_id(&chain)?;
    let verdicts = app.store(move |store| store.verify_layer(&chain)).await?;
    let kept = verdicts.into_iter().map(|(driver, verdict)| {
        let (state, reason) = match verdict {
            Verdict::Sound => ("sound", None),
            Verdict::Damaged(reason) => ("damaged", Some(reason)),
            Verdict::Unknown(reason) => ("unknown", Some(reason)),
        };
        VerifiedLayer { driver, state: state.to_owned(), reason }
    });
    Ok(Json(VerifyList { kept: kept.collect() }))
}

pub(super) async fn container_files(State(app): State<App>, Name(id): Name) -> ApiResult<Response> {
    answer(app, "container-files", LINES, move |store, out| store.container_files(&id, out)).await
}

pub(super) async fn container_tar(State(app): State<App>, Name(id): Name) -> ApiResult<Response> {
    answer(app, "container-tar", TAR, move |store, out| store.container_tar(&id, out)).await
}

pub(super) async fn container_usage(
    State(app): State<App>,
    Name(id): Name,
) -> ApiResult<Json<Usage>> {
    let usage = app.store(move |store| store.container_usage(&id)).await?;
    Ok(Json(Usage { bytes: usage.bytes, inodes: usage.inodes }))
}

async fn answer(
    app: App,
    thread: &str,
    content_type: &'static str,
    work: impl FnOnce(&Store, &mut dyn Write) -> Result<()> + Send + 'static,
) -> ApiResult<Response> {
    let place = app.streams.place().await;
    let store = Arc::clone(&app.store);
    let body = written::body(thread, move |out| {
        let _place = place;
        work(&store, out)
    });
    let body = body.await?;
    Ok(([(CONTENT_TYPE, content_type)], body).into_response())
}

fn chain_id(text: &str) -> Result<ChainId> {
    let digest = text.parse().map_err(|error: cow::Error| {
        Error::refused("find layer", text, error.to_string(), ErrorKind::InvalidArgument)
    })?;
    Ok(ChainId::new(digest))
}

/// What all drivers agree on is taken from the first.
fn summary(known: KnownLayer) -> Option<LayerSummary> {
    let (_, first) = known.kept.first()?;
    Some(LayerSummary {
        chain_id: known.chain.to_string(),
        diff_id: first.diff_id.to_string(),
        parent: first.parent.map(|parent| parent.to_string()),
        size: first.content_size,
        tar_size: first.tar_size,
        kept: known
            .kept
            .iter()
            .map(|(driver, layer)| KeptLayer {
                driver: driver.clone(),
                layer: layer.layer.to_string(),
                usage: Usage { bytes: layer.usage.bytes, inodes: layer.usage.inodes },
            })
            .collect(),
        images: known.images,
        containers: known.containers,
    })
}
