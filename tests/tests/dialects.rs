//! Bad input to the engines' dialects over the raw socket: the right error, nothing left, others unhindered.

#![allow(clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tests::archive;
use tests::daemon::Daemon;
use tests::root::mounts_below;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(60);

/// Docker as a client of the socket.
#[derive(Clone, Debug)]
struct Docker(PathBuf);

impl Docker {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.0).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// Sends one request, and gives status and JSON body of its answer.
    fn post(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = self.connect();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: /run/docker/plugins/layerd.sock\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("the head is taken");
        stream.write_all(body).expect("the body is taken, even that of what is refused");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer within the time");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{path}: {e}: {body}")))
    }

    fn call(&self, method: &str, request: &Value) -> (u16, Value) {
        self.post(&format!("/GraphDriver.{method}"), request.to_string().as_bytes())
    }

    #[track_caller]
    fn ok(&self, method: &str, request: &Value) -> Value {
        let (status, answer) = self.call(method, request);
        assert_eq!(status, 200, "{method} {request}: {answer}");
        answer
    }

    fn exists(&self, id: &str) -> bool {
        self.ok("Exists", &json!({ "ID": id }))["Exists"] == true
    }

    fn changes(&self, id: &str) -> Value {
        self.ok("Changes", &json!({ "ID": id }))["Changes"].clone()
    }
}

/// A daemon with its client.
fn start() -> (Daemon, Docker) {
    let daemon = Daemon::start();
    let docker = Docker(daemon.socket());
    (daemon, docker)
}

fn tar() -> Vec<u8> {
    archive::layer(&[("etc/", ""), ("etc/file", &"x".repeat(100_000))])
}

#[test]
fn malformed_requests_are_refused() {
    let (_daemon, docker) = start();
    let long = format!(r#"{{"ID":"{}"}}"#, "x".repeat(10 << 20));
    for (body, status) in [
        ("{", 400),
        ("[]x", 400),
        (r#"{"ID":7}"#, 400),
        (r#"{"ID":"a","StorageOpt":["size"]}"#, 400),
        (r#"{"ID":"a","Parent":{}}"#, 400),
        ("\"\\ud800\"", 400),
        (&long, 413),
    ] {
        let said = &body[..body.len().min(60)];
        let (found, answer) = docker.post("/GraphDriver.Create", body.as_bytes());
        assert_eq!(found, status, "{said}: {answer}");
    }
    let (status, answer) = docker.call("NoSuchCall", &json!({}));
    assert_eq!(status, 404, "{answer}");
    docker.ok("Create", &json!({ "ID": "a", "Parent": "", "MountLabel": "", "New": [1] }));
    assert!(docker.exists("a"), "unknown fields do not matter");
}

/// A client writes head and body by two writes, and an answer may be known before the second.
#[test]
fn a_body_that_nobody_asks_for_is_taken_all_the_same() {
    let (_daemon, docker) = start();
    let mut stream = docker.connect();
    let paths = [
        ("/v1/gc", 200),
        ("/v1/no-such-call", 404),
        ("/GraphDriver.Capabilities", 200),
        ("/GraphDriver.ApplyDiff", 400),
    ];
    for (path, status) in paths {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a head");
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out");
        let early = stream.read(&mut [0]).map_err(|e| e.kind());
        assert_eq!(early, Err(ErrorKind::WouldBlock), "{path}: no answer before the body is there");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.write_all(b"{}").unwrap_or_else(|e| panic!("{path}: the body is refused: {e}"));
        let (found, answer) = read_answer(&mut stream);
        assert_eq!(found, status, "{path}: {answer}");
    }
    stream
        .write_all(b"POST /v1/gc HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n")
        .expect("a head");
    let (status, answer) = read_answer(&mut stream);
    assert_eq!(status, 200, "a body that never comes is not waited for long: {answer}");
    assert_eq!(stream.read(&mut [0]).expect("an end"), 0, "but the connection has no more use");
}

#[test]
fn a_body_that_was_asked_for_is_taken_though_it_is_too_long() {
    let (_daemon, docker) = start();
    let mut stream = docker.connect();
    let head = "POST /v1/prune HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
                content-length: 4194304\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a head");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).expect("the daemon asks for the body");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&vec![b' '; 4 << 20]).expect("the body is taken");
    let (status, answer) = read_answer(&mut stream);
    assert_eq!(status, 413, "{answer}");
    stream.write_all(b"POST /v1/gc HTTP/1.1\r\nhost: x\r\n\r\n").expect("another request");
    let (status, answer) = read_answer(&mut stream);
    assert_eq!(status, 200, "{answer}");
}

/// One answer on a connection that is kept.
fn read_answer(stream: &mut UnixStream) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(char::from(byte[0]));
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).expect("a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    (status, String::from_utf8(body).expect("text"))
}

#[test]
fn ids_are_only_names() {
    let (daemon, docker) = start();
    let long = "x".repeat(4096);
    for id in ["../../escape", "/absolute", "..", ".", "a/b/c", "with space\n", "é\u{202e}", &long]
    {
        let (status, answer) = docker.call("Create", &json!({ "ID": id }));
        let said: String = id.chars().take(40).collect();
        if status != 200 {
            assert_eq!(status, 400, "{said:?}: {answer}");
            assert!(!docker.exists(id), "{said:?} was refused and is there");
            continue;
        }
        assert!(docker.exists(id), "{said:?} is there");
        let dir = docker.ok("Get", &json!({ "ID": id }))["Dir"].clone();
        let dir = PathBuf::from(dir.as_str().expect("a directory"));
        let dir = dir.canonicalize().expect("the directory is there");
        assert!(dir.starts_with(daemon.root()), "{said:?} leads to {}", dir.display());
        docker.ok("Put", &json!({ "ID": id }));
        docker.ok("Remove", &json!({ "ID": id }));
        assert!(!docker.exists(id), "{said:?} is removed");
    }
    let (status, answer) = docker.call("Create", &json!({ "ID": "" }));
    assert_eq!(status, 400, "an empty id: {answer}");
    assert!(mounts_below(&daemon.root()).is_empty(), "mounts are left");
}

#[test]
fn a_body_that_is_no_whole_tar_leaves_nothing() {
    let (daemon, docker) = start();
    let whole = tar();
    docker.ok("Create", &json!({ "ID": "a" }));
    let path = "/GraphDriver.ApplyDiff?id=a&parent=";
    for (what, body) in [
        ("empty", &whole[..0]),
        ("without its end", &whole[..whole.len() - 1024]),
        ("cut in a file", &whole[..50_000]),
        ("cut in a header", &whole[..700]),
        ("no tar", &[b'x'; 4096][..]),
    ] {
        let (status, answer) = docker.post(path, body);
        assert!(status >= 400, "{what} is accepted: {answer}");
        assert!(answer["Err"].is_string(), "{what}: no reason: {answer}");
        assert_eq!(docker.changes("a"), Value::Null, "{what}: something is left");
    }
    // The connection breaks off in the middle of the announced length.
    let mut stream = docker.connect();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", whole.len());
    stream.write_all(head.as_bytes()).expect("a head");
    stream.write_all(&whole[..50_000]).expect("half a body");
    drop(stream);
    // Waits until the broken one is given up: one layer is applied to by one client at a time.
    let (status, answer) = (0..200)
        .map(|_| {
            thread::sleep(Duration::from_millis(20));
            docker.post(path, &whole)
        })
        .find(|(status, _)| *status == 200)
        .expect("the whole tar is taken after all");
    assert_eq!((status, answer["Size"].as_i64()), (200, Some(100_000)), "{answer}");
    docker.ok("Remove", &json!({ "ID": "a" }));
    let layers = std::fs::read_dir(daemon.root().join("vfs/layers")).expect("the layers");
    assert_eq!(layers.count(), 0, "layers are left");
    let (status, answer) = docker.post("/GraphDriver.ApplyDiff?id=nobody&parent=", &whole);
    assert_eq!(status, 404, "no such layer: {answer}");
}

#[test]
fn a_client_that_stalls_stalls_nobody_else() {
    let (_daemon, docker) = start();
    let whole = tar();
    let stalled: Vec<_> = (0..40)
        .map(|number| {
            docker.ok("Create", &json!({ "ID": format!("stalled-{number}") }));
            let mut stream = docker.connect();
            let head = format!(
                "POST /GraphDriver.ApplyDiff?id=stalled-{number}&parent= HTTP/1.1\r\nhost: x\r\n\
                 content-length: {}\r\n\r\n",
                whole.len()
            );
            stream.write_all(head.as_bytes()).expect("a head");
            stream.write_all(&whole[..50_000]).expect("half a body");
            stream
        })
        .collect();
    for number in 0..5 {
        let id = format!("quick-{number}");
        docker.ok("Create", &json!({ "ID": id }));
        let (status, answer) =
            docker.post(&format!("/GraphDriver.ApplyDiff?id={id}&parent="), &whole);
        assert_eq!(status, 200, "{id}: {answer}");
        docker.ok("Remove", &json!({ "ID": id }));
    }
    // Those that went slow are served when they go on.
    for mut stream in stalled {
        stream.write_all(&whole[50_000..]).expect("the rest");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200", "a client that was slow");
    }
}

#[test]
fn broken_http2_ends_its_connection_alone() {
    let (_daemon, docker) = start();
    for (what, frames) in [
        // RFC 9113, section 6.5: SETTINGS is about the connection, stream 0.
        ("settings on a stream", &b"\0\0\0\x04\0\0\0\0\x01"[..]),
        // Section 4.2: a frame as large as the length can say.
        ("a frame too large", &b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\0\0\0\0\0\x01"[..]),
        // Section 4.3: a header block that no decoder takes.
        ("broken headers", &b"\0\0\0\x04\0\0\0\0\0\0\0\x02\x01\x05\0\0\0\x01\xff\xff"[..]),
        ("no frames", &[b'x'; 64][..]),
    ] {
        let mut stream = docker.connect();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("a preface");
        stream.write_all(frames).expect("frames");
        let mut answer = Vec::new();
        // Reset or closed, but not left open.
        let end = stream.read_to_end(&mut answer).map_err(|error| error.kind());
        assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{what}: {end:?}");
        assert!(!docker.exists("nobody"), "{what}: others are served");
    }
}

#[test]
fn one_id_is_made_once() {
    let (_daemon, docker) = start();
    let together = Arc::new(Barrier::new(8));
    let clients = (0..8).map(|_| {
        let (docker, together) = (docker.clone(), Arc::clone(&together));
        thread::spawn(move || {
            together.wait();
            docker.call("Create", &json!({ "ID": "one" })).0
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut statuses: Vec<_> = clients.into_iter().map(|c| c.join().expect("a client")).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409], "one of them makes it");
    docker.ok("Remove", &json!({ "ID": "one" }));
    assert!(!docker.exists("one"), "one removal is enough");
}

#[test]
fn a_mounted_layer_is_not_removed_under_its_users() {
    let daemon = Daemon::start_with(["--driver", "overlay2"]);
    let docker = Docker(daemon.socket());
    docker.ok("Create", &json!({ "ID": "used" }));
    let dir = docker.ok("Get", &json!({ "ID": "used" }))["Dir"].clone();
    let dir = PathBuf::from(dir.as_str().expect("a directory"));
    std::fs::write(dir.join("file"), "kept").expect("a file in the layer");
    let (status, answer) = docker.call("Remove", &json!({ "ID": "used" }));
    assert_eq!(status, 409, "it is in use: {answer}");
    let kept = std::fs::read_to_string(dir.join("file")).expect("the file");
    assert_eq!(kept, "kept", "nothing of it is gone");
    docker.ok("Put", &json!({ "ID": "used" }));
    docker.ok("Remove", &json!({ "ID": "used" }));
    assert!(mounts_below(&daemon.root()).is_empty(), "mounts are left");
}
