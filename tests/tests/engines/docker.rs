//! dockerd with `-s layerd`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::daemon::{Daemon, Finish as _};
use tests::engines::{self, Docker};
use tests::host;
use tests::root::TempRoot;

/// How long the kernel may take to free a subvolume.
const PATIENCE: Duration = Duration::from_secs(60);

/// Deletes, replaces a directory, copies in, and reads all of it back, in six steps.
const DOCKERFILE: &str = "\
FROM base:latest
RUN echo one >/tmp/one && rm /etc/base
RUN mkdir /tmp/dir && echo old >/tmp/dir/old
RUN rm -r /tmp/dir && mkdir /tmp/dir && echo new >/tmp/dir/new
COPY copied /tmp/copied
RUN cat /tmp/copied /tmp/one /tmp/dir/new && test ! -e /etc/base && test ! -e /tmp/dir/old
";

fn layerd(driver: &'static str) -> [&'static str; 3] {
    ["--driver", driver, "--docker-plugin"]
}

fn run(docker: &Docker, image: &str, script: &str) -> tests::daemon::Finished {
    docker.run(["run", "--rm", "--network=none", image, "sh", "-c", script])
}

#[test]
fn docker_works_on_every_driver() {
    if !host::provides(&["dockerd", "docker", "busybox", "mkfs.btrfs"]) {
        return;
    }
    let _plugin = engines::plugin();
    for driver in host::DRIVERS {
        let root = TempRoot::for_driver(driver, "docker");
        let daemon = Daemon::start_on(&root, layerd(driver));
        let docker = Docker::start(root.path());
        images_are_built(&root, &docker);
        match driver {
            "btrfs" => a_size_is_kept(&root, &docker),
            other => a_size_is_refused(&docker, other),
        }
        let container = containers_change(&root, &docker);

        // Docker is asked to end, layerd is killed: both find what they had.
        docker.stop();
        let daemon = Daemon::start_in(daemon.kill(), layerd(driver));
        let docker = Docker::start(root.path());
        let started = docker.run(["start", "-a", &container]);
        assert_eq!(started.code, Some(3), "{driver}: the container is still there: {started:?}");
        assert_eq!(run(&docker, "built", "cat /tmp/dir/new").ok(), "new\n", "{driver}: the image");
        assert_eq!(run(&docker, "committed", "cat /tmp/made").ok(), "made\n", "{driver}: commit");
        docker.run(["system", "df", "-v"]).ok();

        everything_goes(&root, &docker, &container);
        docker.stop();
        super::assert_empty(&daemon, driver);
    }
}

fn images_are_built(root: &TempRoot, docker: &Docker) {
    docker.run(["load", "-i", &super::busybox_image(root, "base:latest")]).ok();
    let context = root.join("context");
    fs::create_dir(&context).expect("a context");
    fs::write(context.join("Dockerfile"), DOCKERFILE).expect("a Dockerfile");
    fs::write(context.join("copied"), "copied\n").expect("a file to copy");
    let context = context.display().to_string();
    let said = docker.run(["build", "--network=none", "-t", "built", &context]).ok();
    assert!(said.contains("copied\none\nnew\n"), "the last step sees the others: {said}");
    assert!(said.contains("Step 6/6"), "six steps: {said}");
}

/// A container that was changed and committed; it ends with 3.
fn containers_change(root: &TempRoot, docker: &Docker) -> String {
    let script = "echo made >/tmp/made; rm /tmp/one; echo more >>/tmp/dir/new; exit 3";
    let container = "changed".to_owned();
    let ran =
        docker.run(["run", "--name", &container, "--network=none", "built", "sh", "-c", script]);
    assert_eq!(ran.code, Some(3), "the exit code of the container: {ran:?}");
    let diff = docker.run(["diff", &container]).ok();
    let mut changes: Vec<_> = diff.lines().collect();
    changes.sort_unstable();
    let expected = ["A /tmp/made", "C /tmp", "C /tmp/dir", "C /tmp/dir/new", "D /tmp/one"];
    assert_eq!(changes, expected, "what the container changed");
    docker.run(["commit", &container, "committed"]).ok();
    let exported = root.join("exported.tar");
    docker.run(["export", "-o", text(&exported), &container]).ok();
    let files = names(&exported);
    for (name, there) in [("tmp/made", true), ("tmp/one", false), ("bin/busybox", true)] {
        assert_eq!(files.iter().any(|file| file == name), there, "{name} in the export: {files:?}");
    }
    container
}

/// A limited container is stopped at its limit, and no other notices.
fn a_size_is_kept(root: &TempRoot, docker: &Docker) {
    const MIB: u64 = 1 << 20;
    let script = "dd if=/dev/zero of=/grown bs=1M count=100 2>&1 | grep -o 'quota exceeded'; \
                  stat -c %s /grown";
    let limited = ["run", "--name", "limited", "--network=none", "--storage-opt", "size=64m"];
    let said = docker.run(limited.into_iter().chain(["base", "sh", "-c", script])).ok();
    let written = said.strip_prefix("quota exceeded\n").expect("refused with the reason");
    let written: u64 = written.trim().parse().expect("a number");
    assert!((60 * MIB..=64 * MIB).contains(&written), "{written} bytes were written");
    let other = run(docker, "base", script).ok();
    assert_eq!(other, format!("{}\n", 100 * MIB), "another container of the image");

    let data = docker.run(["inspect", "--format", "{{json .GraphDriver.Data}}", "limited"]).ok();
    let data: serde_json::Value = serde_json::from_str(&data).expect("JSON");
    let number =
        |key: &str| data[key].as_str().and_then(|text| text.parse::<u64>().ok()).expect(key);
    assert_eq!(number("Size"), 64 * MIB, "{data}");
    assert!((written..66 * MIB).contains(&number("ExclusiveBytes")), "{data}");
    let _ = number("SharedBytes");
    docker.run(["rm", "limited"]).ok();

    // The limit goes with the subvolume, once the kernel's cleaner, which a sync wakes, has come to it.
    let group = format!("0/{}", number("Subvolume"));
    let root = root.path().to_str().expect("UTF-8");
    let btrfs = |arguments: &[&str]| Command::new("btrfs").args(arguments).finish().ok();
    let deadline = Instant::now() + PATIENCE;
    while btrfs(&["qgroup", "show", root]).lines().any(|line| line.starts_with(&group)) {
        assert!(Instant::now() < deadline, "the quota group {group} is left");
        btrfs(&["filesystem", "sync", root]);
    }
}

/// A driver that can keep no size says so, and by its name.
fn a_size_is_refused(docker: &Docker, driver: &str) {
    let limited = ["run", "--rm", "--network=none", "--storage-opt", "size=64m", "base", "true"];
    let refused = docker.run(limited);
    assert_eq!(refused.code, Some(125), "{driver}: {refused:?}");
    for part in [driver, "option size"] {
        assert!(refused.stderr.contains(part), "{driver}: no word of {part}: {refused:?}");
    }
}

fn everything_goes(root: &TempRoot, docker: &Docker, container: &str) {
    let saved = root.join("saved.tar");
    docker.run(["save", "-o", text(&saved), "built"]).ok();
    docker.run(["rm", container]).ok();
    docker.run(["rmi", "committed", "built", "base"]).ok();
    assert_eq!(docker.run(["images", "-aq"]).ok(), "", "images are left");
    docker.run(["load", "-i", text(&saved)]).ok();
    assert_eq!(run(docker, "built", "cat /tmp/copied").ok(), "copied\n", "what was saved");
    docker.run(["rmi", "built"]).ok();
}

/// What a tar holds, whiteouts and all.
fn names(tar: &Path) -> Vec<String> {
    let mut tar = tar::Archive::new(fs::File::open(tar).expect("the archive"));
    let entries = tar.entries().expect("a tar");
    entries
        .map(|entry| entry.expect("an entry").path().expect("a name").display().to_string())
        .collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_real_image_runs_on_docker() {
    if !host::provides(&["dockerd", "docker", "mmdebstrap", "buildah"]) {
        return;
    }
    let _plugin = engines::plugin();
    let root = TempRoot::new("docker-debian");
    let daemon = Daemon::start_with(layerd("overlay2"));
    let docker = Docker::start(root.path());
    docker.run(["load", "-i", text(&host::debian_image().join("docker.tar"))]).ok();
    let image = "localhost/debian-four";
    let said = run(&docker, image, "cat /opt/new/deep/other; id -u; getcap /usr/local/bin/capcat");
    let said = said.ok();
    assert!(said.starts_with("again\n12\n"), "the upper layers and the user: {said}");
    assert!(said.contains("cap_net_bind_service"), "file capabilities: {said}");
    docker.run(["rmi", image]).ok();
    docker.stop();
    super::assert_empty(&daemon, "overlay2");
}
