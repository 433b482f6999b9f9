//! `GET /v1/info`.

use axum::extract::State;
use layerd_api::Info;

use super::super::App;
use super::super::error::ApiResult;
use super::super::extract::Json;

pub(super) async fn info(State(app): State<App>) -> ApiResult<Json<Info>> {
    let info = app.store(|store| {
        let counts = store.counts()?;
        let drivers = store.open_drivers();
        Ok(Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            root: store.root().display().to_string(),
            driver: store.default_driver().to_owned(),
            drivers: drivers.iter().map(|d| (d.name().to_owned(), d.status())).collect(),
            images: counts.images,
            layers: counts.layers,
            containers: counts.containers,
        })
    });
    Ok(Json(info.await?))
}
