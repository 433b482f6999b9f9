//! layerd is killed while containers of live engines run, and started anew: the containers do not
//! notice, and are stopped and removed as ever.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tests::daemon::Daemon;
use tests::engines::{self, Containerd, Docker};
use tests::host;
use tests::layerfs::all_end_below;
use tests::root::{TempRoot, mounts_below};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(60);
const IMAGE: &str = "docker.io/library/base:latest";
/// For each line of words it writes the first to a file in its root, and answers with what that file
/// and the others say.
const SCRIPT: &str =
    "while read word files; do echo $word >>/log; echo $(cat /log $files); done; exit 4";

/// The engine's command that runs a container in the foreground; the container ends with its input,
/// under a panic too.
struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Talk {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the engine's command");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            let said = stdout.lines().map_while(Result::ok);
            said.map(|line| sender.send(line)).take_while(Result::is_ok).count()
        });
        Self { child, stdin, lines }
    }

    /// Has the container's process write a word and read its files.
    #[track_caller]
    fn say(&mut self, line: &str, expected: &str, when: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{when}: {error}"));
        let answer = self.lines.recv_timeout(PATIENCE);
        assert_eq!(answer.as_deref(), Ok(expected), "{when}: the process in the container");
    }

    /// The exit code of the container, once something else has ended it.
    fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.ended();
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Kills layerd under a container that has begun to talk, and starts it anew.
fn killed(daemon: Daemon, talk: &mut Talk, arguments: &[&str], driver: &str) -> Daemon {
    talk.say("one", "one", &format!("{driver}: before"));
    let dir = daemon.kill();
    talk.say("two /etc/base", "one two base", &format!("{driver}: without layerd"));
    let daemon = Daemon::start_in(dir, arguments);
    talk.say("three /etc/base", "one two three base", &format!("{driver}: with a new layerd"));
    daemon
}

/// Neither the engine, which has ended, nor layerd left a mount or a process.
fn assert_nothing_left(root: &Path, daemon: &Daemon, driver: &str) {
    super::assert_empty(daemon, driver);
    let mounts = mounts_below(root);
    assert!(mounts.is_empty(), "{driver}: mounts are left: {mounts:?}");
    all_end_below(&daemon.root());
}

#[test]
fn containers_of_docker_survive_layerd() {
    if !host::provides(&["dockerd", "docker", "busybox"]) {
        return;
    }
    let _plugin = engines::plugin();
    for driver in ["overlay2", "fuse"] {
        let root = TempRoot::new("docker-survivor");
        let arguments = ["--driver", driver, "--docker-plugin"];
        let daemon = Daemon::start_on(&root, arguments);
        let docker = Docker::start(root.path());
        docker.run(["load", "-i", &super::busybox_image(&root, "base:latest")]).ok();
        let run = ["run", "-i", "--name", "survivor", "--network=none", "base"];
        let mut talk = Talk::start(&mut docker.command(run.iter().chain(&["sh", "-c", SCRIPT])));
        let daemon = killed(daemon, &mut talk, &arguments, driver);

        let held = docker.run(["rm", "survivor"]);
        assert!(held.stderr.contains("running"), "{driver}: removed while it runs: {held:?}");
        let other = ["run", "--rm", "--network=none", "base", "cat", "/etc/base"];
        assert_eq!(docker.run(other).ok(), "base", "{driver}: another container on the layers");
        talk.say("four /etc/base", "one two three four base", driver);
        docker.run(["stop", "-t", "0", "survivor"]).ok();
        assert_eq!(talk.ended(), Some(137), "{driver}: it is stopped");
        assert_eq!(docker.run(["diff", "survivor"]).ok(), "A /log\n", "{driver}: what it wrote");
        docker.run(["rm", "survivor"]).ok();
        docker.run(["rmi", "base"]).ok();
        docker.stop();
        assert_nothing_left(root.path(), &daemon, driver);
    }
}

#[test]
fn containers_of_containerd_survive_layerd() {
    if !host::provides(&["containerd", "ctr", "runc", "busybox"]) {
        return;
    }
    for driver in ["overlay2", "fuse"] {
        let root = TempRoot::new("containerd-survivor");
        let arguments = ["--driver", driver];
        let daemon = Daemon::start_on(&root, arguments);
        let containerd = Containerd::start(root.path(), &daemon.socket());
        let archive = super::busybox_image(&root, "base:latest");
        containerd.ctr(["image", "import", "--snapshotter", "layerd", &archive]).ok();
        let run = ["run", "--snapshotter", "layerd", "--net-host", IMAGE, "survivor"];
        let command = run.iter().chain(&["/bin/sh", "-c", SCRIPT]);
        let mut talk = Talk::start(&mut containerd.command(command));
        let daemon = killed(daemon, &mut talk, &arguments, driver);

        containerd.find_layerd();
        let held = containerd.ctr(["container", "rm", "survivor"]);
        assert!(held.stderr.contains("non stopped"), "{driver}: removed while it runs: {held:?}");
        let run = ["run", "--rm", "--snapshotter", "layerd", "--net-host", IMAGE, "other"];
        let other = containerd.ctr(run.iter().chain(&["cat", "/etc/base"]));
        assert_eq!(other.ok(), "base", "{driver}: another container on the layers");
        talk.say("four /etc/base", "one two three four base", driver);
        containerd.ctr(["task", "kill", "-s", "SIGKILL", "survivor"]).ok();
        assert_eq!(talk.ended(), Some(137), "{driver}: it is stopped");
        let usage = containerd.ctr(["snapshot", "usage", "survivor"]).ok();
        assert!(usage.contains("survivor"), "{driver}: what it wrote stays: {usage}");
        containerd.ctr(["container", "rm", "survivor"]).ok();
        containerd.ctr(["image", "rm", "--sync", IMAGE]).ok();
        super::containerd::collected(&containerd, driver);
        containerd.stop();
        assert_nothing_left(root.path(), &daemon, driver);
    }
}
