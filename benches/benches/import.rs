//! Import of a 500 MB Debian image: layerd against `docker load` (docker-archive) and against
//! `ctr image import` (gzip OCI archive), warm cache, same disk; and layerd's peak memory.

use std::path::Path;
use std::process::Command;

use benches::engines::{self, Daemon};
use benches::rounds::{self, Contestant};
use benches::{Failure, run};

const ROUNDS: usize = 5;
const NAME: &str = "localhost/debian-four:latest";

fn layerd<'a>(name: &'a str, daemon: &'a Daemon, archive: &Path) -> Contestant<'a> {
    let archive = archive.to_owned();
    Contestant {
        name,
        work: Box::new(move || {
            run(engines::layerctl(daemon).arg("import").arg(&archive)).map(drop)
        }),
        reset: Box::new(move || run(engines::layerctl(daemon).args(["rmi", NAME])).map(drop)),
    }
}

fn docker<'a>(daemon: &'a Daemon, archive: &Path) -> Contestant<'a> {
    let archive = archive.to_owned();
    Contestant {
        name: "docker load",
        work: Box::new(move || {
            run(engines::docker(daemon).args(["load", "-i"]).arg(&archive)).map(drop)
        }),
        reset: Box::new(move || run(engines::docker(daemon).args(["rmi", NAME])).map(drop)),
    }
}

fn ctr<'a>(daemon: &'a Daemon, archive: &Path) -> Contestant<'a> {
    let archive = archive.to_owned();
    Contestant {
        name: "ctr image import",
        work: Box::new(move || {
            run(engines::ctr(daemon).args(["image", "import"]).arg(&archive)).map(drop)
        }),
        reset: Box::new(move || {
            let list = run(engines::ctr(daemon).args(["image", "ls", "-q"]))?;
            let mut remove = engines::ctr(daemon);
            run(remove.args(["image", "rm", "--sync"]).args(list.lines())).map(drop)
        }),
    }
}

fn main() -> Result<(), Failure> {
    let images = benches::debian_image()?;
    let dir = tempfile::tempdir_in(benches::cache())?;
    let (docker_tar, gzip_tar) = (images.join("docker.tar"), images.join("oci-gzip.tar"));
    let zstd_tar = images.join("oci-zstd.tar");
    for archive in [&docker_tar, &gzip_tar, &zstd_tar] {
        run(Command::new("cat").arg(archive).stdout(std::process::Stdio::null()))?;
    }
    let ours = engines::layerd(dir.path(), "overlay2")?;
    {
        let dockerd = engines::dockerd(dir.path())?;
        let times = rounds::race(
            ROUNDS,
            &mut [
                docker(&dockerd, &docker_tar),
                layerd("layerctl import (docker-archive)", &ours, &docker_tar),
            ],
        )?;
        rounds::table("import of a docker-archive", &times);
    }
    {
        let containerd = engines::containerd(dir.path())?;
        let times = rounds::race(
            ROUNDS,
            &mut [
                ctr(&containerd, &gzip_tar),
                layerd("layerctl import (OCI, gzip)", &ours, &gzip_tar),
                layerd("layerctl import (OCI, zstd)", &ours, &zstd_tar),
            ],
        )?;
        rounds::table("import of an OCI archive", &times);
    }
    #[expect(clippy::print_stdout, reason = "a figure of the benchmark")]
    {
        println!("\npeak memory of layerd over all imports: {} KiB", ours.peak_memory()?);
    }
    Ok(())
}
