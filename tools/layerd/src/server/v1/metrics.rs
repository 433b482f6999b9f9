//! `GET /metrics`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::header::CONTENT_TYPE;

use super::super::App;
use super::super::error::ApiResult;
use crate::metrics;

pub(super) async fn metrics(State(app): State<App>) -> ApiResult<Response> {
    let connections = app.crowd.count();
    let text = app.store(move |store| metrics::scrape(store, connections)).await?;
    Ok(([(CONTENT_TYPE, metrics::MEDIA_TYPE)], text).into_response())
}
