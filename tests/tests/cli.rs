//! layerctl against a real daemon: output, JSON, errors and exit codes.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use layerd_api::{CreateContainerRequest, SnapshotRequest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::archive::{self, Image};
use tests::daemon::{Daemon, Finish, Finished, command, layerctl};
use tests::docker::Docker;
use tests::grpc::Grpc;
use tests::host;

/// A daemon with two images: `app:1`, which is also `app:latest`, on top of `base:1`.
fn daemon_with_images() -> Daemon {
    let daemon = Daemon::start();
    let path = daemon.dir().join("images.tar");
    write_images(&path);
    let out = daemon.layerctl([Path::new("import"), &path]).ok();
    assert!(out.contains("Loaded image: app:1\n"), "{out}");
    daemon
}

fn write_images(path: &Path) {
    let base: archive::Files<'_> = &[("etc/", ""), ("etc/motd", "hello\n"), ("bin/", "")];
    let app: archive::Files<'_> = &[("app/", ""), ("app/run", "#!/bin/sh\n")];
    let base_config = json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]});
    let app_config = json!({"Cmd": ["/app/run"], "Labels": {"tier": "web"}});
    let images = [
        Image {
            names: &["base:1"],
            layers: &[base],
            created: "2024-01-01T00:00:00Z",
            config: &base_config,
        },
        Image {
            names: &["app:1", "app:latest"],
            layers: &[base, app],
            created: "2025-06-01T12:00:00Z",
            config: &app_config,
        },
    ];
    archive::docker(path, &images);
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn bad_usage_has_codes_of_its_own() {
    let socket = "/nonexistent/layerd.sock";
    for (arguments, code, message) in [
        (&["--help"][..], 0, ""),
        (&["run", "--help"], 0, ""),
        (&["--version"], 0, ""),
        (&[], 2, "Usage"),
        (&["frobnicate"], 2, "frobnicate"),
        (&["images", "--bogus"], 2, "--bogus"),
        (&["images", "--filter", "size=3"], 2, "size"),
        (&["images", "--filter", "dangling=maybe"], 2, "maybe"),
        (&["images", "--format", "{{.Repository"], 2, "}}"),
        (&["ps", "--filter", "name"], 2, "KEY=VALUE"),
        (&["snapshots", "-q", "--format", "{{.Key}}"], 2, "--quiet"),
        (&["rmi"], 2, "REF"),
        (&["images"], 1, "no layerd listens on /nonexistent/layerd.sock"),
        (&["import", "/nonexistent/archive"], 1, "/nonexistent/archive"),
        (&["run"], 125, "IMAGE"),
        (&["run", "--bogus", "x"], 125, "--bogus"),
        (&["run", "-m", "lots", "x"], 125, "lots"),
        (&["run", "-d", "x"], 125, "background"),
        (&["run", "-v", "data:/x", "x"], 125, "named volumes"),
        (&["run", "x"], 125, "no layerd listens"),
        (&["run", "./nonexistent.tar"], 125, "nonexistent.tar"),
    ] {
        let finished = layerctl().env("LAYERD_SOCKET", socket).args(arguments).finish();
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(message), "{arguments:?}: {finished:?}");
        assert_eq!(finished.stdout.is_empty(), code != 0, "{arguments:?}: {finished:?}");
    }
}

#[test]
fn errors_of_the_daemon_are_told_as_they_are() {
    let daemon = Daemon::start();
    for (arguments, code, message) in [
        (&["rmi", "nobody", "noone"][..], 1, "noone"),
        (&["tag", "nobody", "x"], 1, "nobody"),
        (&["rm", "nobody"], 1, "nobody"),
        (&["diff", "nobody"], 1, "nobody"),
        (&["commit", "nobody"], 1, "nobody"),
        (&["inspect", "nobody"], 1, "no such container, image or layer: nobody"),
        (&["images", "--filter", "before=nobody"], 1, "nobody"),
        (&["import", "/dev/null"], 1, "/dev/null"),
        (&["run", "nobody"], 125, "nobody"),
    ] {
        let finished = daemon.layerctl(arguments);
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(message), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.starts_with("layerctl: "), "{arguments:?}: {finished:?}");
    }
}

#[test]
fn images_are_listed_as_docker_lists_them() {
    let daemon = daemon_with_images();
    let list = |arguments: &[&str]| {
        let mut all = vec!["images"];
        all.extend(arguments);
        daemon.layerctl(all).ok()
    };
    let table = list(&[]);
    let mut lines = table.lines();
    let heading = lines.next().expect("a heading");
    let words: Vec<_> = heading.split_whitespace().collect();
    assert_eq!(words, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    let rows: Vec<Vec<_>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let names: Vec<_> = rows.iter().map(|row| format!("{}:{}", row[0], row[1])).collect();
    assert_eq!(names, ["app:1", "app:latest", "base:1"], "newest first, a row a name: {table}");
    assert_eq!(rows[0][2].len(), 12, "ids are short: {table}");
    assert!(table.contains(" ago "), "ages: {table}");

    assert_eq!(list(&["-q"]).lines().count(), 2, "each id once");
    assert_eq!(list(&["-q", "--no-trunc"]).lines().next().map(str::len), Some(71), "ids in full");
    let format = "{{.Repository}}:{{.Tag}}";
    for (arguments, expected) in [
        (&["app"][..], "app:1\napp:latest\n"),
        (&["app:1"], "app:1\n"),
        (&["*:1"], "app:1\nbase:1\n"),
        (&["none"], ""),
        (&["--filter", "label=tier"], "app:1\napp:latest\n"),
        (&["--filter", "label=tier=db"], ""),
        (&["--filter", "before=app:1"], "base:1\n"),
        (&["--filter", "since=base:1", "--filter", "reference=app:l*"], "app:latest\n"),
        (&["--filter", "dangling=true"], ""),
        (&["--filter", "dangling=false", "base"], "base:1\n"),
    ] {
        let mut all = vec!["--format", format];
        all.extend(arguments);
        assert_eq!(list(&all), expected, "{arguments:?}");
    }
    assert_eq!(
        list(&["--format", "table {{.Tag}}\\t{{.Driver}}", "base"]),
        "TAG   DRIVER\n1     vfs\n"
    );
    let row = parse(&list(&["--format", "json", "base"]));
    assert_eq!(row["Repository"], "base", "{row}");
}

#[test]
fn json_is_what_the_api_says() {
    let daemon = daemon_with_images();
    let images = parse(&daemon.layerctl(["--json", "images"]).ok());
    let names: Vec<_> = images.as_array().expect("an array").iter().map(|i| &i["names"]).collect();
    let expected = [
        json!(["docker.io/library/app:1", "docker.io/library/app:latest"]),
        json!(["docker.io/library/base:1"]),
    ];
    assert_eq!(names, expected.iter().collect::<Vec<_>>(), "full names, newest first");
    let details = parse(&daemon.layerctl(["inspect", "app:1"]).ok());
    assert_eq!(details[0]["config"]["config"]["Cmd"], json!(["/app/run"]), "the config");
    assert_eq!(details[0]["layers"].as_array().map(Vec::len), Some(2), "the layers");
    let format =
        ["inspect", "--format", "{{.image.platform}} {{json .config.config.Cmd}}", "base:1"];
    let line = daemon.layerctl(format).ok();
    assert!(line.starts_with("linux/") && line.ends_with(" [\"sh\"]\n"), "{line}");
    let info = parse(&daemon.layerctl(["info", "--json"]).ok());
    assert_eq!((&info["images"], &info["driver"]), (&json!(2), &json!("vfs")), "{info}");
}

/// What the other clients keep shows only where it is asked for, and then whose it is.
#[test]
fn snapshots_of_other_clients_stay_apart() {
    let daemon = daemon_with_images();
    let client = daemon.client();
    let request = CreateContainerRequest { image: "base:1".to_owned(), ..Default::default() };
    let container = client.create_container(&request).expect("a container").id;
    let request = SnapshotRequest { key: "mine".to_owned(), ..SnapshotRequest::default() };
    client.prepare(&request).expect("a snapshot of the API");
    let mut containerd = Grpc::connect(&daemon.socket(), "layerd").expect("a gRPC client");
    containerd.prepare("k8s.io/1/work", "").expect("prepare over gRPC");
    containerd.commit("k8s.io/1/work", "k8s.io/2/done").expect("commit over gRPC");
    containerd.prepare("mine", "k8s.io/2/done").expect("a key that another client has too");
    let mut docker = Docker::connect(&daemon.socket()).expect("a client of the plugin");
    docker.create("0123abcd", "").expect("a layer of Docker");
    let tar = archive::layer(&[("etc/", ""), ("etc/file", &"x".repeat(100_000))]);
    docker.apply("0123abcd", &tar).expect("a tar");

    let list = |arguments: &[&str]| daemon.layerctl([&["snapshots"], arguments].concat()).ok();
    let format = ["--format", "{{.Owner}} {{.Kind}} {{.Key}} {{.Driver}} <{{.Parent}}>"];
    let base = client.image("base:1").expect("the image").layers[0].chain_id.clone();
    let own =
        [format!("layerd active {container} vfs <{base}>"), "v1 active mine vfs <>".to_owned()];
    assert_eq!(list(&format).lines().collect::<Vec<_>>(), own, "layerd's own");
    let theirs = [
        "containerd/layerd committed k8s.io/2/done vfs <>",
        "containerd/layerd active mine vfs <k8s.io/2/done>",
        "docker committed 0123abcd vfs <>",
    ];
    let all: Vec<_> = theirs.into_iter().chain(own.iter().map(String::as_str)).collect();
    let listed = list(&[&format[..], &["--all"]].concat());
    assert_eq!(listed.lines().collect::<Vec<_>>(), all, "every client's");
    assert_eq!(list(&["-q"]), format!("{container}\nmine\n"), "keys alone");
    let heading = list(&["-a"]);
    let heading: Vec<_> = heading.lines().next().expect("one").split_whitespace().collect();
    assert_eq!(heading, ["OWNER", "KIND", "DRIVER", "SIZE", "CREATED", "KEY", "PARENT"]);

    let told = parse(&list(&["-a", "--json"]));
    let told = told.as_array().expect("an array");
    assert!(told.iter().all(|row| row["usage"]["inodes"].is_u64()), "all are measured: {told:?}");
    let docker_layer = told.iter().find(|row| row["namespace"] == "docker").expect("Docker's");
    let bytes = docker_layer["usage"]["bytes"].as_u64().expect("bytes");
    assert!((100_000..200_000).contains(&bytes), "what it takes: {docker_layer}");

    // Neither is taken for one of layerd's images or containers, nor can be removed as its own.
    for command in [&["images", "-a", "-q"][..], &["ps", "-a", "-q"]] {
        let shown = daemon.layerctl(command).ok();
        assert_eq!(shown.lines().count(), if command[0] == "ps" { 1 } else { 2 }, "{command:?}");
    }
    client.remove_snapshot("0123abcd").expect_err("another client's key");
    client.remove_snapshot("mine").expect("its own");
    assert!(containerd.exists("mine").expect("stat"), "the other client's stays");
    assert_eq!(client.snapshots().expect("a list").len(), 0, "its own alone");
}

#[test]
fn an_import_tells_its_progress() {
    let daemon = Daemon::start();
    let path = daemon.dir().join("images.tar");
    write_images(&path);
    let import = |arguments: &[&str]| {
        let path = path.to_str().expect("UTF-8");
        let mut all = vec!["import", path];
        all.extend(arguments);
        daemon.layerctl(all)
    };
    let first = import(&[]);
    assert!(first.stderr.contains("image ") && first.stderr.contains("of 2 layers"), "{first:?}");
    assert!(first.stderr.contains(": done\n"), "each layer is applied: {first:?}");
    let mut loaded: Vec<_> = first.stdout.lines().collect();
    loaded.sort_unstable();
    let expected = ["Loaded image: app:1", "Loaded image: app:latest", "Loaded image: base:1"];
    assert_eq!(loaded, expected, "{first:?}");
    let second = import(&["--json"]);
    assert!(!second.stderr.contains(": done\n"), "nothing is applied twice: {second:?}");
    assert_eq!(parse(&second.stdout).as_array().map(Vec::len), Some(2), "{second:?}");

    let rootfs = daemon.dir().join("rootfs.tar");
    archive::rootfs(&rootfs, &[("etc/", ""), ("etc/issue", "x\n")]);
    let named = ["import", "--name", "issue:2", rootfs.to_str().expect("UTF-8")];
    assert_eq!(daemon.layerctl(named).ok(), "Loaded image: issue:2\n", "a root file system");
}

#[test]
fn names_come_and_go() {
    let daemon = daemon_with_images();
    let id = daemon.layerctl(["images", "-q", "--no-trunc", "base"]).ok();
    let id = id.trim_end();
    assert_eq!(daemon.layerctl(["tag", "base:1", "other/base"]).ok(), "");
    let names = daemon.layerctl(["inspect", "--format", "{{.image.names}}", "other/base:latest"]);
    assert!(names.ok().contains("docker.io/other/base:latest"), "the new name");
    assert_eq!(daemon.layerctl(["rmi", id]).code, Some(1), "by id with two names");
    let removed = daemon.layerctl(["rmi", "other/base"]).ok();
    assert_eq!(removed, "Untagged: other/base:latest\n", "the image has another name");
    let removed = daemon.layerctl(["rmi", "nobody", "app:1", "app:latest"]);
    assert_eq!(removed.code, Some(1), "one of them failed: {removed:?}");
    assert!(removed.stdout.contains("Untagged: app:latest\nDeleted: sha256:"), "{removed:?}");
    let removed = daemon.layerctl(["rmi", "-f", id]).ok();
    assert!(removed.contains(&format!("Deleted: {id}\n")), "{removed}");
    assert_eq!(daemon.layerctl(["images", "-q"]).ok(), "", "all are gone");
}

#[test]
fn prune_asks_first() {
    let daemon = daemon_with_images();
    daemon.layerctl(["tag", "base:1", "app:1"]).ok();
    daemon.layerctl(["rmi", "app:latest"]).ok();
    let asked = daemon.layerctl(["prune", "-a"]);
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), ""), "no answer is no: {asked:?}");
    assert!(asked.stderr.contains("[y/N]"), "{asked:?}");
    let pruned = daemon.layerctl(["prune", "-a", "-f"]).ok();
    assert!(pruned.contains("Total reclaimed space: "), "{pruned}");
    assert_eq!(daemon.layerctl(["images", "-q"]).ok(), "", "no container uses any");
}

#[test]
fn containers_are_listed_and_removed() {
    let daemon = daemon_with_images();
    let request = layerd_api::CreateContainerRequest {
        image: "base:1".to_owned(),
        name: Some("one".to_owned()),
        command: vec!["echo".to_owned(), "a long word".repeat(4)],
        ..Default::default()
    };
    let container = daemon.client().create_container(&request).expect("a container");
    assert_eq!(container.mounts.len(), 1, "its root: {container:?}");
    let taken = daemon.client().create_container(&request).expect_err("the name is taken");
    assert_eq!(taken.kind(), Some("already_exists"), "{taken}");

    assert_eq!(daemon.layerctl(["ps", "-q"]).ok(), "", "it does not run");
    let table = daemon.layerctl(["ps", "-a"]).ok();
    let row = table.lines().nth(1).expect("a row");
    assert!(row.starts_with(&container.id[..12]) && row.ends_with("   one"), "{table}");
    assert!(row.contains("   base:1   \"echo a long worda l…\"   "), "{table}");
    assert!(row.contains("   Created   "), "{table}");
    let ids = daemon.layerctl(["ps", "-q", "--filter", "status=created"]).ok();
    assert_eq!(ids, format!("{}\n", &container.id[..12]), "the filter implies -a");
    let shown = daemon.layerctl(["inspect", "--format", "{{.state}} {{.name}}", "one"]).ok();
    assert_eq!(shown, "created one\n");

    let root = PathBuf::from(&container.mounts[0].source);
    std::fs::write(root.join("etc/new"), "x").expect("write into the container");
    std::fs::remove_file(root.join("etc/motd")).expect("remove from the container");
    let diff = daemon.layerctl(["diff", "one"]).ok();
    assert!(diff.contains("A /etc/new\n") && diff.contains("D /etc/motd\n"), "{diff}");

    let in_use = daemon.layerctl(["rmi", "base:1"]);
    assert_eq!(in_use.code, Some(1), "a container uses it: {in_use:?}");
    let id = daemon.layerctl(["commit", "-m", "why", "-a", "me", "one", "made:1"]).ok();
    let made = daemon.layerctl(["inspect", "made:1"]).ok();
    let made = parse(&made);
    assert_eq!(made[0]["image"]["id"], id.trim_end(), "the id is printed");
    assert_eq!(made[0]["config"]["author"], "me", "{made}");
    assert_eq!(daemon.layerctl(["rm", "one"]).ok(), "one\n");
    assert_eq!(daemon.layerctl(["ps", "-aq"]).ok(), "", "it is gone");
    daemon.layerctl(["rmi", "base:1"]).ok();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let daemon = daemon_with_images();
    for arguments in [&["images"][..], &["--json", "images"], &["inspect", "app:1"], &["info"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = layerctl();
        command.arg("--socket").arg(daemon.socket()).args(arguments);
        let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let output = output.spawn().and_then(std::process::Child::wait_with_output);
        let output = output.expect("layerctl runs");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(output.stderr, b"", "{arguments:?} says nothing");
    }
}

/// layerctl with a private daemon on `root`.
fn private(dir: &TempDir, root: &Path, arguments: &[&str]) -> Finished {
    let mut command = layerctl();
    command.env("LAYERD_ROOT", root).env("XDG_RUNTIME_DIR", dir.path());
    command.args(arguments).finish()
}

#[test]
fn without_a_daemon_a_private_one_is_started() {
    if Path::new(layerd_api::DEFAULT_SOCKET).exists() {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!ci, "a daemon has the default socket");
        eprintln!("cannot run here: a daemon has the default socket");
        return;
    }
    let dir = TempDir::new().expect("a temporary directory");
    let store = TempDir::new().expect("a temporary directory");
    let root = store.path().join("root");
    let archive = store.path().join("images.tar");
    write_images(&archive);
    let archive = archive.to_str().expect("UTF-8");
    private(&dir, &root, &["import", archive, "--driver", "vfs"]).ok();
    let names = private(&dir, &root, &["images", "--format", "{{.Repository}}", "base"]).ok();
    assert_eq!(names, "base\n", "the store outlives the daemon");
    let left = std::fs::read_dir(dir.path()).expect("the directory").count();
    assert_eq!(left, 0, "the socket's directory is gone");

    let mut other = command(store.path());
    let mut other = other.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("layerd runs");
    while !store.path().join("layerd.sock").exists() {
        std::thread::yield_now();
    }
    let refused = private(&dir, &root, &["images"]);
    let killed = other.kill().and_then(|()| other.wait());
    assert_eq!(refused.code, Some(1), "the store is in use: {refused:?}");
    assert!(refused.stderr.contains("private layerd"), "{refused:?}");
    killed.expect("the other daemon is ended");
}

/// An archive whose one image can run `sh`.
fn runnable(dir: &Path) -> PathBuf {
    let path = dir.join("runnable.tar");
    let layers = vec![archive::layer_with_busybox(&[])];
    archive::docker_of_tars(&path, "sh:1", layers, &json!({"Env": ["PATH=/bin"]}));
    path
}

#[test]
fn a_private_daemon_lives_as_long_as_its_container() {
    if !host::provides(&["busybox"]) || Path::new(layerd_api::DEFAULT_SOCKET).exists() {
        return;
    }
    let dir = TempDir::new().expect("a temporary directory");
    let store = TempDir::new().expect("a temporary directory");
    let root = store.path().join("root");
    let archive = runnable(store.path());
    let archive = archive.to_str().expect("UTF-8");
    let script = "echo $GREETING; exit 7";
    let run = ["run", "--rm", "-e", "GREETING=hi", archive, "sh", "-c", script];
    let ran = private(&dir, &root, &run);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "hi\n"), "{ran:?}");
    let left = private(&dir, &root, &["ps", "-aq"]);
    assert_eq!(left.ok(), "", "the runtime could still have it removed");
}

#[test]
fn a_running_container_is_removed_by_force_alone() {
    if !host::provides(&["busybox"]) {
        return;
    }
    let daemon = Daemon::start();
    let archive = runnable(daemon.dir());
    daemon.layerctl([Path::new("import"), &archive]).ok();
    let mut command = layerctl();
    command.arg("--socket").arg(daemon.socket());
    command.args(["run", "--name", "one", "sh:1", "sh", "-c", "echo up; exec sleep 600"]);
    let mut run = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("layerctl");
    let mut up = [0; 3];
    let stdout = run.stdout.as_mut().expect("its output is piped");
    stdout.read_exact(&mut up).expect("the container runs");
    // The container may speak before its runtime has reported it.
    let deadline = Instant::now() + Duration::from_secs(60);
    let listed = loop {
        let listed = daemon.layerctl(["ps", "--format", "{{.Names}} {{.State}}"]);
        if !listed.stdout.is_empty() || Instant::now() > deadline {
            break listed;
        }
    };
    let refused = daemon.layerctl(["rm", "one"]);
    let removed = daemon.layerctl(["rm", "-f", "one"]);
    let status = run.wait().expect("layerctl ends with the container");
    assert_eq!(listed.ok(), "one running\n");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(removed.ok(), "one\n");
    assert_eq!(status.code(), Some(137), "killed");
    assert_eq!(daemon.layerctl(["ps", "-aq"]).ok(), "", "it is gone");
}
