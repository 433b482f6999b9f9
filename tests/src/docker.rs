//! A client of Docker's graph-driver plugin protocol: one HTTP/1.1 connection that is kept.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a call failed.
#[derive(Debug)]
pub struct DockerError {
    /// The call.
    pub method: String,
    /// The status of the answer; none when there was none.
    pub status: Option<u16>,
    /// What the daemon, or the system, said.
    pub message: String,
}

impl fmt::Display for DockerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.method, self.status, self.message)
    }
}

impl std::error::Error for DockerError {}

/// dockerd's side of the protocol.
#[derive(Debug)]
pub struct Docker {
    stream: BufReader<UnixStream>,
}

impl Docker {
    /// Connects to a daemon.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Makes a writable layer.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn create(&mut self, id: &str, parent: &str) -> Result<(), DockerError> {
        self.call("CreateReadWrite", &json!({ "ID": id, "Parent": parent })).map(drop)
    }

    /// Mounts a layer and gives the mount point.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn get(&mut self, id: &str) -> Result<PathBuf, DockerError> {
        let answer = self.call("Get", &json!({ "ID": id }))?;
        Ok(answer["Dir"].as_str().unwrap_or_default().into())
    }

    /// Gives a mount back.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn put(&mut self, id: &str) -> Result<(), DockerError> {
        self.call("Put", &json!({ "ID": id })).map(drop)
    }

    /// Removes a layer.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn remove(&mut self, id: &str) -> Result<(), DockerError> {
        self.call("Remove", &json!({ "ID": id })).map(drop)
    }

    /// Whether a layer is there.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn exists(&mut self, id: &str) -> Result<bool, DockerError> {
        Ok(self.call("Exists", &json!({ "ID": id }))?["Exists"] == true)
    }

    /// Applies a tar to a layer.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn apply(&mut self, id: &str, tar: &[u8]) -> Result<(), DockerError> {
        self.send(&format!("ApplyDiff?id={id}&parent="), tar).map(drop)
    }

    /// One call with a body and an answer in JSON.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn call(&mut self, method: &str, request: &Value) -> Result<Value, DockerError> {
        self.send(method, request.to_string().as_bytes())
    }

    fn send(&mut self, method: &str, body: &[u8]) -> Result<Value, DockerError> {
        let failed = |status, message| DockerError { method: method.to_owned(), status, message };
        let asked = self.ask(method, body);
        let (status, body) = asked.map_err(|error| failed(None, error.to_string()))?;
        if status != 200 {
            return Err(failed(Some(status), String::from_utf8_lossy(&body).into_owned()));
        }
        serde_json::from_slice(&body).map_err(|error| failed(Some(status), error.to_string()))
    }

    /// Sends a request and reads its answer, which has a length: only `Diff`'s has none.
    fn ask(&mut self, method: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let length = body.len();
        let head = format!(
            "POST /GraphDriver.{method} HTTP/1.1\r\nhost: plugin\r\ncontent-length: {length}\r\n\
             \r\n"
        );
        let request = [head.as_bytes(), body].concat();
        self.stream.get_mut().write_all(&request)?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
            } else if let Some(rest) = text.strip_prefix("content-length:") {
                length = rest.trim().parse().map_err(io::Error::other)?;
            } else if text.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok((status, answer))
    }
}
