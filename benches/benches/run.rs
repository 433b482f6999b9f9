//! `layerctl run --rm IMAGE true` with the daemon running, against bare `runc run` on a ready bundle.

use std::fs;
use std::path::Path;
use std::process::Command;

use benches::engines;
use benches::rounds::{self, Contestant};
use benches::{Failure, run};

const ROUNDS: usize = 20;
const NAME: &str = "localhost/debian-four:latest";

/// Makes a bundle of the same root file system whose process is `true`.
fn bundle(dir: &Path, rootfs: &Path) -> Result<(), Failure> {
    let root = dir.join("rootfs");
    fs::create_dir_all(&root)?;
    run(Command::new("tar").arg("-xf").arg(rootfs).arg("-C").arg(&root))?;
    run(Command::new("runc").arg("spec").current_dir(dir))?;
    let path = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["true"]);
    // Machines whose root lacks CAP_SYS_RESOURCE cannot raise limits.
    config["process"]["rlimits"] = serde_json::json!([]);
    fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let images = benches::debian_image()?;
    let dir = tempfile::tempdir_in(benches::cache())?;
    bundle(dir.path(), &images.join("rootfs.tar"))?;
    let daemon = engines::layerd(dir.path(), "overlay2")?;
    run(engines::layerctl(&daemon).arg("import").arg(images.join("docker.tar")))?;
    let state = dir.path().join("runc");
    let times = rounds::race(
        ROUNDS,
        &mut [
            Contestant {
                name: "runc run (ready bundle)",
                work: Box::new(|| {
                    let mut runc = Command::new("runc");
                    runc.arg("--root").arg(&state).args(["run", "-b"]).arg(dir.path());
                    run(runc.arg("bench")).map(drop)
                }),
                reset: Box::new(|| Ok(())),
            },
            Contestant {
                name: "layerctl run --rm IMAGE true",
                work: Box::new(|| {
                    run(engines::layerctl(&daemon).args(["run", "--rm", NAME, "true"])).map(drop)
                }),
                reset: Box::new(|| Ok(())),
            },
        ],
    )?;
    rounds::table("start of a container", &times);
    Ok(())
}
