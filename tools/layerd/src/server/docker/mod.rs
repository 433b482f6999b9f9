//! Docker's dialect: the graph-driver plugin protocol, JSON in `POST` bodies.
//!
//! A plugin is asked by one dockerd, so its layers live in one namespace of the store, under the ids
//! that Docker chose. Docker knows no commit: it goes on to use a layer as a parent when it has done
//! with writing to it. A layer is therefore committed when a tar was applied to it, which is how the
//! layers of images come, and otherwise when it becomes a parent for the first time.
//!
//! `Init` may be called again and again, and adopts what is there. Request fields that are not known
//! here are ignored, any `Host` is taken, content types are not looked at.

mod calls;
mod layers;
mod locks;
mod streams;
mod wire;

use axum::Router;
use axum::routing::post;

use super::App;
pub(super) use streams::Streams;

/// Where the layers of Docker are in the store.
const NAMESPACE: &str = "docker";

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/Plugin.Activate", post(calls::activate))
        .route("/GraphDriver.Init", post(calls::init))
        .route("/GraphDriver.Capabilities", post(calls::capabilities))
        .route("/GraphDriver.Create", post(calls::create))
        .route("/GraphDriver.CreateReadWrite", post(calls::create))
        .route("/GraphDriver.Remove", post(calls::remove))
        .route("/GraphDriver.Get", post(calls::get))
        .route("/GraphDriver.Put", post(calls::put))
        .route("/GraphDriver.Exists", post(calls::exists))
        .route("/GraphDriver.Status", post(calls::status))
        .route("/GraphDriver.GetMetadata", post(calls::metadata))
        .route("/GraphDriver.Cleanup", post(calls::cleanup))
        .route("/GraphDriver.Changes", post(calls::changes))
        .route("/GraphDriver.DiffSize", post(calls::diff_size))
        .route("/GraphDriver.Diff", post(streams::diff))
        .route("/GraphDriver.ApplyDiff", post(streams::apply))
}
