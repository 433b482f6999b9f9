use cow::change::ChangeKind;
use layerd_api::ContainerSpec;
use serde_json::json;

use crate::catalogue::Status;
use crate::error::ErrorKind;
use crate::store::{CommitContainer, NewContainer, Report, Store};
use crate::testing::{Archive, Bench, layer_tar};

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn with_image(bench: &Bench) -> std::sync::Arc<Store> {
    let store = bench.open();
    let config = json!({
        "Env": ["PATH=/bin", "A=1"],
        "Entrypoint": ["init"],
        "Cmd": ["serve"],
        "WorkingDir": "/srv",
        "Labels": {"l": "v"},
    });
    let archive = Archive::default().and(&["app"], config, &[layer_tar("a", "1")]);
    bench.import(&store, &archive).unwrap();
    store
}

fn named(name: &str) -> NewContainer {
    NewContainer { image: "app".into(), name: Some(name.into()), ..NewContainer::default() }
}

#[test]
fn a_container_is_made_of_image_and_request() {
    let bench = Bench::new();
    let store = with_image(&bench);
    let spec = ContainerSpec { env: vec!["A=2".into()], ..ContainerSpec::default() };
    let new = NewContainer { command: vec!["once".into()], spec, ..named("web") };
    let container = store.create_container(&new).unwrap();
    assert_eq!(container.spec.args, ["init", "once"]);
    assert_eq!(container.spec.env, ["PATH=/bin", "A=2"]);
    assert_eq!(container.spec.cwd, "/srv");
    assert_eq!((container.id.len(), container.status), (64, Status::Created));
    assert_eq!(store.container_mounts("web").unwrap()[0].options, ["rbind", "rw"]);
    for reference in ["web", "/web", &container.id, &container.id[..12], &container.id[..2]] {
        assert_eq!(store.container(reference).unwrap(), container, "{reference}");
    }
    for reference in ["", "we", "zz"] {
        let error = store.container(reference).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{reference:?}: {error}");
    }
    let cases = [
        (named("web"), ErrorKind::AlreadyExists),
        (named("-x"), ErrorKind::InvalidArgument),
        (NewContainer { image: "none".into(), ..named("x1") }, ErrorKind::NotFound),
        (
            NewContainer { driver: Some("overlay2".into()), ..named("x2") },
            ErrorKind::InvalidArgument,
        ),
        (NewContainer { driver: Some("zfs".into()), ..named("x3") }, ErrorKind::InvalidArgument),
    ];
    for (new, kind) in cases {
        let error = store.create_container(&new).unwrap_err();
        assert_eq!(error.kind(), kind, "{new:?}: {error}");
    }
    assert_eq!(bench.vfs.len(), 2, "a refused container left a layer");
    let made_up = store.create_container(&NewContainer { name: None, ..named("") }).unwrap();
    assert!(made_up.name.contains('-'), "{}", made_up.name);
    let listed: Vec<String> = store.containers().unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(listed, [made_up.name.as_str(), "web"], "the newest first");
}

#[test]
fn states_follow_the_reports() {
    let bench = Bench::new();
    let store = with_image(&bench);
    store.create_container(&named("web")).unwrap();
    let running = Report::Running { pid: own_pid() };
    let exited = |code| Report::Exited { code };
    let state = |report| store.report_container("web", report).map(|c| c.status);
    assert!(matches!(state(running), Ok(Status::Running { pid, .. }) if pid == own_pid()));
    assert!(matches!(state(running), Ok(Status::Running { pid, .. }) if pid == own_pid()), "again");
    let other = state(Report::Running { pid: 1 });
    assert_eq!(other.unwrap_err().kind(), ErrorKind::FailedPrecondition, "another one");
    let error = store.remove_container("web").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    assert_eq!(state(exited(3)).unwrap(), Status::Exited { code: Some(3) });
    assert_eq!(state(exited(3)).unwrap(), Status::Exited { code: Some(3) }, "said again");
    assert_eq!(state(exited(4)).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert!(state(running).is_ok(), "started again");
    let container = store.container("web").unwrap();
    assert!(container.started.is_some() && container.finished.is_none(), "{container:?}");
}

#[test]
fn a_process_that_is_gone_is_not_running() {
    let bench = Bench::new();
    let store = with_image(&bench);
    store.create_container(&named("web")).unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    store.report_container("web", Report::Running { pid }).unwrap();
    drop(store);
    let store = bench.open();
    assert!(matches!(store.container("web").unwrap().status, Status::Running { .. }), "restart");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.container("web").unwrap().status, Status::Exited { code: None });
    assert_eq!(store.containers().unwrap()[0].status, Status::Exited { code: None });
    let late = store.report_container("web", Report::Exited { code: 137 }).unwrap();
    assert_eq!(late.status, Status::Exited { code: Some(137) }, "a late report counts");
    store.remove_container("web").unwrap();
    assert_eq!(bench.vfs.len(), 1, "its layer is gone, the image's stays");
    assert_eq!(store.container("web").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn changes_become_an_image() {
    let bench = Bench::new();
    let store = with_image(&bench);
    let container = store.create_container(&named("web")).unwrap();
    let changes = layer_tar("new", "content");
    store.apply_snapshot("layerd", &container.id, &mut changes.as_slice()).unwrap();
    let shown: Vec<_> = store.container_changes("web").unwrap();
    let shown: Vec<_> = shown.iter().map(|c| (c.path.as_str(), c.kind)).collect();
    assert_eq!(shown, [("/gone", ChangeKind::Deleted), ("/new", ChangeKind::Added)]);

    let commit = CommitContainer {
        name: Some("app:2".into()),
        comment: Some("by hand".into()),
        author: Some("me".into()),
    };
    let image = store.commit_container("web", &commit).unwrap();
    assert_eq!(image.names.first().map(String::as_str), Some("docker.io/library/app:2"));
    assert_eq!((image.layers.len(), image.labels["l"].as_str()), (2, "v"));
    let base = store.resolve("app").unwrap();
    assert_eq!(image.layers[0], base.layers[0]);
    assert!(image.size > base.size, "the new layer counts");
    let config: serde_json::Value =
        serde_json::from_slice(&store.image_config(&image.id).unwrap()).unwrap();
    assert_eq!(config["config"]["Entrypoint"], json!(["init"]));
    assert_eq!(config["config"]["Cmd"], json!(["serve"]));
    assert_eq!(config["author"], json!("me"));
    assert_eq!(config["history"][0]["comment"], json!("by hand"));
    let mut tar = Vec::new();
    store.image_layer_diff("vfs", &image.layers[1], &mut tar).unwrap();
    assert_eq!(tar, changes, "the layer is what changed");

    let layers = bench.vfs.len();
    store.commit_container("web", &CommitContainer::default()).unwrap();
    assert_eq!(bench.vfs.len(), layers, "an equal layer is shared");
    for (op, kind) in
        [("diff", ErrorKind::Io), ("apply", ErrorKind::NoSpace), ("create", ErrorKind::Io)]
    {
        bench.vfs.fail(op, 0, kind);
        let error = store.commit_container("web", &CommitContainer::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{op}: {error}");
        assert_eq!(bench.vfs.len(), layers, "{op} left a layer");
    }
    drop(store);
    bench.assert_sound("after commits");
}
