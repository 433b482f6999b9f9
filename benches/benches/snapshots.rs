//! A snapshot's life over the socket, by `/v1/` and by gRPC, in an empty store and with 10,000 snapshots
//! beside it: the medians must not differ.

use std::path::Path;
use std::time::{Duration, Instant};

use benches::engines;
use benches::{Failure, rounds, run};
use cow_sys::mount;
use layerd_api::client::Client;
use layerd_api::{CommitSnapshotRequest, SnapshotRequest};
use tests::grpc::Grpc;
use tests::load::Footprint;

const ROUNDS: usize = 200;
const WARM_UP: usize = 20;
const CROWD: usize = 10_000;
const NAME: &str = "localhost/debian-four:latest";

/// A client in one of the dialects.
enum Api {
    V1(Client),
    Grpc(Box<Grpc>),
}

type Mounts = Vec<(String, String, Vec<String>)>;

impl Api {
    fn prepare(&mut self, key: &str, parent: &str) -> Result<(), Failure> {
        match self {
            Self::V1(client) => {
                let (key, parent) = (key.to_owned(), Some(parent.to_owned()));
                client.prepare(&SnapshotRequest { key, parent, ..Default::default() })?;
            }
            Self::Grpc(client) => drop(client.prepare(key, parent)?),
        }
        Ok(())
    }

    fn mounts(&mut self, key: &str) -> Result<Mounts, Failure> {
        Ok(match self {
            Self::V1(client) => {
                let mounts = client.snapshot_mounts(key)?.into_iter();
                mounts.map(|mount| (mount.fstype, mount.source, mount.options)).collect()
            }
            Self::Grpc(client) => {
                let mounts = client.mounts(key)?.into_iter();
                mounts.map(|mount| (mount.r#type, mount.source, mount.options)).collect()
            }
        })
    }

    fn commit(&mut self, key: &str, name: &str) -> Result<(), Failure> {
        match self {
            Self::V1(client) => {
                let (key, name) = (key.to_owned(), name.to_owned());
                client.commit_snapshot(&CommitSnapshotRequest {
                    key,
                    name,
                    labels: Default::default(),
                })?;
            }
            Self::Grpc(client) => client.commit(key, name)?,
        }
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), Failure> {
        match self {
            Self::V1(client) => client.remove_snapshot(key)?,
            Self::Grpc(client) => client.remove(key)?,
        }
        Ok(())
    }
}

/// The rows of the tables: the calls alone, with mount and unmount, and with a commit as well.
type Figures = [(String, Vec<Duration>); 3];

fn measure(name: &str, api: &mut Api, parent: &str, target: &Path) -> Result<Figures, Failure> {
    let row = |what: &str| (format!("{name}: {what}"), Vec::new());
    let [mut calls, mut mounted, mut committed] =
        [row("prepare + mounts + remove"), row("with mount and unmount"), row("with a commit")];
    for round in 0..WARM_UP + ROUNDS {
        let start = Instant::now();
        api.prepare("bench", parent)?;
        api.mounts("bench")?;
        api.remove("bench")?;
        let took = [start.elapsed(), life(api, parent, target, false)?];
        let whole = life(api, parent, target, true)?;
        if round >= WARM_UP {
            calls.1.push(took[0]);
            mounted.1.push(took[1]);
            committed.1.push(whole);
        }
    }
    Ok([calls, mounted, committed])
}

/// One life with its mount.
fn life(api: &mut Api, parent: &str, target: &Path, commit: bool) -> Result<Duration, Failure> {
    let start = Instant::now();
    api.prepare("bench", parent)?;
    for (fstype, source, options) in api.mounts("bench")? {
        let point = std::fs::File::open(target)?;
        mount::mount_at(&fstype, Path::new(&source), &options, point)?;
    }
    mount::unmount(target, false)?;
    if commit {
        api.commit("bench", "committed")?;
    }
    api.remove(if commit { "committed" } else { "bench" })?;
    Ok(start.elapsed())
}

fn main() -> Result<(), Failure> {
    let images = benches::debian_image()?;
    let dir = tempfile::tempdir_in(benches::cache())?;
    let target = dir.path().join("target");
    std::fs::create_dir(&target)?;
    let daemon = engines::layerd(dir.path(), "overlay2")?;
    run(engines::layerctl(&daemon).arg("import").arg(images.join("docker.tar")))?;
    let client = Client::new(&daemon.socket);
    let image = client.images()?.into_iter().find(|image| image.names.iter().any(|n| n == NAME));
    let image = image.ok_or("the image is not there")?;
    let parent = image.layers.last().ok_or("the image has no layers")?;

    let mut v1 = Api::V1(client);
    let mut grpc = Grpc::connect(&daemon.socket, "bench")?;
    // A connection without a request is closed after a while.
    grpc.exists("nobody")?;
    let mut grpc = Api::Grpc(Box::new(grpc));
    let empty = [
        measure("/v1/, empty store", &mut v1, parent, &target)?,
        measure("gRPC, empty store", &mut grpc, parent, &target)?,
    ];
    for number in 0..CROWD {
        grpc.prepare(&format!("crowd-{number}"), parent)?;
    }
    let crowded = [
        measure("/v1/, 10,000 snapshots", &mut v1, parent, &target)?,
        measure("gRPC, 10,000 snapshots", &mut grpc, parent, &target)?,
    ];
    for (before, after) in empty.into_iter().zip(crowded) {
        for (before, after) in before.into_iter().zip(after) {
            rounds::table("a snapshot's life over the socket", &[before, after]);
        }
    }
    #[expect(clippy::print_stdout, reason = "a figure of the benchmark")]
    {
        let now = Footprint::of(daemon.pid())?.resident;
        println!("\nmemory of layerd: {now} KiB, peak {} KiB", daemon.peak_memory()?);
    }
    Ok(())
}
