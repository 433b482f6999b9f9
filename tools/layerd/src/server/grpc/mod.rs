//! containerd's dialect: the snapshots service, version 1, as a proxy snapshotter serves it.
//!
//! Each snapshotter name that a containerd is configured with is a namespace of its own in the store,
//! so that its garbage collection sees its own snapshots alone; a name that ends in `-DRIVER`
//! (`layerd-btrfs`) also chooses the driver of snapshots without a parent.

mod filter;
mod service;
mod status;
mod wire;

use super::App;
use wire::snapshots_server::SnapshotsServer;

/// The service with its routes, for the router that all dialects share.
pub(super) fn router(app: App) -> axum::Router {
    tonic::service::Routes::new(SnapshotsServer::new(service::Snapshots::new(app)))
        .prepare()
        .into_axum_router()
}
