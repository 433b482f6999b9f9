//! The store's blocking calls, away from the threads that serve connections.

use std::sync::Arc;

use super::App;
use super::error::{ApiError, ApiResult};
use crate::error::{ErrorKind, Result};
use crate::store::Store;

impl App {
    /// Runs `work` on a thread that may block. It runs to its end even when the client goes away.
    pub(super) async fn store<T, F>(&self, work: F) -> ApiResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(outcome) => Ok(outcome?),
            Err(error) => {
                tracing::error!(%error, "a request failed");
                Err(ApiError::new(ErrorKind::Io, "the request failed: see the daemon's log"))
            }
        }
    }
}
