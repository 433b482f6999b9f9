//! Podman and Buildah with layerfs as their `mount_program`, which is all that their users change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::daemon::{Finish as _, Finished};
use tests::layerfs::all_end_below;
use tests::root::{TempRoot, mounts_below};
use tests::tree::Portrait;
use tests::{host, programs};

/// Renames a directory of a lower layer, removes, changes owners and set-id bits, renames again and
/// puts something else in the old place, links, and reads all of it back.
const DOCKERFILE: &str = "\
FROM scratch
COPY rootfs /
RUN mv /data /moved && echo new >/moved/deep/new
RUN rm /etc/gone /moved/two && chown 12:34 /moved/deep/one && chmod 4711 /bin/ls
RUN mv /moved/deep /deeper && mkdir /moved/deep && ln /deeper/one /moved/link
RUN rm -r /moved/dir && mkdir /moved/dir && echo other >/moved/dir/other
RUN test ! -e /data && test ! -e /etc/gone && cat /deeper/one /deeper/new /moved/link
CMD [\"/bin/cat\", \"/deeper/one\"]
";

/// A store of Podman and Buildah in a directory of its own.
struct Store {
    dir: PathBuf,
}

impl Store {
    fn new(root: &TempRoot, driver: &str) -> Self {
        let dir = root.join(driver);
        fs::create_dir(&dir).expect("a directory");
        let path = |name: &str| dir.join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = {driver:?}\ngraphroot = {:?}\nrunroot = {:?}\n\
             [storage.options.overlay]\nmount_program = {:?}\n",
            path("root"),
            path("run"),
            programs::path("layerfs").display().to_string(),
        );
        // Without CAP_SYS_RESOURCE, root cannot raise limits to the defaults.
        let engine = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"none\"\nlock_type = \"file\"\ntmp_dir = {:?}\n",
            path("tmp"),
        );
        fs::write(dir.join("storage.conf"), storage).expect("a configuration");
        fs::write(dir.join("containers.conf"), engine).expect("a configuration");
        let policy = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}";
        fs::write(dir.join("policy.json"), policy).expect("a policy");
        Self { dir }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program);
        command.env("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf"));
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command.env("HOME", &self.dir).args(arguments).finish()
    }

    fn podman(&self, arguments: &[&str]) -> Finished {
        self.run("podman", arguments)
    }

    /// Runs a command in a new container that goes with it.
    fn once(&self, image: &str, script: &str) -> String {
        self.podman(&["run", "--rm", "--network=none", image, "sh", "-c", script]).ok()
    }

    fn buildah(&self, arguments: &[&str]) -> String {
        self.run("buildah", arguments).ok()
    }

    /// What an image shows, but for the times, which are those of its build.
    fn portrait(&self, image: &str) -> Portrait {
        let container = self.buildah(&["from", image]);
        let mounted = self.buildah(&["mount", container.trim()]);
        let portrait = tests::tree::portrait(Path::new(mounted.trim())).expect("its files");
        self.buildah(&["rm", container.trim()]);
        let timeless = |line: String| {
            let words = line.split(' ').filter(|word| !word.starts_with("mtime="));
            words.collect::<Vec<_>>().join(" ")
        };
        portrait.into_iter().map(|(path, line)| (path, timeless(line))).collect()
    }
}

/// A context to build in.
fn context(root: &TempRoot) -> String {
    let rootfs = root.join("context/rootfs");
    for dir in ["bin", "etc", "data/deep", "data/dir", "tmp"] {
        fs::create_dir_all(rootfs.join(dir)).expect("a directory");
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("a busybox");
    for name in ["sh", "cat", "ls", "mv", "rm", "chown", "chmod", "mkdir", "echo", "test", "ln"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).expect("a link");
    }
    for file in ["data/deep/one", "data/two", "data/dir/old", "etc/gone"] {
        fs::write(rootfs.join(file), format!("{file}\n")).expect("a file");
    }
    fs::write(root.join("context/Dockerfile"), DOCKERFILE).expect("a Dockerfile");
    root.join("context").display().to_string()
}

#[test]
fn podman_and_buildah_work_on_layerfs() {
    if !host::provides(&["podman", "buildah", "runc", "conmon", "busybox"]) {
        return;
    }
    let root = TempRoot::new("podman");
    let context = context(&root);
    let [ours, copies] = ["overlay", "vfs"].map(|driver| Store::new(&root, driver));
    for store in [&ours, &copies] {
        let build = ["bud", "--isolation", "chroot", "--layers", "-t", "built", &context];
        let said = store.buildah(&build);
        assert!(said.contains("data/deep/one\nnew\ndata/deep/one\n"), "the last step: {said}");
    }
    let program = ours.podman(&["info", "--format", "{{.Store.GraphOptions}}"]).ok();
    assert!(program.contains("layerfs"), "the mounts are not layerfs's: {program}");
    let expected = copies.portrait("localhost/built");
    same("built", &ours.portrait("localhost/built"), &expected);

    let ran = ours.podman(&["run", "--rm", "--network=none", "localhost/built"]).ok();
    assert_eq!(ran, "data/deep/one\n", "the image's command");
    container_is_committed(&ours);

    let saved = root.join("saved.tar").display().to_string();
    ours.podman(&["save", "-q", "-o", &saved, "localhost/built"]).ok();
    ours.podman(&["rmi", "-f", "-a"]).ok();
    ours.podman(&["load", "-q", "-i", &saved]).ok();
    same("loaded", &ours.portrait("localhost/built"), &expected);
    assert_eq!(ours.once("localhost/built", "cat /moved/dir/other"), "other\n");
    ours.podman(&["rmi", "-f", "-a"]).ok();
    let layers = fs::read_dir(ours.dir.join("root/overlay")).expect("the store");
    let left: Vec<_> =
        layers.flatten().filter(|entry| entry.path().join("diff").exists()).collect();
    assert!(left.is_empty(), "layers are left: {left:?}");

    for point in mounts_below(&ours.dir.join("root/overlay")) {
        // The store is a private mount of itself, as containers/storage has it.
        assert_eq!(point, ours.dir.join("root/overlay"), "something is mounted");
    }
    all_end_below(root.path());
}

/// Changes a container, looks at what it changed, and makes an image of it.
fn container_is_committed(store: &Store) {
    let script = "mv /deeper /d2; echo x >/d2/x; rm /moved/link; chown 7 /bin/ls; exit 3";
    let ran = store.podman(&[
        "run",
        "--name",
        "changed",
        "--network=none",
        "localhost/built",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(ran.code, Some(3), "the exit code of the container: {ran:?}");
    let diff = store.podman(&["diff", "changed"]).ok();
    for line in [
        "A /d2",
        "A /d2/x",
        "A /d2/one",
        "C /bin/busybox",
        "C /moved",
        "D /moved/link",
        "D /deeper",
    ] {
        assert!(diff.lines().any(|told| told == line), "{line} is not told: {diff}");
    }
    store.podman(&["commit", "-q", "changed", "committed"]).ok();
    let said = store.once("localhost/committed", "cat /d2/x /d2/one; test ! -e /deeper; echo $?");
    assert_eq!(said, "x\ndata/deep/one\n0\n", "what was committed");
    store.podman(&["rm", "changed"]).ok();
}

#[track_caller]
fn same(what: &str, got: &Portrait, expected: &Portrait) {
    let differences = tests::tree::differences(got, expected).join("\n");
    assert!(differences.is_empty(), "{what} (left: layerfs, right: vfs):\n{differences}");
}
