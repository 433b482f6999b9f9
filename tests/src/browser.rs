//! A real browser without a screen, driven over its own protocol (Chrome DevTools Protocol) by a pipe.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The programs that it needs.
pub const PROGRAMS: [&str; 1] = ["chromium"];

/// How long the browser may take for one answer before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// The browser's protocol is on its file descriptors 3 and 4; no name is looked up.
const START: &str = "exec chromium --headless --no-sandbox --disable-gpu --no-first-run \
    --disable-background-networking --disable-component-update --disable-extensions \
    --disable-dev-shm-usage --host-resolver-rules='MAP * ~NOTFOUND' --remote-debugging-pipe \
    --user-data-dir=\"$1\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// A browser with one page; drop ends all its processes and removes its profile.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it with an empty page.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let profile = TempDir::new().expect("a directory for the profile");
        let mut child = Command::new("sh")
            .args(["-c", START, "sh"])
            .arg(profile.path())
            // What it keeps besides its profile goes there too.
            .env("HOME", profile.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env("TMPDIR", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("chromium runs");
        let commands = child.stdin.take().expect("its input is piped");
        let output = child.stdout.take().expect("its output is piped");
        let (sender, messages) = channel();
        thread::spawn(move || {
            let messages = BufReader::new(output).split(0).map_while(Result::ok);
            for message in messages.filter_map(|bytes| serde_json::from_slice(&bytes).ok()) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            session: None,
            asked: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let page = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &page);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.call("Page.setLifecycleEventsEnabled", &json!({"enabled": true}));
        browser
    }

    /// Opens a file in a window of this size, with scripts or without, as a phone or not.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn open(&mut self, file: &Path, width: u32, height: u32, scripts: bool) {
        self.events.clear();
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        self.call("Emulation.setScriptExecutionDisabled", &json!({"value": !scripts}));
        let url = json!({"url": format!("file://{}", file.display())});
        let answer = self.call("Page.navigate", &url);
        assert!(answer["errorText"].is_null(), "{}: {answer}", file.display());
        // The empty page before may be told to be there only now.
        let is_there = |event: &Value| {
            let told = &event["params"];
            event["method"] == "Page.lifecycleEvent"
                && told["name"] == "load"
                && told["loaderId"] == answer["loaderId"]
        };
        while !self.events.iter().any(is_there) {
            let event = self.next();
            self.events.push(event);
        }
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let what = json!({"expression": expression, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", &what);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            let code = match key {
                "Enter" => 13,
                "Escape" => 27,
                "ArrowRight" => 39,
                _ => 0,
            };
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// What the page did since it was opened that it should not: errors, refusals by its policy,
    /// requests for anything but the file itself.
    pub fn complaints(&mut self) -> Vec<Value> {
        // Whatever happened before this is answered has been told by then. No promise: it would never
        // be kept where scripts are off.
        self.evaluate("document.body.offsetHeight");
        let is_bad = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled") => true,
            Some("Network.requestWillBeSent") => {
                let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
                !url.starts_with("file://") && !url.starts_with("data:")
            }
            _ => false,
        };
        self.events.iter().filter(is_bad).cloned().collect()
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&command).expect("JSON");
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser listens");
        loop {
            let mut message = self.next();
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    fn next(&self) -> Value {
        self.messages.recv_timeout(PATIENCE).expect("the browser answers")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let close = b"{\"id\":0,\"method\":\"Browser.close\"}\0";
        let asked = self.commands.write_all(close).is_ok();
        let deadline = Instant::now() + Duration::from_secs(10);
        while asked && Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // All of its processes are in its group, those as well that outlive the first.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        drop(self.child.wait());
    }
}
