//! What the runtime asks the daemon for, and what it reports, in which order.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use layerd_api::types::{Container, ContainerSpec};

use crate::harness::{Machine, can_run, command, finish};

/// A daemon that knows one container. It closes every connection after its answer, as a daemon that
/// was restarted meanwhile would have.
struct FakeDaemon {
    socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeDaemon {
    fn start(machine: &Machine, container: Container) -> Self {
        let socket = machine.path("daemon.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // It ends with the test's process: nothing waits for it.
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.expect("a connection"), &container, &seen);
            }
        });
        Self { socket, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic in the daemon").clone()
    }
}

fn answer(stream: UnixStream, container: &Container, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).expect("a request") == 0 {
            return;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse().expect("a length"))
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("a body");
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
    let body = String::from_utf8_lossy(&body);
    seen.lock().expect("no panic in the test").push(format!("{line} {body}").trim().to_owned());
    let text = match line.split_once(' ') {
        Some(("DELETE", _)) => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        _ => {
            let body = serde_json::to_string(container).expect("JSON");
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )
        }
    };
    reader.get_mut().write_all(text.as_bytes()).expect("an answer");
}

fn container(machine: &Machine, spec: &ContainerSpec, auto_remove: bool) -> Container {
    // The harness has written the description for its own way of starting.
    drop(machine.command(spec));
    let text = fs::read(machine.path("container.json")).expect("the description");
    let container: Container = serde_json::from_slice(&text).expect("a container");
    Container { auto_remove, ..container }
}

#[test]
fn the_daemon_is_told_of_every_end() {
    if !can_run() {
        return;
    }
    for (args, auto_remove, code, starts) in [
        (&["sh", "-c", "exit 3"][..], false, 3, true),
        (&["true"], true, 0, true),
        (&["no-such-program"], true, 127, false),
        (&["/etc/hosts"], false, 126, false),
        (&[], false, 125, false),
    ] {
        let machine = Machine::new();
        let daemon = FakeDaemon::start(&machine, container(&machine, &command(args), auto_remove));
        let mut layerun = machine.layerun();
        layerun.args(["run", "--socket"]).arg(&daemon.socket).arg(&machine.id);
        let outcome = finish(&mut layerun);
        assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:?}");
        let base = format!("/v1/containers/{}", machine.id);
        let mut expected = vec![format!("GET {base}")];
        let mut requests = daemon.requests();
        if starts {
            let running = format!("POST {base}/state {{\"state\":\"running\",\"pid\":");
            assert!(requests[1].starts_with(&running), "{args:?}: it runs: {requests:?}");
            requests.remove(1);
        }
        expected.push(format!(
            "POST {base}/state {{\"state\":\"exited\",\"pid\":null,\"exit_code\":{code}}}"
        ));
        if auto_remove {
            expected.push(format!("DELETE {base}?force=true"));
        }
        assert_eq!(requests, expected, "{args:?}");
        machine.assert_clean(&format!("after {args:?}"));
    }
}

#[test]
fn without_a_daemon_nothing_runs() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let socket = machine.path("nobody.sock");
    let outcome = finish(machine.layerun().args(["run", "--socket"]).arg(&socket).arg(&machine.id));
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.err.contains("no layerd listens on"), "{}", outcome.err);
    assert!(outcome.err.contains("nobody.sock"), "it names the socket: {}", outcome.err);
}
