//! `/v1/pool`: the space of drivers that keep their layers on block devices.

use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use drivers::Driver;
use layerd_api::{AddDeviceRequest, Fill, Pool, PoolList};

use super::super::App;
use super::super::error::ApiResult;
use super::super::extract::Json;
use crate::error::{Error, ErrorKind, Result};
use crate::events::pools;
use crate::store::Store;

pub(super) async fn list(State(app): State<App>) -> ApiResult<Json<PoolList>> {
    let pools = app.store(|store| {
        let drivers = store.open_drivers();
        let pools = drivers.iter().filter(|driver| driver.pool().is_some());
        pools.map(|driver| report(&**driver)).collect::<Result<_>>()
    });
    Ok(Json(PoolList { pools: pools.await? }))
}

pub(super) async fn add_device(
    State(app): State<App>,
    Json(request): Json<AddDeviceRequest>,
) -> ApiResult<Json<Pool>> {
    let pool = app.store(move |store| {
        let driver = with_pool(store, request.driver.as_deref())?;
        let Some(pool) = driver.pool() else { return Err(none(driver.name())) };
        tracing::info!(driver = driver.name(), device = request.device, "add device");
        pool.add_device(Path::new(&request.device), request.force)
            .map_err(|error| Error::driver("add device", error))?;
        if let Ok(report) = pool.report() {
            let note = pools::note("add-device", driver.name(), &report);
            store.events.tell(note.with("device", request.device));
        }
        report(&*driver)
    });
    Ok(Json(pool.await?))
}

/// The driver of a name, or the only one that has a pool.
fn with_pool(store: &Store, name: Option<&str>) -> Result<Arc<dyn Driver>> {
    if name.is_some() {
        return store.driver(name);
    }
    let mut pools = store.open_drivers().into_iter().filter(|driver| driver.pool().is_some());
    match (pools.next(), pools.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(none(store.default_driver())),
    }
}

fn none(driver: &str) -> Error {
    let reason = "the driver has no pool; devicemapper has one";
    Error::refused("add device", driver, reason, ErrorKind::Unsupported)
}

fn report(driver: &dyn Driver) -> Result<Pool> {
    let Some(pool) = driver.pool() else { return Err(none(driver.name())) };
    let report = pool.report().map_err(|error| Error::driver("look at pool", error))?;
    let fill = |fill: drivers::Fill| Fill { used: fill.used, total: fill.total };
    Ok(Pool {
        driver: driver.name().to_owned(),
        name: report.name,
        source: report.source,
        devices: report.devices.iter().map(|device| device.display().to_string()).collect(),
        block_size: report.block_size,
        data: fill(report.data),
        metadata: fill(report.metadata),
        spare: report.spare,
        threshold: report.threshold,
        mode: report.mode,
        growth_per_day: report.growth_per_day,
        base_size: report.base_size,
        deferred: report.deferred as u64,
    })
}
