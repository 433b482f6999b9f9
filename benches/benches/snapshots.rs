//! Prepare, mount, unmount and remove of a snapshot over the socket, in an empty store and with 10,000
//! snapshots beside it: the two medians must not differ.

use std::path::Path;
use std::time::{Duration, Instant};

use benches::engines;
use benches::{Failure, rounds, run};
use layerd_api::SnapshotRequest;
use layerd_api::client::Client;

const ROUNDS: usize = 200;
const CROWD: usize = 10_000;
const NAME: &str = "localhost/debian-four:latest";

/// One life of a snapshot; gives the time of the calls to the daemon and of the whole, mount included.
fn life(client: &Client, parent: &str, target: &Path) -> Result<(Duration, Duration), Failure> {
    let request =
        SnapshotRequest { key: "bench".into(), parent: Some(parent.into()), ..Default::default() };
    let start = Instant::now();
    let mounts = client.prepare(&request)?;
    let prepared = start.elapsed();
    for mount in &mounts {
        let options = mount.options.join(",");
        rustix::mount::mount(
            mount.source.as_str(),
            target,
            mount.fstype.as_str(),
            rustix::mount::MountFlags::empty(),
            Some(std::ffi::CString::new(options)?.as_c_str()),
        )?;
    }
    rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty())?;
    let before = Instant::now();
    client.remove_snapshot("bench")?;
    Ok((prepared + before.elapsed(), start.elapsed()))
}

fn measure(
    name: &str,
    client: &Client,
    parent: &str,
    target: &Path,
) -> Result<[(String, Vec<Duration>); 2], Failure> {
    let mut calls = (format!("{name}: prepare + remove"), Vec::new());
    let mut whole = (format!("{name}: with mount and unmount"), Vec::new());
    for round in 0..ROUNDS + 10 {
        let (call, all) = life(client, parent, target)?;
        if round >= 10 {
            calls.1.push(call);
            whole.1.push(all);
        }
    }
    Ok([calls, whole])
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

    let [calls, whole] = measure("empty store", &client, parent, &target)?;
    for number in 0..CROWD {
        let key = format!("crowd-{number}");
        let parent = Some(parent.clone());
        client.prepare(&SnapshotRequest { key, parent, ..Default::default() })?;
    }
    let [crowded_calls, crowded_whole] = measure("10,000 snapshots", &client, parent, &target)?;
    rounds::table("a snapshot's life over the socket", &[calls, crowded_calls]);
    rounds::table("the same with the mount itself", &[whole, crowded_whole]);
    #[expect(clippy::print_stdout, reason = "a figure of the benchmark")]
    {
        println!("\npeak memory of layerd: {} KiB", daemon.peak_memory()?);
    }
    Ok(())
}
