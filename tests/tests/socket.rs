//! The daemon's socket: who may have it, what it answers, and that one client cannot harm another.

#![allow(clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::daemon::{Daemon, Finish, command};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(60);

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Sends the bytes and gives status and JSON body of the one answer.
fn ask(socket: &Path, request: &str) -> (u16, Value) {
    let mut stream = connect(socket);
    // The daemon may refuse and close before it has read everything.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer within the time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{request}: {e}: {body}")))
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// Fails instead of hanging when `work` waits for another client.
fn within_patience<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{what}: {e}"))
}

#[test]
fn bad_requests_are_told_in_json() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    for (method, path, body, status, kind, part) in [
        ("GET", "/v2/info", "", 404, "not_found", "/v2/info"),
        ("GET", "/", "", 404, "not_found", "there is no /"),
        ("DELETE", "/v1/info", "", 405, "invalid_argument", "does not take DELETE"),
        ("POST", "/v1/images/import", "{", 400, "invalid_argument", "EOF"),
        ("POST", "/v1/images/import", "", 400, "invalid_argument", "`path`"),
        ("POST", "/v1/images/import", r#"{"path":"x"}"#, 400, "invalid_argument", "absolute"),
        ("POST", "/v1/images/tag", r#"{"image":"a","name":7}"#, 400, "invalid_argument", "name: "),
        ("POST", "/v1/containers/x/state", r#"{"state":"gone"}"#, 400, "invalid_argument", "gone"),
        (
            "POST",
            "/v1/containers/x/state",
            r#"{"state":"running"}"#,
            400,
            "invalid_argument",
            "pid",
        ),
        ("GET", "/v1/snapshots/usage", "", 400, "invalid_argument", "key"),
        ("GET", "/v1/containers?all=maybe", "", 400, "invalid_argument", "all"),
        ("GET", "/v1/images/no/such:image", "", 404, "not_found", "no/such:image"),
        ("GET", "/v1/containers/nobody", "", 404, "not_found", "nobody"),
        ("DELETE", "/v1/containers/nobody", "", 404, "not_found", "nobody"),
        ("GET", "/v1/snapshots/usage?key=a%20b%2Fc", "", 404, "not_found", "a b/c"),
    ] {
        let (found, answer) = ask(&socket, &request(method, path, body));
        let case = format!("{method} {path} {body}: {answer}");
        assert_eq!(found, status, "status of {case}");
        assert_eq!(answer["kind"], kind, "kind of {case}");
        let message = answer["message"].as_str().expect("a message");
        assert!(message.contains(part), "{case} does not say {part:?}");
    }
}

#[test]
fn a_body_has_a_limit() {
    let daemon = Daemon::start();
    let body = format!("{{\"path\":\"/{}\"}}", "x".repeat(2 << 20));
    let announced = request("POST", "/v1/images/import", &body);
    let chunked = format!(
        "POST /v1/images/import HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for request in [announced, chunked] {
        let (status, answer) = ask(&daemon.socket(), &request);
        assert_eq!(status, 413, "{answer}");
        assert!(answer["message"].as_str().expect("a message").contains("longer than"), "{answer}");
    }
    daemon.client().info().expect("the daemon goes on");
}

#[test]
fn both_versions_of_http_are_spoken() {
    let daemon = Daemon::start();
    let (status, info) = ask(&daemon.socket(), &request("GET", "/v1/info", ""));
    assert_eq!((status, info["driver"].as_str()), (200, Some("vfs")), "HTTP/1.1: {info}");
    let mut stream = connect(&daemon.socket());
    // RFC 9113, section 3.4: the preface and an empty SETTINGS frame, answered by SETTINGS.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("a preface");
    let mut header = [0; 9];
    stream.read_exact(&mut header).expect("a frame");
    assert_eq!(header[3], 4, "HTTP/2: the first frame is SETTINGS: {header:?}");
}

#[test]
fn stalled_clients_block_no_other() {
    let daemon = Daemon::start();
    let stalls = [
        "",
        "P",
        "PRI * HTTP",
        "GET /v1/info HTTP/1.1\r\nhost:",
        "POST /v1/prune HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{",
        "POST /v1/images/import HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    ];
    // More of each than the daemon has threads for the store.
    let stalled: Vec<_> = (0..240)
        .map(|i| {
            let mut stream = connect(&daemon.socket());
            stream.write_all(stalls[i % stalls.len()].as_bytes()).expect("half a request");
            stream
        })
        .collect();
    let client = daemon.client();
    let info = within_patience("a whole request", move || client.info());
    info.expect("an answer beside the stalled ones");
    drop(stalled);
}

#[test]
fn the_socket_is_for_owner_and_group() {
    let daemon = Daemon::start();
    let metadata = daemon.socket().symlink_metadata().expect("the socket");
    assert!(metadata.file_type().is_socket(), "{metadata:?}");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660, "{metadata:?}");
}

#[test]
fn a_killed_daemons_socket_is_taken_over() {
    let dir = Daemon::start().kill();
    assert!(dir.path().join("layerd.sock").exists(), "a killed daemon leaves its socket");
    let daemon = Daemon::start_in(dir, ["--driver", "vfs"]);
    daemon.client().info().expect("the next one answers");
}

#[test]
fn a_second_daemon_is_refused() {
    let first = Daemon::start();
    let other = TempDir::new().expect("a temporary directory");
    let mut second = command(other.path());
    second.args(["--driver", "vfs", "--socket"]).arg(first.socket());
    // The last of two --socket would win, were it not an error.
    let refused = second.finish();
    assert_eq!(refused.code, Some(2), "twice the same option: {refused:?}");
    let mut second = std::process::Command::new(tests::programs::path("layerd"));
    second.args(["serve", "--driver", "vfs", "--root"]).arg(other.path().join("root"));
    let refused = second.arg("--socket").arg(first.socket()).finish();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let socket = first.socket().display().to_string();
    assert!(refused.stderr.contains(&socket), "the socket is named: {refused:?}");
    first.client().info().expect("the first one goes on");
    let refused = command(first.dir()).args(["--driver", "vfs"]).finish();
    assert_eq!(refused.code, Some(1), "on the same root: {refused:?}");
    first.client().info().expect("the first one still goes on");
}

#[test]
fn a_daemon_ends_cleanly_when_it_is_told_to() {
    for told in [Some(Signal::TERM), Some(Signal::INT), None] {
        let mut daemon = Daemon::start();
        let _idle = connect(&daemon.socket());
        match told {
            Some(signal) => daemon.signal(signal),
            None => daemon.hang_up(),
        }
        let status = daemon.wait();
        assert!(status.success(), "{told:?}: {status}");
        assert!(!daemon.socket().exists(), "{told:?}: the socket is gone");
    }
}

#[test]
fn a_second_signal_cuts_off_requests() {
    let mut daemon = Daemon::start();
    let mut stalled = connect(&daemon.socket());
    let half = "POST /v1/prune HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
                content-length: 5\r\n\r\n";
    stalled.write_all(half.as_bytes()).expect("half a request");
    let mut going_on = [0; 12];
    stalled.read_exact(&mut going_on).expect("the daemon waits for the body");
    assert_eq!(&going_on, b"HTTP/1.1 100", "the request is under way");
    daemon.signal(Signal::TERM);
    while daemon.socket().exists() {
        thread::yield_now();
    }
    daemon.signal(Signal::TERM);
    let status = daemon.wait();
    assert!(status.success(), "{status}");
}
