use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::*;

/// A daemon of canned answers: each request line and body it got goes to `seen`.
struct Canned {
    dir: TempDir,
    seen: Receiver<(String, String)>,
    thread: Option<JoinHandle<()>>,
}

impl Canned {
    /// Serves `answers` one after the other, on one connection for as long as the client keeps it.
    fn new(answers: &[&str]) -> Self {
        let dir = TempDir::new().expect("temporary directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("listen");
        let answers: Vec<String> = answers.iter().map(|&a| a.to_owned()).collect();
        let (sender, seen) = channel();
        let thread = std::thread::spawn(move || {
            let mut answers = answers.into_iter().peekable();
            while answers.peek().is_some() {
                let (stream, _) = listener.accept().expect("accept");
                let mut reader = BufReader::new(stream);
                while answers.peek().is_some() {
                    let Some(request) = read_request(&mut reader) else { break };
                    sender.send(request).expect("the test waits");
                    let answer = answers.next().expect("peeked");
                    reader.get_mut().write_all(answer.as_bytes()).expect("answer");
                }
            }
        });
        Self { dir, seen, thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Waits for the answers to be used up, and returns the requests.
    fn finish(mut self) -> Vec<(String, String)> {
        self.thread.take().expect("not joined yet").join().expect("the daemon did not panic");
        self.seen.try_iter().collect()
    }
}

fn read_request(reader: &mut BufReader<UnixStream>) -> Option<(String, String)> {
    let mut first = String::new();
    if reader.read_line(&mut first).expect("request line") == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("header");
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("body");
    Some((first.trim().to_owned(), String::from_utf8(body).expect("UTF-8")))
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn names_are_escaped_and_the_connection_is_kept() {
    let found = json("200 OK", r#"{"mounts":[{"type":"bind","source":"/x"}],"new":1}"#);
    let missing = json("404 Not Found", r#"{"message":"no image a/b","kind":"not_found"}"#);
    let daemon = Canned::new(&[&found, &missing]);
    let client = daemon.client();
    let mounts = client.snapshot_mounts("a b&c/d").expect("mounts");
    assert_eq!(mounts.len(), 1, "one mount, the unknown field is ignored");
    let error = client.image("a/b:1@x y").expect_err("the daemon knows no such image");
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(error.to_string(), "no image a/b", "the daemon's message as it is");
    let lines: Vec<_> = daemon.finish().into_iter().map(|(line, _)| line).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/snapshots/mounts?key=a%20b%26c%2Fd HTTP/1.1",
            "GET /v1/images/a%2Fb:1@x%20y HTTP/1.1"
        ],
        "paths and queries are escaped"
    );
}

#[test]
fn bodies_are_json_objects() {
    let removed = json("200 OK", r#"{"untagged":[],"deleted":["x"],"layers":[],"bytes":7}"#);
    let daemon = Canned::new(&[&removed, &removed]);
    let client = daemon.client();
    let request = RemoveImageRequest { image: "x".to_owned(), force: true };
    assert_eq!(client.remove_image(&request).expect("remove").bytes, 7, "the answer is read");
    client.gc().expect("gc");
    let bodies: Vec<_> = daemon.finish().into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, [r#"{"image":"x","force":true}"#, "{}"], "what was sent");
}

#[test]
fn a_stream_gives_its_lines_and_a_cut_is_an_error() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let line = "{\"event\":\"error\",\"message\":\"m\",\"kind\":\"io\"}\n";
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    for (name, answer, items) in [
        ("whole", format!("{head}{chunk}1\r\n\n\r\n{chunk}0\r\n\r\n"), vec![true, true]),
        ("cut", format!("{head}{chunk}"), vec![true, false]),
        ("not JSON", format!("{head}5\r\nhello\r\n{chunk}0\r\n\r\n"), vec![false]),
    ] {
        let daemon = Canned::new(&[&answer]);
        let events = daemon.client().import(&ImportRequest::default()).expect(name);
        daemon.finish();
        let got: Vec<_> = events.map(|event| event.is_ok()).collect();
        assert_eq!(got, items, "{name}");
    }
}

#[test]
fn failures_to_connect_say_which_socket() {
    let dir = TempDir::new().expect("temporary directory");
    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).expect("listen"));
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("write");
    for socket in [dir.path().join("none"), stale, file] {
        let error = Client::new(&socket).info().expect_err("nothing listens");
        assert!(error.is_not_running(), "{error:?}");
        assert!(error.to_string().contains(&socket.display().to_string()), "{error}");
    }
}

#[test]
fn an_answer_of_another_kind_is_unexpected() {
    for answer in [
        json("200 OK", "[]"),
        json("502 Bad Gateway", "<html>"),
        json("301 Moved Permanently", "x"),
    ] {
        let daemon = Canned::new(&[&answer]);
        let error = daemon.client().info().expect_err("not an info");
        assert!(matches!(error, ClientError::Unexpected { .. }), "{answer}: {error:?}");
        assert_eq!(error.kind(), None, "{error}");
    }
    let daemon = Canned::new(&["SSH-2.0-x\r\n\r\n"]);
    let error = daemon.client().info().expect_err("not HTTP");
    assert!(matches!(error, ClientError::Transport { .. }), "{error:?}");
}
