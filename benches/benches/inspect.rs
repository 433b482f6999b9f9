//! Looking into a large gzip archive offline: layerctl against one `gzip -dc` of the same file, warm
//! cache, and the peak memory of each command; and `du` of a store with 1,000 layers. `--quick` is for one
//! round.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use benches::engines::{self, Daemon};
use benches::rounds::{self, Contestant, median};
use benches::{Failure, program, run};
use cow::digest::{Digest, Digester};
use cow::meta::Time;
use cow::tar::{Entry, EntryKind, Writer};
use serde_json::json;

const ROUNDS: usize = 3;
/// Files of each layer, and the bytes of each file: 50,000 files, 1 GB.
const LAYERS: [(u64, u64); 3] = [(30_000, 20_000), (15_000, 20_000), (5_000, 20_000)];
/// Files of the lowest layer that the third has again with other contents.
const CHANGED: u64 = 2_000;
/// Layers of the store that `du` is asked about.
const KEPT: usize = 1000;

/// Words of text and bytes without order, so that gzip has the work that files of a system give it.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, buffer: &mut Vec<u8>, size: u64) {
        buffer.clear();
        let size = usize::try_from(size).unwrap_or_default();
        while buffer.len() < size {
            let number = self.next();
            if number.is_multiple_of(5) {
                buffer.extend_from_slice(&number.to_le_bytes());
            } else {
                // One of 4,096 words of one to eight letters.
                let word = (number >> 20) % 4096;
                let letters = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
                let count = usize::try_from(word % 8 + 1).unwrap_or(1);
                buffer.extend(letters[..count].iter().map(|byte| b'a' + byte % 26));
                buffer.push(b' ');
            }
        }
        buffer.truncate(size);
    }
}

/// A layer as a gzip blob.
struct Blob {
    /// Hexadecimal digits, also its name.
    digest: String,
    size: u64,
    diff_id: String,
    tar_size: u64,
}

fn gzip_into(path: &Path) -> Result<Child, Failure> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-c").stdin(Stdio::piped()).stdout(File::create(path)?);
    Ok(gzip.spawn()?)
}

fn ended(gzip: &mut Child) -> Result<(), Failure> {
    if gzip.wait()?.success() { Ok(()) } else { Err("gzip failed".into()) }
}

/// Writes one layer as a blob by its digest.
fn write_layer(dir: &Path, number: usize) -> Result<Blob, Failure> {
    let (files, size) = LAYERS[number];
    let path = dir.join("layer");
    let mut gzip = gzip_into(&path)?;
    let input = gzip.stdin.take().ok_or("gzip has no input")?;
    let mut tar = Writer::new(Digester::new(BufWriter::new(input)));
    let mut noise = Noise(number as u64 + 1);
    let (mut content, mut entry) = (Vec::new(), Entry::default());
    entry.mtime = Time { secs: 1_700_000_000, nanos: 0 };
    for file in 0..files {
        let (owner, place) =
            if number == 2 && file < CHANGED { (0, file * 7) } else { (number, file) };
        let dir = format!("layer{owner}/dir{:03}", place / 100);
        if place.is_multiple_of(100) && owner == number {
            entry.path = format!("{dir}/").into_bytes();
            (entry.kind, entry.mode, entry.size) = (EntryKind::Dir, 0o755, 0);
            tar.entry(&entry)?;
        }
        entry.path = format!("{dir}/file{place:06}").into_bytes();
        (entry.kind, entry.mode, entry.size) = (EntryKind::File, 0o644, size);
        noise.fill(&mut content, size);
        tar.entry(&entry)?;
        tar.data(&content)?;
    }
    let (digester, tar_size) = tar.finish()?;
    let (mut input, diff_id, _) = digester.finish();
    input.flush()?;
    drop(input);
    ended(&mut gzip)?;
    let digest = run(Command::new("sha256sum").arg(&path))?;
    let digest = digest.split(' ').next().unwrap_or_default().to_owned();
    let size = fs::metadata(&path)?.len();
    fs::rename(&path, dir.join(&digest))?;
    Ok(Blob { digest, size, diff_id: diff_id.to_string(), tar_size })
}

/// The archives: an OCI archive of gzip layers, and a docker-archive that is gzip as a whole.
fn archives() -> Result<[PathBuf; 2], Failure> {
    let cache = benches::cache().join("inspect");
    let found = [cache.join("oci.tar"), cache.join("docker.tar.gz")];
    if found.iter().all(|path| path.exists()) {
        return Ok(found);
    }
    let layout = cache.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layers = (0..LAYERS.len()).map(|number| write_layer(&blobs, number));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let blob = |kind: &str, bytes: &[u8]| -> Result<serde_json::Value, Failure> {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes)?;
        let kind = format!("application/vnd.oci.image.{kind}");
        Ok(json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()}))
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config)?;
    let [oci, docker] = &found;
    docker_archive(docker, &layers, &blobs, &config)?;
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let listed: Vec<_> = layers
        .iter()
        .map(|layer| {
            let digest = format!("sha256:{}", layer.digest);
            json!({"mediaType": gzip, "digest": digest, "size": layer.size})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "config": blob("config.v1+json", &config)?, "layers": listed,
    });
    let manifest = blob("manifest.v1+json", &serde_json::to_vec(&manifest)?)?;
    fs::write(
        layout.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
    )?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    run(Command::new("tar").arg("-cf").arg(oci).arg("-C").arg(&layout).arg("."))?;
    fs::remove_dir_all(&layout)?;
    Ok(found)
}

/// What `docker save | gzip` gives: the tars again, and a manifest.
fn docker_archive(
    path: &Path,
    layers: &[Blob],
    blobs: &Path,
    config: &[u8],
) -> Result<(), Failure> {
    let mut gzip = gzip_into(path)?;
    let input = gzip.stdin.take().ok_or("gzip has no input")?;
    let mut tar = Writer::new(BufWriter::new(input));
    let file = |name: &str, size: u64| Entry {
        path: name.as_bytes().to_vec(),
        kind: EntryKind::File,
        mode: 0o644,
        size,
        ..Entry::default()
    };
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let name = format!("{number}.tar");
        tar.entry(&file(&name, layer.tar_size))?;
        let mut inflate = Command::new("gzip")
            .arg("-dc")
            .arg(blobs.join(&layer.digest))
            .stdout(Stdio::piped())
            .spawn()?;
        tar.copy(&mut inflate.stdout.take().ok_or("gzip has no output")?)?;
        inflate.wait()?;
        names.push(name);
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": ["big:1"], "Layers": names}]);
    let manifest = manifest.to_string().into_bytes();
    for (name, bytes) in [("config.json", config), ("manifest.json", &manifest)] {
        tar.entry(&file(name, bytes.len() as u64))?;
        tar.data(bytes)?;
    }
    let (mut input, _) = tar.finish()?;
    input.flush()?;
    drop(input);
    ended(&mut gzip)
}

/// The peak memory of a command, as the kernel counts it for wait4(2).
fn peak_kib(arguments: &[String]) -> Result<u64, Failure> {
    let mut command = Command::new("time");
    command.args(["-f", "%M"]).arg(program("layerctl")).args(arguments).stdout(Stdio::null());
    let said = command.output()?.stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    let last = said.lines().last().unwrap_or_default();
    last.trim().parse().map_err(|_| format!("{arguments:?}: {said}").into())
}

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
fn race_archive(title: &str, archive: &Path, inflate: &str, rounds: usize) -> Result<(), Failure> {
    let shown = archive.display().to_string();
    let commands: Vec<(&str, Vec<String>)> = [
        ("layers", vec!["layers", &shown]),
        ("tree --depth 0", vec!["tree", "--depth", "0", &shown]),
        ("du", vec!["du", &shown]),
        ("diff #1 #3", vec!["diff", "--name-only", &format!("{shown}#1"), &shown]),
        ("blame --all", vec!["blame", "--all", &shown]),
    ]
    .into_iter()
    .map(|(name, words)| (name, words.into_iter().map(str::to_owned).collect()))
    .collect();
    let mut contestants = vec![Contestant {
        name: "gzip -dc",
        work: Box::new(|| {
            run(Command::new("sh").args(["-ec", inflate, "sh"]).arg(archive)).map(drop)
        }),
        reset: Box::new(|| Ok(())),
    }];
    for (name, arguments) in &commands {
        contestants.push(Contestant {
            name,
            work: Box::new(move || {
                let mut command = Command::new(program("layerctl"));
                let status = command.args(arguments).stdout(Stdio::null()).status()?;
                if status.success() { Ok(()) } else { Err(format!("{status}").into()) }
            }),
            reset: Box::new(|| Ok(())),
        });
    }
    let times = rounds::race(rounds, &mut contestants)?;
    drop(contestants);
    rounds::table(title, &times);
    println!("{:<44} {:>10}", "", "peak KiB");
    for (name, arguments) in &commands {
        println!("{name:<44} {:>10}", peak_kib(arguments)?);
    }
    Ok(())
}

/// `du` of a store with very many layers.
#[expect(clippy::print_stdout, reason = "a figure of the benchmark")]
fn race_du(dir: &Path) -> Result<(), Failure> {
    let daemon = engines::layerd(dir, "overlay2")?;
    fill(&daemon, dir)?;
    let mut times = Vec::new();
    let mut scrapes = Vec::new();
    let client = layerd_api::Client::new(&daemon.socket);
    for _ in 0..=ROUNDS * 5 {
        let start = Instant::now();
        run(engines::layerctl(&daemon).arg("du"))?;
        times.push(start.elapsed());
        let start = Instant::now();
        client.metrics()?;
        scrapes.push(start.elapsed());
    }
    let layers = client.layers()?.len();
    println!("\n`layerctl du` of a store with {layers} layers: {:?} (median)", median(&times[1..]));
    println!("`GET /metrics` of it: {:?} (median)", median(&scrapes[1..]));
    Ok(())
}

/// Imports images of ten layers each, in one archive.
fn fill(daemon: &Daemon, dir: &Path) -> Result<(), Failure> {
    let names: Vec<String> = (0..KEPT / 10).map(|image| format!("many:{image}")).collect();
    let contents: Vec<String> = (0..KEPT).map(|layer| format!("layer {layer}\n")).collect();
    let files: Vec<[(&str, &str); 2]> =
        contents.iter().map(|content| [("etc/", ""), ("etc/file", content.as_str())]).collect();
    let stacks: Vec<Vec<tests::archive::Files<'_>>> =
        files.chunks(10).map(|stack| stack.iter().map(|files| &files[..]).collect()).collect();
    let named: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
    let config = serde_json::Value::Null;
    let images: Vec<_> = named
        .iter()
        .zip(&stacks)
        .map(|(names, layers)| tests::archive::Image {
            names,
            layers,
            created: "2024-01-01T00:00:00Z",
            config: &config,
        })
        .collect();
    let archive = dir.join("many.tar");
    tests::archive::docker(&archive, &images);
    run(engines::layerctl(daemon).arg("import").arg(&archive)).map(drop)
}

fn main() -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(benches::cache())?;
    race_du(dir.path())?;
    let [oci, docker] = archives()?;
    for archive in [&oci, &docker] {
        run(Command::new("cat").arg(archive).stdout(Stdio::null()))?;
    }
    // The blobs lie in the archive as they are: gzip gets them from tar.
    let blobs = "tar -tf \"$1\" | grep blobs/sha256/. | while read -r blob; do
        tar -xOf \"$1\" \"$blob\" | gzip -dcq 2>/dev/null >/dev/null || true; done";
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 1 } else { ROUNDS };
    race_archive("an OCI archive of gzip layers, 1 GB, 50,000 files", &oci, blobs, rounds)?;
    let inflate = "gzip -dc \"$1\" >/dev/null";
    race_archive("a docker-archive, gzip as a whole", &docker, inflate, rounds)
}
