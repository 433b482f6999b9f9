//! What Docker's plugin client sends and reads, as Go's encoder writes it.

use std::collections::BTreeMap;

use axum::Extension;
use axum::response::{IntoResponse, Response};
use cow::change::ChangeKind;
use hyper::header::CONTENT_TYPE;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, ErrorKind};
use crate::server::error::ApiError;
use crate::server::observe::Failed;

/// The media type that the plugin helpers of Docker answer with; clients do not look at it.
pub(super) const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";

/// The fields of all requests about a layer; each call reads those that it has.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct LayerRequest {
    #[serde(rename = "ID", deserialize_with = "or_default")]
    pub(super) id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) parent: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) mount_label: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) storage_opt: BTreeMap<String, String>,
}

/// The request of `Init`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InitRequest {
    #[serde(rename = "Home", deserialize_with = "or_default")]
    pub(super) home: String,
    #[serde(rename = "Opts", deserialize_with = "or_default")]
    pub(super) options: Vec<String>,
    #[serde(rename = "UIDMaps", deserialize_with = "or_default")]
    pub(super) uid_maps: Vec<IdMap>,
    #[serde(rename = "GIDMaps", deserialize_with = "or_default")]
    pub(super) gid_maps: Vec<IdMap>,
}

/// One range of `userns-remap`; Docker's code and its documentation spell the names differently.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct IdMap {
    #[serde(alias = "ContainerID")]
    pub(super) container_id: u32,
    #[serde(alias = "HostID")]
    pub(super) host_id: u32,
    #[serde(alias = "Size")]
    pub(super) size: u32,
}

impl IdMap {
    /// Whether the range maps every id to itself.
    pub(super) fn is_identity(&self) -> bool {
        self.container_id == self.host_id
    }
}

/// Go writes `null` for an empty list or map.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An answer; absent fields are left out, so that the least one is `{}`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Reply {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) err: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) dir: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exists: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) status: Vec<[String; 2]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<Change>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<i64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) implements: Vec<&'static str>,
}

/// What the driver promises.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Capabilities {
    /// Whether `Diff` gives back the very tar that was applied, byte for byte. Docker then keeps no
    /// record of its own to rebuild it from.
    pub(super) reproduces_exact_diffs: bool,
}

/// One changed path.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Change {
    path: String,
    kind: u8,
}

impl From<cow::change::Change> for Change {
    fn from(change: cow::change::Change) -> Self {
        let kind = match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        Self { path: format!("/{}", change.path.display()), kind }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self) {
            Ok(body) => ([(CONTENT_TYPE, MEDIA_TYPE)], body).into_response(),
            Err(error) => Failure::from(error.to_string()).into_response(),
        }
    }
}

/// A failed call: a status that is not 200, with the reason where Docker looks for it.
#[derive(Debug)]
pub(super) struct Failure {
    status: hyper::StatusCode,
    failed: Failed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        ApiError::from(error).into()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { status: error.status(), failed: error.failed() }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        ApiError::new(ErrorKind::Io, message).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { status, failed } = self;
        tracing::debug!(%status, error = failed.message);
        let reply = Reply { err: failed.message.clone(), ..Reply::default() };
        (status, Extension(failed), reply).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_id_maps_are_read() {
        let docker = r#"{"Home":"/h","Opts":null,"UIDMaps":[{"container_id":0,"host_id":1000,"size":10}],
                         "GIDMaps":null,"New":{}}"#;
        let documented = r#"{"UIDMaps":[{"ContainerID":0,"HostID":1000,"Size":10}]}"#;
        for body in [docker, documented] {
            let request: InitRequest = serde_json::from_str(body).expect(body);
            let expected = IdMap { container_id: 0, host_id: 1000, size: 10 };
            assert_eq!(request.uid_maps, [expected], "{body}");
            assert!(request.options.is_empty() && request.gid_maps.is_empty(), "{body}");
        }
    }

    #[test]
    fn an_empty_reply_is_an_object() {
        assert_eq!(serde_json::to_string(&Reply::default()).expect("JSON"), "{}");
        let reply = Reply { exists: Some(false), ..Reply::default() };
        assert_eq!(serde_json::to_string(&reply).expect("JSON"), r#"{"Exists":false}"#);
        let capabilities = Some(Capabilities { reproduces_exact_diffs: false });
        let reply = Reply { capabilities, ..Reply::default() };
        let json = serde_json::to_string(&reply).expect("JSON");
        assert_eq!(json, r#"{"Capabilities":{"ReproducesExactDiffs":false}}"#);
    }

    #[test]
    fn changes_have_dockers_numbers_and_a_leading_slash() {
        let change = cow::change::Change::deleted("etc/motd");
        let json = serde_json::to_string(&Change::from(change)).expect("JSON");
        assert_eq!(json, r#"{"Path":"/etc/motd","Kind":2}"#);
    }
}
