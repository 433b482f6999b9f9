//! Crashes, bounds, and users who ask for what cannot be had.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::stage::{Stage, may_mount};
use crate::tree::{assert_same, see, see_strictly};

#[test]
fn root_a_killed_server_leaves_layers_that_mount_again() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    for number in 0..50 {
        fs::create_dir(low.join(format!("d{number}"))).expect("a directory");
        fs::write(low.join(format!("d{number}/f")), vec![7; 100_000]).expect("a file");
    }
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    for number in 0..25 {
        fs::write(mount.join(format!("d{number}/f")), "new").expect("a copy-up");
        fs::rename(mount.join(format!("d{number}")), mount.join(format!("e{number}")))
            .expect("a redirect");
    }
    let before = see(&mount);
    stage.crash();
    // What a crash in the middle of a copy-up leaves.
    fs::write(stage.path("top/work/work").join("#leftover"), "half").expect("a leftover");
    let mount = stage.layerfs("m", &options);
    assert_same("after the crash", &before, &see_strictly(&mount));
    assert!(!stage.path("top/work/work").join("#leftover").exists(), "what was unfinished is gone");
    stage.unmount(&mount);
    let kernel = stage.kernel("k", &format!("{options},redirect_dir=on,index=on"));
    assert_same("in the kernel's overlay", &before, &see(&kernel));
}

#[test]
fn root_file_descriptors_stay_below_the_limit() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    for number in 0..600 {
        fs::create_dir_all(low.join(format!("d{number}/e"))).expect("directories");
        fs::write(low.join(format!("d{number}/e/f")), number.to_string()).expect("a file");
    }
    let options = stage.layers(&["low"], "top");
    // Too few for a directory each; the server must do with what it has.
    let mount = stage.layerfs_below("m", &options, 400);
    let pid = stage.server().id().to_string();
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).expect("the server's fds").count();
    for round in 0..2 {
        for number in 0..600 {
            let file = mount.join(format!("d{number}/e/f"));
            let text = fs::read_to_string(&file).expect("a file below a directory of its own");
            assert_eq!(text, number.to_string(), "round {round}");
        }
        assert!((60..400).contains(&open()), "{} fds", open());
    }
    stage.unmount(&mount);
}

#[test]
fn root_bad_requests_are_refused_with_a_reason() {
    if !may_mount() {
        return;
    }
    let stage = Stage::new();
    let low = stage.path("low").display().to_string();
    let top = stage.path("top").display().to_string();
    let point = stage.path("m").display().to_string();
    let cases = [
        (format!("lowerdir={low},frobnicate=1"), 2, "unknown option frobnicate"),
        (format!("lowerdir={low}/nowhere"), 1, "nowhere"),
        (format!("lowerdir={low},upperdir={top}"), 2, "workdir"),
        (format!("lowerdir={low},upperdir={top},workdir={top}"), 1, "inside"),
        (format!("lowerdir={low},upperdir={top},workdir=/proc"), 1, "file system"),
        ("upperdir=/a,workdir=/b".to_owned(), 2, "lowerdir"),
    ];
    for (options, code, reason) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_layerfs"))
            .args(["-f", "-o", &options, &point])
            .output()
            .expect("layerfs runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{options}: {said}");
        assert!(said.contains(reason), "{options}: {said}");
    }
}

#[test]
fn root_it_detaches_and_ends_with_a_signal() {
    if !may_mount() {
        return;
    }
    let stage = Stage::new();
    fs::write(stage.path("low").join("f"), "x").expect("a file");
    let options = stage.layers(&["low"], "top");
    let point = stage.path("m");
    let output = Command::new(env!("CARGO_BIN_EXE_layerfs"))
        .args(["-o", &options, "source"])
        .arg(&point)
        .output()
        .expect("layerfs runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(point.join("f")).expect("read"), b"x", "mounted when it returns");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let line = format!("source {} fuse.layerfs", point.display());
    assert!(mounts.contains(&line), "{line}");
    let device = fs::metadata(&point).expect("stat").dev();
    let server = server_of(&point).expect("the serving process");
    let status = Command::new("kill").arg(server.to_string()).status().expect("kill");
    assert!(status.success(), "SIGTERM was sent");
    // It first syncs the file system of the upper layer, whatever others have written there.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while fs::metadata(&point).is_ok_and(|meta| meta.dev() == device) {
        assert!(std::time::Instant::now() < deadline, "it is still mounted");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The process whose arguments end with this mount point.
pub(crate) fn server_of(point: &std::path::Path) -> Option<u32> {
    let wanted = point.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc").ok()? {
        let entry = entry.ok()?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let last = arguments.split(|byte| *byte == 0).rfind(|text| !text.is_empty());
        if last == Some(wanted) {
            return Some(pid);
        }
    }
    None
}
