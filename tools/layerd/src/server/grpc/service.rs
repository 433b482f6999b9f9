//! The ten methods.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::pin::Pin;

use drivers::{IdMap, IdMaps};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::filter::Filters;
use super::wire::{self, Info, Mount, present, snapshots_server};
use crate::catalogue::Labels;
use crate::error::{Error, ErrorKind, Result};
use crate::server::App;
use crate::store::{LabelUpdate, NewSnapshot, Store};

/// How many snapshots one message of a list holds, as containerd's own server does it.
const BLOCK: usize = 100;
/// The chainID of the layer that a snapshot is prepared for (containerd's remote snapshots).
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// The hint of how large a writable snapshot may grow, in bytes; drivers without quotas pass over it.
const MAX_SIZE: &str = "containerd.io/snapshot/max-size";

/// The ids that a snapshot is to show, for users and groups.
const ID_MAPS: [&str; 2] =
    ["containerd.io/snapshot/uidmapping", "containerd.io/snapshot/gidmapping"];

type Answer<T> = std::result::Result<Response<T>, Status>;

/// The service.
#[derive(Debug)]
pub(super) struct Snapshots {
    app: App,
}

impl Snapshots {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }

    /// Runs `work` on a thread that may block.
    async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let outcome = self.app.blocking(work).await;
        Ok(outcome.map_err(|died| Status::internal(died.to_string()))??)
    }

    async fn create(
        &self,
        view: bool,
        request: wire::PrepareSnapshotRequest,
    ) -> Answer<Vec<Mount>> {
        let labels = wire::labels(request.labels);
        let size = labels.get(MAX_SIZE).map(|text| size(text)).transpose()?;
        let mut new = NewSnapshot {
            key: request.key,
            parent: present(request.parent),
            view,
            driver: driver(&request.snapshotter),
            id_map: id_map(&labels)?,
            labels,
            size,
            options: BTreeMap::new(),
        };
        let namespace = namespace(&request.snapshotter);
        // Any other string is a reference of somebody else's making.
        let chain = new.labels.get(SNAPSHOT_REF).filter(|_| !view).and_then(|r| r.parse().ok());
        let mounts = self
            .store(move |store| {
                if let Some(chain) = chain
                    && let Some(shared) = store.share_layer(&namespace, &new, chain)?
                {
                    let reason = format!("the layer is there already, as snapshot {}", shared.key);
                    let kind = ErrorKind::AlreadyExists;
                    return Err(Error::refused("prepare snapshot", new.key, reason, kind));
                }
                if new.size.is_some() && !has_quota(store, &namespace, &new)? {
                    new.size = None;
                }
                store.prepare_mounts(&namespace, &new)
            })
            .await?;
        Ok(Response::new(mounts.into_iter().map(Mount::from).collect()))
    }
}

fn namespace(snapshotter: &str) -> String {
    format!("containerd/{snapshotter}")
}

fn driver(snapshotter: &str) -> Option<String> {
    let (_, suffix) = snapshotter.rsplit_once('-')?;
    drivers::NAMES.contains(&suffix).then(|| suffix.to_owned())
}

/// Whether the driver that a snapshot will be in can bound its size.
fn has_quota(store: &Store, namespace: &str, new: &NewSnapshot) -> Result<bool> {
    let parent = new.parent.as_ref().map(|parent| store.stat_snapshot(namespace, parent));
    let below = parent.and_then(Result::ok).map(|parent| parent.driver);
    let driver = store.driver(below.as_deref().or(new.driver.as_deref()))?;
    Ok(driver.capabilities().quota)
}

fn size(text: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        Error::refused("prepare snapshot", MAX_SIZE, "not a number", ErrorKind::InvalidArgument)
    })
}

/// The maps that the labels ask for; one does not come without the other.
fn id_map(labels: &Labels) -> Result<Option<IdMaps>> {
    let [uids, gids] = ID_MAPS.map(|label| labels.get(label));
    let refused = |label: &str, reason: String| {
        Error::refused("prepare snapshot", label, reason, ErrorKind::InvalidArgument)
    };
    let parse = |label: &str, text: &str| {
        text.parse::<IdMap>().map_err(|error| refused(label, error.to_string()))
    };
    match (uids, gids) {
        (None, None) => Ok(None),
        (Some(uids), Some(gids)) => {
            Ok(Some(IdMaps { uids: parse(ID_MAPS[0], uids)?, gids: parse(ID_MAPS[1], gids)? }))
        }
        (Some(_), None) => Err(refused(ID_MAPS[1], "users are mapped and groups are not".into())),
        (None, Some(_)) => Err(refused(ID_MAPS[0], "groups are mapped and users are not".into())),
    }
}

/// What an update's mask asks for: `labels`, `labels.KEY`, or nothing, which means all that can change.
fn update(mask: &[String], labels: &Labels) -> Result<LabelUpdate> {
    let mut single = BTreeMap::new();
    for path in mask {
        match path.strip_prefix("labels.") {
            Some(key) => {
                let value = labels.get(key).filter(|value| !value.is_empty());
                single.insert(key.to_owned(), value.cloned());
            }
            None if path == "labels" => return Ok(LabelUpdate::Replace(labels.clone())),
            None => {
                return Err(Error::refused(
                    "update snapshot",
                    path.clone(),
                    "only labels can change",
                    ErrorKind::InvalidArgument,
                ));
            }
        }
    }
    if mask.is_empty() {
        return Ok(LabelUpdate::Replace(labels.clone()));
    }
    Ok(LabelUpdate::Set(single))
}

#[tonic::async_trait]
impl snapshots_server::Snapshots for Snapshots {
    async fn prepare(
        &self,
        request: Request<wire::PrepareSnapshotRequest>,
    ) -> Answer<wire::PrepareSnapshotResponse> {
        let mounts = self.create(false, request.into_inner()).await?.into_inner();
        Ok(Response::new(wire::PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<wire::ViewSnapshotRequest>,
    ) -> Answer<wire::ViewSnapshotResponse> {
        let wire::ViewSnapshotRequest { snapshotter, key, parent, labels } = request.into_inner();
        let request = wire::PrepareSnapshotRequest { snapshotter, key, parent, labels };
        let mounts = self.create(true, request).await?.into_inner();
        Ok(Response::new(wire::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(&self, request: Request<wire::MountsRequest>) -> Answer<wire::MountsResponse> {
        let wire::MountsRequest { snapshotter, key } = request.into_inner();
        let namespace = namespace(&snapshotter);
        let mounts = self.store(move |store| store.snapshot_mounts(&namespace, &key)).await?;
        let mounts = mounts.into_iter().map(Mount::from).collect();
        Ok(Response::new(wire::MountsResponse { mounts }))
    }

    async fn commit(&self, request: Request<wire::CommitSnapshotRequest>) -> Answer<()> {
        let request = request.into_inner();
        let namespace = namespace(&request.snapshotter);
        let labels = wire::labels(request.labels);
        let parent = present(request.parent);
        let _turn = self.app.commits.acquire().await;
        self.store(move |store| {
            let (key, name) = (&request.key, &request.name);
            store.commit_snapshot(&namespace, key, name, labels, parent.as_deref())
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<wire::RemoveSnapshotRequest>) -> Answer<()> {
        let wire::RemoveSnapshotRequest { snapshotter, key } = request.into_inner();
        let namespace = namespace(&snapshotter);
        self.store(move |store| store.remove_snapshot(&namespace, &key)).await?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<wire::StatSnapshotRequest>,
    ) -> Answer<wire::StatSnapshotResponse> {
        let wire::StatSnapshotRequest { snapshotter, key } = request.into_inner();
        let namespace = namespace(&snapshotter);
        let snapshot = self.store(move |store| store.stat_snapshot(&namespace, &key)).await?;
        Ok(Response::new(wire::StatSnapshotResponse { info: Some(snapshot.into()) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateSnapshotRequest>,
    ) -> Answer<wire::UpdateSnapshotResponse> {
        let request = request.into_inner();
        let namespace = namespace(&request.snapshotter);
        let info = request.info.ok_or_else(|| Status::invalid_argument("update: no info"))?;
        let labels = wire::labels(info.labels);
        let mask = request.update_mask.unwrap_or_default().paths;
        let update = update(&mask, &labels)?;
        let snapshot =
            self.store(move |store| store.update_snapshot(&namespace, &info.name, update)).await?;
        Ok(Response::new(wire::UpdateSnapshotResponse { info: Some(snapshot.into()) }))
    }

    type ListStream = Pin<
        Box<dyn Stream<Item = std::result::Result<wire::ListSnapshotsResponse, Status>> + Send>,
    >;

    async fn list(&self, request: Request<wire::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let wire::ListSnapshotsRequest { snapshotter, filters } = request.into_inner();
        let filters = Filters::parse(&filters)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let namespace = namespace(&snapshotter);
        let found = self
            .store(move |store| {
                let mut found = Vec::new();
                store.walk_snapshots(&namespace, &mut |snapshot| {
                    if filters.matches(snapshot) {
                        found.push(Info::from(snapshot.clone()));
                    }
                    ControlFlow::Continue(())
                })?;
                Ok(found)
            })
            .await?;
        let blocks: Vec<_> = found
            .chunks(BLOCK)
            .map(|block| Ok(wire::ListSnapshotsResponse { info: block.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(blocks))))
    }

    async fn usage(&self, request: Request<wire::UsageRequest>) -> Answer<wire::UsageResponse> {
        let wire::UsageRequest { snapshotter, key } = request.into_inner();
        let namespace = namespace(&snapshotter);
        let usage = self.store(move |store| store.snapshot_usage(&namespace, &key)).await?;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (size, inodes) = (number(usage.bytes), number(usage.inodes));
        Ok(Response::new(wire::UsageResponse { size, inodes }))
    }

    async fn cleanup(&self, _: Request<wire::CleanupRequest>) -> Answer<()> {
        self.store(|store| store.gc().map(drop)).await?;
        Ok(Response::new(()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::super::wire::snapshots_server::Snapshots as _;
    use super::*;
    use crate::testing::{Archive, Bench, layer_tar};

    fn service(bench: &Bench) -> Snapshots {
        Snapshots::new(App::new(bench.open()))
    }

    fn prepare(key: &str, label: (&str, String)) -> Request<wire::PrepareSnapshotRequest> {
        Request::new(wire::PrepareSnapshotRequest {
            snapshotter: "layerd".to_owned(),
            key: key.to_owned(),
            parent: String::new(),
            labels: HashMap::from([(label.0.to_owned(), label.1)]),
        })
    }

    #[tokio::test]
    async fn labels_have_their_limits() {
        let bench = Bench::new();
        let service = service(&bench);
        let fits = "x".repeat(4096 - "label".len());
        service.prepare(prepare("fits", ("label", fits.clone()))).await.expect("4096 bytes");
        let cases = [
            prepare("long", ("label", fits + "x")),
            prepare("words", (MAX_SIZE, "a lot".to_owned())),
        ];
        for request in cases {
            let error = service.prepare(request).await.expect_err("a bad label");
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        }
        let hint = prepare("hint", (MAX_SIZE, "1000000".to_owned()));
        service
            .prepare(hint)
            .await
            .expect("a hint is no reason to refuse where there are no quotas");
    }

    #[tokio::test]
    async fn a_layer_of_an_image_is_found_by_containerds_own_filter() {
        let bench = Bench::new();
        let service = service(&bench);
        let archive = Archive::of("app", &[layer_tar("a", "1")]);
        let image = bench.import(&service.app.store, &archive).expect("an image").remove(0).image;
        let chain = image.layers[0].to_string();
        let view = wire::ViewSnapshotRequest {
            key: "view".to_owned(),
            labels: HashMap::from([(SNAPSHOT_REF.to_owned(), chain.clone())]),
            ..Default::default()
        };
        service.view(Request::new(view)).await.expect("a view is what it is");
        let another = prepare("another", (SNAPSHOT_REF, "no digest".to_owned()));
        service.prepare(another).await.expect("another reference");
        let prepared = service.prepare(prepare("extract", (SNAPSHOT_REF, chain.clone()))).await;
        let error = prepared.expect_err("the layer is there");
        assert_eq!(error.code(), Code::AlreadyExists, "{error}");

        // As metadata/snapshot.go writes it.
        let filter = format!(r#"labels."containerd.io/snapshot.ref"=={chain},parent=="""#);
        let list =
            wire::ListSnapshotsRequest { snapshotter: "layerd".to_owned(), filters: vec![filter] };
        let mut found = service.list(Request::new(list)).await.expect("a list").into_inner();
        let block = found.next().await.expect("a block").expect("a block");
        let committed: Vec<_> =
            block.info.iter().map(|info| (info.kind, info.labels.get(SNAPSHOT_REF))).collect();
        assert_eq!(committed, [(wire::Kind::Committed.into(), Some(&chain))]);
    }

    #[tokio::test]
    async fn only_labels_change_and_no_name_is_its_own_key() {
        let bench = Bench::new();
        let service = service(&bench);
        service.prepare(prepare("key", ("a", "1".to_owned()))).await.expect("a snapshot");
        let update = |path: &str, labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Request::new(wire::UpdateSnapshotRequest {
                snapshotter: "layerd".to_owned(),
                info: Some(Info { name: "key".to_owned(), labels, ..Info::default() }),
                update_mask: Some(prost_types::FieldMask { paths: vec![path.to_owned()] }),
            })
        };
        let error = service.update(update("parent", &[])).await.expect_err("a parent stays");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let set = service.update(update("labels.b", &[("b", "2"), ("c", "3")])).await.expect("set");
        let labels = set.into_inner().info.expect("the snapshot").labels;
        let expected =
            HashMap::from([("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(labels, expected, "the mask names one label");
        let unset = service.update(update("labels.a", &[])).await.expect("unset");
        let labels = unset.into_inner().info.expect("the snapshot").labels;
        assert!(!labels.contains_key("a"), "an empty value takes the label away: {labels:?}");

        let commit = wire::CommitSnapshotRequest {
            snapshotter: "layerd".to_owned(),
            name: "key".to_owned(),
            key: "key".to_owned(),
            ..Default::default()
        };
        let error = service.commit(Request::new(commit)).await.expect_err("the name is taken");
        assert_eq!(error.code(), Code::AlreadyExists, "{error}");
    }
}
