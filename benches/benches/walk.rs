//! A walk of 1,000,000 files in a layerfs mount: what its process holds for each inode that the kernel
//! knows.
//!
//! `WALK_FILES` asks for another number. The lower layers are in memory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use benches::{Failure, program};
use tests::load::Footprint;
use tests::root::{TempRoot, mounts_below};

const FILES: usize = 1_000_000;
/// Files in one directory.
const WIDTH: usize = 1000;

/// Writes half of the files into each of two layers.
fn fill(layers: &[&Path; 2], files: usize) -> Result<(), Failure> {
    for dir in 0..files.div_ceil(WIDTH) {
        for layer in layers {
            fs::create_dir(layer.join(format!("dir-{dir}")))?;
        }
        for file in 0..WIDTH.min(files - dir * WIDTH) {
            fs::File::create(layers[file % 2].join(format!("dir-{dir}/file-{file}")))?;
        }
    }
    Ok(())
}

/// The server of a mount, which ends with it.
struct Server(Child);

impl Server {
    fn start(options: &str, target: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(program("layerfs"));
        let mut server = Self(command.arg("-f").arg("-o").arg(options).arg(target).spawn()?);
        while !mounts_below("/".as_ref()).iter().any(|point| point == target) {
            if let Some(status) = server.0.try_wait()? {
                return Err(format!("layerfs: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks at every file, as `find -ls` does.
fn walk(dir: &Path) -> Result<usize, Failure> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        count += 1;
        if fs::symlink_metadata(&path)?.is_dir() {
            count += walk(&path)?;
        }
    }
    Ok(count)
}

#[expect(clippy::print_stdout, reason = "the figures are what a benchmark is for")]
fn main() -> Result<(), Failure> {
    let files = std::env::var("WALK_FILES").ok().map(|text| text.parse()).transpose()?;
    let files = files.unwrap_or(FILES);
    let root = TempRoot::in_memory("walk");
    for name in ["bottom", "top", "upper", "work", "merged"] {
        fs::create_dir(root.join(name))?;
    }
    let (bottom, top, merged) = (root.join("bottom"), root.join("top"), root.join("merged"));
    fill(&[&bottom, &top], files)?;
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        top.display(),
        bottom.display(),
        root.join("upper").display(),
        root.join("work").display()
    );
    let server = Server::start(&options, &merged)?;
    let pid = server.0.id();
    let before = Footprint::of(pid)?;
    let start = Instant::now();
    let count = walk(&merged)?;
    let took = start.elapsed();
    let after = Footprint::of(pid)?;
    let bytes = (after.resident.saturating_sub(before.resident) << 10) / u64::try_from(count)?;
    println!("{count} inodes in {:.1} s", took.as_secs_f64());
    println!("layerfs before: {before:?}; after: {after:?}; {bytes} bytes an inode");
    drop(root);
    drop(server);
    if bytes > 400 {
        return Err("more than 400 bytes an inode".into());
    }
    Ok(())
}
