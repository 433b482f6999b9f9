//! A root file system, a container on it, and the program that runs it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use layerd_api::types::ContainerSpec;
use serde_json::json;
use tempfile::TempDir;

/// What busybox is called by in the containers.
const APPLETS: &[&str] = &[
    "cat", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "kill", "ls", "mkdir",
    "mknod", "mount", "pwd", "readlink", "rm", "sh", "sleep", "stty", "touch", "true", "tty",
    "umount", "unshare", "wc",
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1001:\naudio:x:29:app\n";

/// Numbers the containers of this test process: ids name control groups, which all machines share.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Whether containers can be run here. A test that cannot run says why; where `CI=true` promises a
/// machine that has everything, it fails.
pub(crate) fn can_run() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "root"
    } else if busybox().is_none() {
        "a static busybox (package busybox-static)"
    } else {
        return true;
    };
    let promised = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!promised, "this test needs {missing}");
    println!("skipped: needs {missing}");
    false
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

/// A place for containers: an image tree, changes over it, and a runtime directory.
#[derive(Debug)]
pub(crate) struct Machine {
    dir: TempDir,
    pub(crate) id: String,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("layeruntest{}x{number}", std::process::id());
        let machine = Self { dir: TempDir::new().expect("a directory"), id };
        let image = machine.image();
        for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
            fs::create_dir_all(image.join(dir)).expect("a directory of the image");
        }
        for dir in ["upper", "work", "rt"] {
            fs::create_dir(machine.dir.path().join(dir)).expect("a directory");
        }
        fs::copy(busybox().expect("busybox"), image.join("bin/busybox")).expect("busybox");
        for applet in APPLETS {
            symlink("busybox", image.join("bin").join(applet)).expect("an applet");
        }
        for (name, text) in [("passwd", PASSWD), ("group", GROUP), ("hosts", ""), ("hostname", "")]
        {
            fs::write(image.join("etc").join(name), text).expect("a file of the image");
        }
        fs::set_permissions(image.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("/tmp");
        machine
    }

    /// The image's tree.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// What the container has changed.
    pub(crate) fn changes(&self) -> PathBuf {
        self.dir.path().join("upper")
    }

    /// A directory of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that will run a container.
    pub(crate) fn command(&self, spec: &ContainerSpec) -> Command {
        let below = |name: &str| self.dir.path().join(name).display().to_string();
        let options = [
            format!("lowerdir={}", below("image")),
            format!("upperdir={}", below("upper")),
            format!("workdir={}", below("work")),
        ];
        let container = json!({
            "id": self.id, "name": "test", "image": "sha256:0", "image_name": "test:1",
            "state": "created", "exit_code": null, "pid": null,
            "created": "2026-01-01T00:00:00Z", "started": null, "finished": null,
            "auto_remove": false, "spec": spec, "snapshot": "test",
            "mounts": [{"type": "overlay", "source": "overlay", "options": options}],
        });
        let file = self.dir.path().join("container.json");
        fs::write(&file, container.to_string()).expect("the container's description");
        let mut command = self.layerun();
        command.args(["run", "--container-file"]).arg(file).stdin(Stdio::null());
        command
    }

    /// The program, with the runtime directory of this machine.
    pub(crate) fn layerun(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_layerun"));
        command.env("LAYERD_RUNTIME_DIR", self.dir.path().join("rt"));
        command
    }

    /// Runs a container to its end.
    pub(crate) fn run(&self, spec: &ContainerSpec) -> Outcome {
        finish(&mut self.command(spec))
    }

    /// Runs a shell script in a container and returns what it printed.
    pub(crate) fn shell(&self, script: &str) -> String {
        self.shell_with(script, ContainerSpec::default())
    }

    /// Runs a shell script in a container that is described by more than it.
    pub(crate) fn shell_with(&self, script: &str, spec: ContainerSpec) -> String {
        let outcome = self.run(&ContainerSpec { args: words(&["sh", "-c", script]), ..spec });
        assert_eq!(outcome.code, Some(0), "{script}: {outcome:?}");
        outcome.out
    }

    /// Asserts that nothing is left of any container.
    pub(crate) fn assert_clean(&self, when: &str) {
        let left: Vec<_> = fs::read_dir(self.path("rt"))
            .expect("the runtime directories")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert!(left.is_empty(), "{when}: runtime directories are left: {left:?}");
        let groups = self.groups();
        assert!(groups.is_empty(), "{when}: control groups are left: {groups:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let ours = self.dir.path().display().to_string();
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(&ours)).collect();
        assert!(left.is_empty(), "{when}: mounts are left: {left:?}");
    }

    /// The container's control groups.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let mut candidates = vec![Path::new("/sys/fs/cgroup").to_owned()];
        if let Ok(entries) = fs::read_dir("/sys/fs/cgroup") {
            candidates.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        let groups = candidates.into_iter().map(|path| path.join("layerd").join(&self.id));
        groups.filter(|path| path.exists()).collect()
    }
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Outcome {
    let output = command.output().expect("layerun starts");
    Outcome {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Owned words.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A description with nothing but a command.
pub(crate) fn command(args: &[&str]) -> ContainerSpec {
    ContainerSpec { args: words(args), ..ContainerSpec::default() }
}

/// Whether this machine guards device nodes by a control group, as only v1 does here.
pub(crate) fn guards_devices() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    mounts.lines().any(|line| {
        line.split_once(" - cgroup ")
            .is_some_and(|(_, rest)| rest.split(',').any(|o| o == "devices"))
    })
}

/// Whether a controller of control groups can be used here.
pub(crate) fn has_controller(name: &str) -> bool {
    let v1 = Path::new("/sys/fs/cgroup").join(name).is_dir();
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    v1 || v2.split_whitespace().any(|controller| controller == name)
}

/// A terminal's settings, to be compared.
pub(crate) fn settings(fd: impl AsFd) -> String {
    let settings = rustix::termios::tcgetattr(fd).expect("terminal settings");
    format!("{:?} {:?} {:?}", settings.input_modes, settings.output_modes, settings.local_modes)
}
