//! Errors as HTTP tells them: each kind has one status, here and nowhere else.

use axum::Extension;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use layerd_api::ErrorBody;

use super::observe::Failed;
use crate::error::{Error, ErrorKind};

/// A failed request.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: ErrorKind,
    message: String,
}

/// A result of a handler.
pub(super) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::with_status(status(kind), kind, message)
    }

    /// For what HTTP has a status of its own, within a kind.
    pub(super) fn with_status(
        status: StatusCode,
        kind: ErrorKind,
        message: impl Into<String>,
    ) -> Self {
        Self { status, kind, message: message.into() }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The body, for a line of a stream.
    pub(super) fn into_body(self) -> ErrorBody {
        ErrorBody { message: self.message, kind: name(self.kind).to_owned() }
    }

    /// What came of the request, for whoever looks at the answer from outside its dialect.
    pub(super) fn failed(&self) -> Failed {
        Failed { kind: name(self.kind), message: self.message.clone() }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, failed) = (self.status, self.failed());
        tracing::debug!(%status, kind = failed.kind, error = failed.message);
        // The body is two strings: writing it cannot fail.
        let body = serde_json::to_vec(&self.into_body()).unwrap_or_default();
        let head = [(CONTENT_TYPE, "application/json")];
        (status, head, Extension(failed), body).into_response()
    }
}

/// The status of a kind.
pub(super) fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists | ErrorKind::InUse => StatusCode::CONFLICT,
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Corrupt => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The kind as the wire spells it.
pub(super) fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not_found",
        ErrorKind::AlreadyExists => "already_exists",
        ErrorKind::InUse => "in_use",
        ErrorKind::InvalidArgument => "invalid_argument",
        ErrorKind::FailedPrecondition => "failed_precondition",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::NoSpace => "no_space",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::PermissionDenied => "permission_denied",
        _ => "io",
    }
}

/// Answers a request for a path that is none of ours.
pub(super) async fn unknown_route(uri: hyper::Uri) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no {}", uri.path()))
}

/// Answers a request for one of our paths with another's method.
pub(super) async fn wrong_method(method: hyper::Method, uri: hyper::Uri) -> ApiError {
    ApiError::with_status(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::InvalidArgument,
        format!("{} does not take {method}", uri.path()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_failing_status_and_a_name() {
        let kinds = [
            (ErrorKind::NotFound, 404, "not_found"),
            (ErrorKind::AlreadyExists, 409, "already_exists"),
            (ErrorKind::InUse, 409, "in_use"),
            (ErrorKind::InvalidArgument, 400, "invalid_argument"),
            (ErrorKind::FailedPrecondition, 412, "failed_precondition"),
            (ErrorKind::Unsupported, 501, "unsupported"),
            (ErrorKind::NoSpace, 507, "no_space"),
            (ErrorKind::Corrupt, 422, "corrupt"),
            (ErrorKind::PermissionDenied, 403, "permission_denied"),
            (ErrorKind::Io, 500, "io"),
        ];
        for (kind, status, name) in kinds {
            let error = ApiError::from(Error::refused("op", "what", "why", kind));
            assert_eq!(error.status.as_u16(), status, "{kind}");
            let body = error.into_body();
            assert_eq!(body.kind, name, "{kind}");
            assert_eq!(body.message, "op what: why", "{kind}");
        }
    }
}
