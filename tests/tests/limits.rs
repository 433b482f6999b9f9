//! Clients that take more than their share, or hold on to what they have: the others are served.

#![allow(clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tests::archive;
use tests::daemon::Daemon;
use tests::docker::Docker;
use tests::load::Footprint;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(30);
/// The daemon's own limit of connections.
const CONNECTIONS: usize = 1024;

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

fn footprint(daemon: &Daemon) -> Footprint {
    Footprint::of(daemon.pid().as_raw_nonzero().get().unsigned_abs()).expect("the daemon lives")
}

/// As many file descriptors for this process as it may have.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("a limit");
}

/// Asks for a diff and reads the first bytes of its answer. HTTP/1.0 has the body end with the
/// connection, so that it can be read as it is.
fn begin_diff(socket: &Path, id: &str) -> UnixStream {
    let mut stream = connect(socket);
    let body = format!(r#"{{"ID":"{id}","Parent":""}}"#);
    let length = body.len();
    let request =
        format!("POST /GraphDriver.Diff HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("a status");
    assert_eq!(&status[8..], b" 200", "the diff of {id} begins");
    stream
}

/// The tar of a diff that was begun.
fn rest_of(mut stream: UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the rest");
    let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    answer.split_off(at + 4)
}

#[test]
fn stalled_readers_of_diffs_hinder_nobody() {
    const READERS: usize = 200;
    // More than the daemon has threads for the store.
    const REMOVERS: usize = 80;
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let content = "x".repeat(4 << 20);
    let layer = archive::layer(&[("large", content.as_str())]);
    let mut docker = Docker::connect(&socket).expect("connect");
    docker.create("large", "").expect("a layer");
    docker.apply("large", &layer).expect("a tar is applied");
    let before = footprint(&daemon);
    let mut readers: Vec<_> = (0..READERS).map(|_| begin_diff(&socket, "large")).collect();
    let removers: Vec<_> = (0..REMOVERS)
        .map(|_| {
            let socket = socket.clone();
            thread::spawn(move || Docker::connect(&socket).expect("connect").remove("large"))
        })
        .collect();

    daemon.client().info().expect("a call beside the stalled ones");
    for round in 0..3 {
        let id = format!("quick-{round}");
        docker.create(&id, "").expect("a layer");
        docker.apply(&id, &layer).expect("a tar is applied");
        docker.get(&id).expect("it is mounted");
        docker.put(&id).expect("and unmounted");
        let tar = rest_of(begin_diff(&socket, &id));
        assert!(tar.len() > content.len(), "{id}: a whole diff: {} bytes", tar.len());
        docker.remove(&id).expect("it is removed");
    }
    let grown = footprint(&daemon).resident.saturating_sub(before.resident);
    assert!(grown < 256 << 10, "each reader has its bound of memory: {grown} KiB");

    let last = readers.pop().expect("a reader");
    drop(readers);
    let tar = rest_of(last);
    assert!(tar.len() > content.len(), "one that goes on has it all: {} bytes", tar.len());
    assert!(tar.ends_with(&[0; 1024]), "to the end marker");
    for remover in removers {
        remover.join().expect("a client").expect("removed, or gone already");
    }
    assert!(!docker.exists("large").expect("an answer"), "the layer is removed after its readers");
}

#[test]
fn idle_connections_make_room_for_others() {
    raise_own_limit();
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let half = "POST /v1/prune HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
                content-length: 2\r\n\r\n";
    let client = || {
        let mut docker = Docker::connect(&socket).expect("connect");
        assert!(!docker.exists("nobody").expect("an answer"), "everybody is served");
        docker
    };
    // The rest of a request has to come within half a minute.
    let mut idle: Vec<_> = (0..CONNECTIONS - 10).map(|_| client()).collect();
    let mut busy = connect(&socket);
    busy.write_all(half.as_bytes()).expect("half a request");
    let mut going_on = [0; 25];
    busy.read_exact(&mut going_on).expect("the daemon waits for the body");
    idle.extend((0..60).map(|_| client()));
    let gone = idle.iter_mut().map(|docker| docker.exists("nobody").is_err());
    let gone: Vec<bool> = gone.take(51).collect();
    assert_eq!(gone, vec![true; 51], "those that were idle the longest made room");
    let last = idle.last_mut().expect("a connection");
    assert!(!last.exists("nobody").expect("an answer"), "the last one is kept");
    busy.write_all(b"{}").expect("the rest of the request");
    let mut answer = [0; 12];
    busy.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200", "a request under way is finished");
}

#[test]
fn the_daemon_outlives_a_lack_of_file_descriptors() {
    raise_own_limit();
    let daemon = Daemon::start();
    let socket = daemon.socket();
    // Who answers has read its own limit, which is another one below.
    let mut docker = Docker::connect(&socket).expect("connect");
    assert!(!docker.exists("nobody").expect("an answer"), "an empty store");
    drop(docker);
    let few = u64::try_from(footprint(&daemon).fds + 40).expect("a count");
    let limit = Rlimit { current: Some(few), maximum: Some(few) };
    prlimit(Some(daemon.pid()), Resource::Nofile, limit).expect("a limit");
    let silent: Vec<_> = (0..500).map(|_| connect(&socket)).collect();
    // In the backlog behind all of them.
    let mut docker = Docker::connect(&socket).expect("connect");
    assert!(!docker.exists("nobody").expect("an answer"), "who comes last is served");
    drop(silent);
    let mut docker = Docker::connect(&socket).expect("connect");
    docker.create("one", "").expect("it goes on as before");
    docker.remove("one").expect("it goes on as before");
    let log = std::fs::read_to_string(daemon.dir().join("log")).expect("a log");
    assert!(log.contains("Too many open files"), "there was a lack of file descriptors");
}
