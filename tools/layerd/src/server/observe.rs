//! Every request is counted and timed, and one that fails becomes an event.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hyper::Method;
use tonic::{Code, Status};

use super::App;
use crate::events::Note;

/// What is said of a request for none of our paths: clients do not make up names of figures.
const UNKNOWN: &str = "unknown";
/// What is said of a request that has an answer.
const OK: &str = "ok";
/// Refusals that are answers: clients ask for a thing to learn whether it is there.
const ANSWERS: [&str; 2] = ["not_found", "already_exists"];

/// Why a request failed, for whoever looks at an answer from outside its dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// The kind as the wire spells it.
    pub(super) kind: &'static str,
    /// For a person.
    pub(super) message: String,
}

/// Passes a request on, and notes what comes of it.
pub(super) async fn observe(
    State(app): State<App>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let (dialect, mut operation) = match &path {
        Some(path) => named(request.method(), path.as_str(), request.uri().path()),
        None => (UNKNOWN, UNKNOWN.to_owned()),
    };
    let answer = next.run(request).await;
    let failed = failure(&answer);
    if dialect == "containerd" && failed.as_ref().is_some_and(|f| f.kind == UNIMPLEMENTED) {
        operation = UNKNOWN.to_owned();
    }
    let result = failed.as_ref().map_or(OK, |failed| failed.kind);
    app.store.metrics.operation(dialect, &operation, result, began.elapsed());
    if let Some(Failed { kind, message }) = failed.filter(|f| !ANSWERS.contains(&f.kind)) {
        let note = Note::new("operation", "fail", operation).with("dialect", dialect);
        app.store.events.tell(note.with("kind", kind).with("error", message).took(began));
    }
    answer
}

/// The dialect of a route, and the name of an operation: of what is called in dialects that have
/// calls, else method and path.
fn named(method: &Method, route: &str, path: &str) -> (&'static str, String) {
    if let Some((service, _)) = route.split_once("/{method}") {
        let call = path.strip_prefix(service).unwrap_or_default().trim_start_matches('/');
        return ("containerd", call.to_owned());
    }
    let call = |prefix| route.strip_prefix(prefix).map(str::to_owned);
    if let Some(call) = call("/GraphDriver.").or_else(|| call("/Plugin.")) {
        return ("docker", call);
    }
    ("v1", format!("{method} {}", route.replace("{*", "{")))
}

/// Why an answer is a failure.
fn failure(answer: &Response) -> Option<Failed> {
    if let Some(failed) = answer.extensions().get::<Failed>() {
        return Some(failed.clone());
    }
    if let Some(status) = Status::from_header_map(answer.headers()) {
        let message = status.message().to_owned();
        return code(status.code()).map(|kind| Failed { kind, message });
    }
    let status = answer.status();
    let message = || status.canonical_reason().unwrap_or_default().to_owned();
    (!status.is_success()).then(|| Failed { kind: "io", message: message() })
}

/// gRPC's word for what it does not know, which is also ours for what a driver cannot do.
const UNIMPLEMENTED: &str = "unsupported";

/// A code in the words of the other dialects; none for success.
fn code(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Ok => return None,
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::InvalidArgument => "invalid_argument",
        Code::FailedPrecondition => "failed_precondition",
        Code::Unimplemented => UNIMPLEMENTED,
        Code::ResourceExhausted => "no_space",
        Code::DataLoss => "corrupt",
        Code::PermissionDenied => "permission_denied",
        _ => "io",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_names_of_their_dialects() {
        let grpc = "/containerd.services.snapshots.v1.Snapshots/{method}";
        let prepare = "/containerd.services.snapshots.v1.Snapshots/Prepare";
        for (method, route, path, dialect, operation) in [
            (Method::POST, grpc, prepare, "containerd", "Prepare"),
            (Method::POST, "/GraphDriver.Create", "/GraphDriver.Create", "docker", "Create"),
            (Method::POST, "/Plugin.Activate", "/Plugin.Activate", "docker", "Activate"),
            (
                Method::GET,
                "/v1/images/{*reference}",
                "/v1/images/a/b",
                "v1",
                "GET /v1/images/{reference}",
            ),
            (Method::GET, "/metrics", "/metrics", "v1", "GET /metrics"),
        ] {
            let found = named(&method, route, path);
            assert_eq!(found, (dialect, operation.to_owned()), "{route}");
        }
    }
}
