//! The store's blocking calls, away from the threads that serve connections.

use std::sync::Arc;

use super::App;
use super::error::{ApiError, ApiResult};
use crate::error::ErrorKind;
use crate::store::Store;

impl App {
    /// Runs `work` on a thread that may block. It runs to its end even when the client goes away.
    pub(super) async fn blocking<T, F>(&self, work: F) -> Result<T, Died>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> T + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|error| {
            tracing::error!(%error, "a request failed");
            Died
        })
    }

    /// The same for the dialects that speak of errors as HTTP does.
    pub(super) async fn store<T, F>(&self, work: F) -> ApiResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> crate::error::Result<T> + Send + 'static,
    {
        Ok(self.blocking(work).await??)
    }
}

/// A call of the store that did not come back: the runtime is ending, or it hit a defect.
#[derive(Debug, thiserror::Error)]
#[error("the request failed: see the daemon's log")]
pub(super) struct Died;

impl From<Died> for ApiError {
    fn from(died: Died) -> Self {
        Self::new(ErrorKind::Io, died.to_string())
    }
}
