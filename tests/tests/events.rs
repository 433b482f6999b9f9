//! What the daemon tells of itself: the stream of events, and the figures for Prometheus.

#![allow(clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use layerd_api::{
    Client, CommitContainerRequest, CommitSnapshotRequest, CreateContainerRequest, Event,
    EventLine, EventQuery, SnapshotRequest, StateRequest, TagRequest,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tests::archive::{self, Image};
use tests::daemon::{Daemon, Finish, layerctl};
use tests::docker::Docker;
use tests::exposition::Samples;
use tests::grpc::Grpc;

/// How long something may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// An image of two layers, as an archive.
fn import(daemon: &Daemon) {
    let path = daemon.dir().join("app.tar");
    archive::docker(
        &path,
        &[Image {
            names: &["app:1"],
            layers: &[&[("etc/", ""), ("etc/one", "1\n")], &[("etc/two", "2\n")]],
            created: "2024-01-01T00:00:00Z",
            config: &json!({"Cmd": ["sh"]}),
        }],
    );
    daemon.layerctl(["import", path.to_str().expect("UTF-8")]).ok();
}

/// All that the daemon remembers, up to now.
fn remembered(client: &Client, filter: &str) -> Vec<Event> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let query = EventQuery {
        since: Some("0".to_owned()),
        until: Some(format!("{}.{:09}", now.as_secs(), now.subsec_nanos())),
        filter: Some(filter.to_owned()).filter(|filter| !filter.is_empty()),
    };
    let lines = client.events(&query).expect("a stream");
    let events = lines.map(|line| match line.expect("a line") {
        EventLine::Event(event) => event,
        EventLine::Lost(lost) => panic!("nothing can be lost: {lost:?}"),
    });
    events.collect()
}

/// Type and action, and what says which one.
fn told(event: &Event) -> String {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let which = match event.kind.as_str() {
        "snapshot" => format!("{} {}", attribute("dialect").expect("a dialect"), event.id),
        "container" => attribute("code").unwrap_or_default().to_owned(),
        "operation" => attribute("kind").expect("a kind").to_owned(),
        "image" => attribute("name").unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    format!("{} {} {which}", event.kind, event.action).trim_end().to_owned()
}

/// Does everything once, in every dialect; the answer is the container that was made for it.
fn live(daemon: &Daemon) -> String {
    let client = daemon.client();
    import(daemon);
    client.tag(&TagRequest { image: "app:1".into(), name: "app:2".into() }).expect("a name");
    let request = SnapshotRequest { key: "work".into(), ..SnapshotRequest::default() };
    client.prepare(&request).expect("a snapshot");
    let commit = CommitSnapshotRequest {
        key: "work".into(),
        name: "done".into(),
        labels: Default::default(),
    };
    client.commit_snapshot(&commit).expect("a commit");
    let view =
        SnapshotRequest { key: "look".into(), parent: Some("done".into()), view: true, ..request };
    client.prepare(&view).expect("a view");
    client.snapshot_mounts("look").expect("mounts");
    client.remove_snapshot("look").expect("removed");
    client.remove_snapshot("done").expect("removed");
    let mut docker = Docker::connect(&daemon.socket()).expect("a connection");
    docker.create("layer", "").expect("a layer");
    docker.get("layer").expect("a mount");
    docker.put("layer").expect("put back");
    docker.remove("layer").expect("removed");
    let mut grpc = Grpc::connect(&daemon.socket(), "layerd").expect("a connection");
    grpc.prepare("key", "").expect("a snapshot");
    grpc.mounts("key").expect("mounts");
    grpc.commit("key", "name").expect("a commit");
    grpc.remove("name").expect("removed");
    grpc.commit("nothing", "name").expect_err("there is none: an answer, not a failure");
    let create = CreateContainerRequest { image: "app:1".into(), ..Default::default() };
    let container = client.create_container(&create).expect("a container");
    let pid = i32::try_from(std::process::id()).expect("a process id");
    let state = |state: &str, pid, exit_code| StateRequest { state: state.into(), pid, exit_code };
    client.set_container_state(&container.id, &state("running", Some(pid), None)).expect("started");
    client.set_container_state(&container.id, &state("exited", None, Some(3))).expect("ended");
    let commit = CommitContainerRequest { name: Some("new:1".into()), ..Default::default() };
    client.commit_container(&container.id, &commit).expect("an image");
    client.remove_container(&container.id, false).expect("removed");
    let bad = TagRequest { image: "app:1".into(), name: "NO NAME".into() };
    client.tag(&bad).expect_err("no name");
    for name in ["new:1", "app:2", "app:1"] {
        daemon.layerctl(["rmi", name]).ok();
    }
    client.gc().expect("a collection");
    container.id
}

#[test]
fn everything_that_is_done_is_told_in_order() {
    let daemon = Daemon::start();
    let id = live(&daemon);
    let client = daemon.client();
    let events = remembered(&client, "");
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "no gaps: {numbers:?}");
    assert!(events.is_sorted_by(|a, b| a.time <= b.time), "in the order of time");
    let found: Vec<String> = events.iter().map(told).collect();
    let expected = [
        // What was left of a store that was empty is collected at its start.
        "gc run",
        "daemon start",
        "layer create",
        "layer commit",
        "layer create",
        "layer commit",
        "image import",
        "image tag docker.io/library/app:2",
        "snapshot prepare v1 work",
        "snapshot commit v1 done",
        "snapshot view v1 look",
        "snapshot mount v1 look",
        "snapshot remove v1 look",
        "snapshot remove v1 done",
        "snapshot prepare docker layer",
        "snapshot mount docker layer",
        "snapshot unmount docker layer",
        "snapshot remove docker layer",
        "snapshot prepare containerd key",
        "snapshot mount containerd key",
        "snapshot commit containerd name",
        "snapshot remove containerd name",
        &format!("snapshot prepare v1 {id}"),
        "container create",
        "container start",
        "container exit 3",
        "layer create",
        "layer commit",
        "image commit",
        &format!("snapshot remove v1 {id}"),
        "container remove",
        "operation fail invalid_argument",
        "image remove",
        "layer remove",
        "image untag docker.io/library/app:2",
        "image remove",
        "layer remove",
        "layer remove",
        "gc run",
    ];
    assert_eq!(found, expected, "{events:#?}");
    let imported = &events[6];
    assert_eq!(imported.attributes["names"], "docker.io/library/app:1", "{imported:?}");
    assert_eq!(imported.attributes["new_layers"], "2", "{imported:?}");
    assert!(imported.attributes["duration"].parse::<f64>().is_ok_and(|s| s > 0.0), "{imported:?}");
    let commit = &events[3];
    for known in ["driver", "chain_id", "diff_id", "size"] {
        assert!(commit.attributes.contains_key(known), "{known} of {commit:?}");
    }
    let only: Vec<String> =
        remembered(&client, "type=snapshot,dialect=docker,action=mount,action=unmount")
            .iter()
            .map(told)
            .collect();
    assert_eq!(only, ["snapshot mount docker layer", "snapshot unmount docker layer"], "filtered");
}

/// `layerctl events` against a daemon, with what it has printed up to the event `image import`.
fn listening(daemon: &Daemon, arguments: &[&str]) -> (Child, BufReader<impl Read + use<>>) {
    let mut child = layerctl()
        .arg("--socket")
        .arg(daemon.socket())
        .args(["--json", "events", "--since", "0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("layerctl runs");
    let mut out = BufReader::new(child.stdout.take().expect("its output is piped"));
    let mut line = String::new();
    while !line.contains(r#""type":"image","action":"import""#) {
        line.clear();
        assert!(out.read_line(&mut line).expect("its output") > 0, "it ended too early");
    }
    (child, out)
}

fn ended(mut child: Child, when: &str) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    thread::spawn(move || sender.send(child.wait()));
    let Ok(status) = receiver.recv_timeout(PATIENCE) else {
        kill_process(pid, Signal::KILL).expect("it lives");
        panic!("it goes on {when}");
    };
    let status = status.expect("its status");
    assert!(status.success(), "{when}: {status}");
}

#[test]
fn a_stream_ends_with_its_reader_a_signal_or_the_daemon() {
    let mut daemon = Daemon::start();
    import(&daemon);
    let (child, out) = listening(&daemon, &[]);
    drop(out);
    ended(child, "when nobody reads any more");
    for signal in [Signal::INT, Signal::TERM] {
        let (child, out) = listening(&daemon, &[]);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it lives");
        ended(child, "when it is told to");
        drop(out);
    }
    let (child, mut out) = listening(&daemon, &[]);
    daemon.signal(Signal::TERM);
    let status = daemon.wait();
    assert!(status.success(), "a listener holds up no daemon: {status}");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("its output");
    let last = rest.lines().last().expect("the last event");
    assert!(last.contains(r#""type":"daemon","action":"stop""#), "the end is told: {rest}");
    ended(child, "with the daemon");
}

#[test]
fn no_daemon_is_started_to_listen_to() {
    let dir = TempDir::new().expect("a directory");
    let socket = dir.path().join("nobody");
    let finished = layerctl().arg("--socket").arg(&socket).arg("events").finish();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains(&socket.display().to_string()), "{finished:?}");
    for arguments in [
        &["events", "--since", "yesterday"][..],
        &["events", "--format", "table {{.ID}}"],
        &["events", "--format", "{{.ID"],
    ] {
        let finished = layerctl().arg("--socket").arg(&socket).args(arguments).finish();
        assert_eq!(finished.code, Some(2), "{arguments:?}: {finished:?}");
    }
}

#[test]
fn events_come_while_they_happen() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let filter = Some("type=snapshot".to_owned());
    let stream = client.events(&EventQuery { filter, ..EventQuery::default() });
    let mut stream = stream.expect("a stream");
    for round in 0..3 {
        let key = format!("key-{round}");
        client
            .prepare(&SnapshotRequest { key: key.clone(), ..SnapshotRequest::default() })
            .expect("a snapshot");
        let line = stream.next().expect("the stream goes on").expect("a line");
        let EventLine::Event(event) = line else { panic!("lost: {line:?}") };
        assert_eq!((event.id, event.action.as_str()), (key, "prepare"), "what was just done");
    }
    let format = "{{.Action}} {{.ID}} {{.Dialect}}{{.Error}}";
    let text = daemon.layerctl(["events", "--since", "1h", "--until", "0s", "--format", format]);
    assert!(text.stdout.contains("\nprepare key-2 v1\n"), "{text:?}");
    let text = daemon.layerctl(["events", "--since", "1h", "--until", "0s"]).ok();
    assert!(text.contains(" snapshot prepare key-2 (dialect=v1, driver=vfs, "), "{text}");
}

/// One request, and the connection it went over.
fn get(socket: &Path, path: &str, head: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).expect("send");
    BufReader::new(stream)
}

/// Lines of JSON among a head and chunks.
fn lines(stream: BufReader<UnixStream>) -> impl Iterator<Item = EventLine> {
    let lines = stream.lines().map_while(Result::ok);
    lines
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
}

#[test]
fn a_slow_reader_holds_up_nobody_and_is_told_what_it_missed() {
    const REFUSED: u64 = 2500;
    let mut daemon = Daemon::start();
    let client = daemon.client();
    let stream = get(&daemon.socket(), "/v1/events", "");
    let mut begun = String::new();
    let mut stream = stream;
    stream.read_line(&mut begun).expect("the status");
    assert_eq!(begun, "HTTP/1.1 200 OK\r\n", "the stream is open before anything happens");
    let long = "x".repeat(800);
    for _ in 0..REFUSED {
        let bad = TagRequest { image: "nothing".into(), name: format!("NO NAME {long}") };
        client.tag(&bad).expect_err("no name");
    }
    daemon.signal(Signal::TERM);
    // The reader wakes up late; the daemon waits for it as for any request that is under way.
    let mut expected = None;
    let (mut lost, mut read) = (0, 0);
    for line in lines(stream) {
        match line {
            EventLine::Lost(gap) => {
                assert_eq!(gap.kind, "lost", "{gap:?}");
                lost += gap.count;
                expected = expected.map(|expected: u64| expected + gap.count);
            }
            EventLine::Event(event) => {
                assert_eq!(event.seq, expected.unwrap_or(event.seq), "no gap that was not told");
                expected = Some(event.seq + 1);
                read += 1;
            }
        }
    }
    assert!(lost > 0, "{REFUSED} events do not fit anywhere: {read} were read");
    assert_eq!(lost + read, REFUSED + 1, "all that was told, and the daemon's end");
    assert!(daemon.wait().success(), "the daemon ends");
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let daemon = Daemon::start();
    import(&daemon);
    let all = remembered(&daemon.client(), "");
    let (last, rest) = (&all[1], &all[2..]);
    let header = format!("Last-Event-ID: {}\r\n", last.seq);
    let stream = get(&daemon.socket(), "/v1/events?until=9999999999", &header);
    let found: Vec<_> = lines(stream).take(rest.len()).collect();
    let expected: Vec<_> = rest.iter().cloned().map(EventLine::Event).collect();
    assert_eq!(found, expected, "what came behind it");
    for (path, header, part) in [
        ("/v1/events", "Last-Event-ID: last\r\n", "last-event-id"),
        ("/v1/events?since=yesterday", "", "yesterday"),
        ("/v1/events?filter=type", "", "KEY=VALUE"),
    ] {
        let mut answer = String::new();
        get(&daemon.socket(), path, header).read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        assert!(answer.contains(part), "{path} does not say {part}: {answer}");
    }
}

fn scrape(client: &Client) -> Samples {
    let text = client.metrics().expect("figures");
    Samples::parse(&text).unwrap_or_else(|error| panic!("{error}\n---\n{text}"))
}

#[test]
fn figures_are_in_prometheus_format_and_move_with_what_is_done() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let before = scrape(&client);
    import(&daemon);
    let mut docker = Docker::connect(&daemon.socket()).expect("a connection");
    docker.create("layer \"one\"\n", "").expect("a layer");
    docker.create("layer \"one\"\n", "").expect_err("it is there");
    let mut grpc = Grpc::connect(&daemon.socket(), "layerd \"x\"\n\\").expect("a connection");
    for key in ["a", "b", "c"] {
        grpc.prepare(key, "").expect("a snapshot");
    }
    grpc.prepare("a", "").expect_err("it is there");
    grpc.commit("a", "base").expect("a commit");
    let layer = client.layers().expect("layers").remove(0);
    let mut tar = Vec::new();
    let mut reader = client.layer_tar(&layer.chain_id).expect("a tar");
    reader.read_to_end(&mut tar).expect("its bytes");
    let create = CreateContainerRequest { image: "app:1".into(), ..Default::default() };
    client.create_container(&create).expect("a container");
    get(&daemon.socket(), "/no/such/path", "").read_to_string(&mut String::new()).expect("404");
    let after = scrape(&client);

    let moved = |name: &str, labels: &[(&str, &str)]| {
        after.get(name, labels).unwrap_or_default() - before.get(name, labels).unwrap_or_default()
    };
    let operations = |dialect: &str, operation: &str, result: &str| {
        let labels = [("dialect", dialect), ("operation", operation), ("result", result)];
        moved("layerd_operations_total", &labels)
    };
    for (dialect, operation, result, count) in [
        ("docker", "CreateReadWrite", "ok", 1.0),
        ("docker", "CreateReadWrite", "already_exists", 1.0),
        ("containerd", "Prepare", "ok", 3.0),
        ("containerd", "Prepare", "already_exists", 1.0),
        ("containerd", "Commit", "ok", 1.0),
        ("v1", "POST /v1/images/import", "ok", 1.0),
        ("v1", "GET /v1/layers/{chain_id}/tar", "ok", 1.0),
        ("unknown", "unknown", "not_found", 1.0),
        ("v1", "GET /metrics", "ok", 1.0),
    ] {
        let found = operations(dialect, operation, result);
        assert_eq!(found, count, "{dialect} {operation} {result}");
    }
    let prepared = [("dialect", "containerd"), ("operation", "Prepare")];
    assert_eq!(moved("layerd_operation_duration_seconds_count", &prepared), 4.0, "each is timed");
    assert!(moved("layerd_operation_duration_seconds_sum", &prepared) > 0.0, "it takes time");
    let tars: u64 = client.layers().expect("layers").iter().map(|layer| layer.tar_size).sum();
    assert_eq!(moved("layerd_imported_bytes_total", &[]), tars as f64, "both layers' tars");
    assert_eq!(moved("layerd_exported_bytes_total", &[]), tar.len() as f64, "one of them");
    let vfs = ("driver", "vfs");
    assert_eq!(after.get("layerd_images", &[]), Some(1.0), "images");
    assert_eq!(after.get("layerd_layers", &[vfs]), Some(2.0), "layers");
    let on_disk: u64 = client.layers().expect("layers").iter().map(|l| l.kept[0].usage.bytes).sum();
    assert_eq!(after.get("layerd_layers_bytes", &[vfs]), Some(on_disk as f64), "as `du` says");
    let snapshots = |namespace: &str, kind: &str| {
        after.get("layerd_snapshots", &[vfs, ("kind", kind), ("namespace", namespace)])
    };
    assert_eq!(snapshots("containerd/layerd \"x\"\n\\", "active"), Some(2.0), "containerd's");
    assert_eq!(snapshots("containerd/layerd \"x\"\n\\", "committed"), Some(1.0), "containerd's");
    assert_eq!(snapshots("docker", "active"), Some(1.0), "Docker's");
    let containers = after.get("layerd_containers", &[vfs, ("state", "created")]);
    assert_eq!(containers, Some(1.0), "containers");
    assert!(after.get("layerd_connections", &[]) >= Some(3.0), "three clients are connected");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(after.get("layerd_build_info", &version), Some(1.0), "what is running");
    let fds = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid().as_raw_nonzero()));
    let fds = fds.expect("its descriptors").count() as f64;
    let open = after.get("process_open_fds", &[]).expect("descriptors");
    assert!((open - fds).abs() <= 8.0, "{open} of {fds}: as others count them");
    let started = after.get("process_start_time_seconds", &[]).expect("a start");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    assert!((now.as_secs_f64() - started).abs() < 600.0, "it began a moment ago: {started}");
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "layerd_mounts"] {
        assert!(after.names().contains(name), "{name} is missing");
    }
}

#[test]
fn figures_are_for_curl_and_root_alone() {
    let daemon = Daemon::start();
    let curl = Command::new("curl")
        .args(["-sS", "-D", "-", "--unix-socket"])
        .arg(daemon.socket())
        .arg("http://layerd/metrics")
        .finish()
        .ok();
    let (head, body) = curl.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    Samples::parse(body).expect("figures");
}
