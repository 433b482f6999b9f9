//! containerd's dialect: the snapshots service, version 1, as a proxy snapshotter serves it.
//!
//! Each snapshotter name that a containerd is configured with is a namespace of its own in the store,
//! so that its garbage collection sees its own snapshots alone; a name that ends in `-DRIVER`
//! (`layerd-btrfs`) also chooses the driver of snapshots without a parent.

mod filter;
mod service;
mod status;
mod wire;

use axum::Router;

use super::App;
use wire::snapshots_server::SnapshotsServer;

/// The service at its path, for the router that all dialects share.
pub(super) fn router(app: &App) -> Router<App> {
    let service = SnapshotsServer::new(service::Snapshots::new(app.clone()));
    Router::new().route_service("/containerd.services.snapshots.v1.Snapshots/{method}", service)
}
