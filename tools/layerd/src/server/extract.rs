//! What a request says: its JSON body, its query, its path.
//!
//! A body may have 1 MiB and must be there within 30 s. The content type is not looked at: clients
//! of every dialect send what they like.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_stream::StreamExt as _;

use super::error::ApiError;
use crate::error::ErrorKind;

const BODY_LIMIT: usize = 1 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// One JSON object, as a request's body or an answer's.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = tokio::time::timeout(BODY_TIMEOUT, read(request.into_body()));
        let body = body.await.map_err(|_| too_slow())??;
        parse(&body).map(Self)
    }
}

/// Reads a body to its end. Of one that is too long the rest is left, see `leftover`.
async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(ErrorKind::InvalidArgument, format!("the body: {error}"))
        })?;
        if bytes.len() + chunk.len() > BODY_LIMIT {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// An error names the field that it is about.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // `{}` may be left out where every field may.
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let message = match path.as_str() {
            // Malformed, or the object as a whole.
            "." | "?" => format!("the body: {}", error.inner()),
            field => format!("the body: {field}: {}", error.inner()),
        };
        ApiError::new(ErrorKind::InvalidArgument, message)
    })?;
    reader
        .end()
        .map_err(|error| ApiError::new(ErrorKind::InvalidArgument, format!("the body: {error}")))?;
    Ok(value)
}

fn too_slow() -> ApiError {
    let message = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
    ApiError::with_status(StatusCode::REQUEST_TIMEOUT, ErrorKind::InvalidArgument, message)
}

fn too_long() -> ApiError {
    let message = format!("the body is longer than {BODY_LIMIT} bytes");
    ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::InvalidArgument, message)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => {
                ApiError::new(ErrorKind::Io, format!("write answer: {error}")).into_response()
            }
        }
    }
}

/// The query string.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(ApiError::new(ErrorKind::InvalidArgument, error.body_text())),
        }
    }
}

/// The one parameter of the path, unescaped.
#[derive(Debug)]
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(name)) => Ok(Self(name)),
            Err(error) => Err(ApiError::new(ErrorKind::InvalidArgument, error.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use layerd_api::{CreateContainerRequest, ImportRequest, PruneRequest};

    fn refusal<T: DeserializeOwned>(body: &str) -> String {
        match parse::<T>(body.as_bytes()) {
            Ok(_) => panic!("{body} was taken"),
            Err(error) => error.into_body().message,
        }
    }

    #[test]
    fn a_bad_body_is_refused_by_field() {
        for (body, expected) in [
            (r#"{"path": 5}"#, "the body: path: invalid type"),
            (r#"{"name": "x"}"#, "missing field `path`"),
            ("[", "the body: EOF"),
            ("", "missing field `path`"),
            (r#"{"path": "/x"} {}"#, "trailing"),
            ("\u{1}", "the body: expected value"),
        ] {
            let message = refusal::<ImportRequest>(body);
            assert!(message.contains(expected), "{body}: {message}");
        }
        let nested = r#"{"image": "x", "spec": {"env": ["A=b", 3]}}"#;
        let message = refusal::<CreateContainerRequest>(nested);
        assert!(message.contains("spec.env[1]"), "the path into the body: {message}");
    }

    #[test]
    fn what_may_be_left_out_may_be_left_out() {
        assert!(!parse::<PruneRequest>(b" \n").expect("an empty body").all);
        assert!(parse::<PruneRequest>(br#"{"all":true,"new":[]}"#).expect("a body").all);
    }
}
