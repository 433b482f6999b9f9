//! `layerctl cp`: copies files out of an image, layer or container.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cow::meta::{FileKind, Time};
use cow::stack::Tree;

use crate::context::Session;
use crate::exit::tell;
use crate::inspect::{self, Contents, Subject, path_text, split_path};

/// Copy a file, or a directory with all that is in it, out of an image, layer, container or archive
///
/// Modes and times are kept, owners are not; devices and pipes are left out. What exists already is
/// not overwritten.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where, and which file: debian:12:/etc/apt, ./image.tar#2:/srv
    #[arg(value_name = "IMAGE|LAYER:PATH")]
    from: String,
    /// A directory to copy into, or the new name
    #[arg(value_name = "DEST")]
    to: PathBuf,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let (target, path) = split_path(&args.from)?;
    let subject = inspect::open(session, &target)?;
    let tree = subject.tree(Contents::Skip)?;
    let top = tree.lookup(path)?;
    let top = top.with_context(|| format!("{}: {path}: no such file", subject.name))?;
    let name = top.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let to = if args.to.is_dir() && !name.is_empty() {
        args.to.join(OsStr::from_bytes(name))
    } else {
        args.to.clone()
    };
    for path in copy(&subject, &tree, top.path, &to)? {
        tell(&format!("{path}: left out, it is no file"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A file that waits for its content.
struct Waiting {
    path: PathBuf,
    mode: u32,
    mtime: Time,
}

/// Makes the directories, then the files, each layer read once, then further names and links, and
/// last gives directories their modes and times.
///
/// Every path is made here, parents first, and never through a link of the image: links are made
/// after all else. What is there already is not overwritten. Gives the paths that are left out since
/// they are no files: devices and pipes.
pub(crate) fn copy(
    subject: &Subject,
    tree: &Tree,
    top: &[u8],
    to: &Path,
) -> anyhow::Result<Vec<String>> {
    let mut waiting: BTreeMap<(usize, usize), Waiting> = BTreeMap::new();
    let mut names: HashMap<(usize, usize), PathBuf> = HashMap::new();
    let (mut dirs, mut further, mut links) = (Vec::new(), Vec::new(), Vec::new());
    let mut left_out = Vec::new();
    for file in tree.below(top) {
        let rest = &file.path[top.len()..];
        let path = match rest.strip_prefix(b"/").unwrap_or(rest) {
            b"" => to.to_owned(),
            rest => to.join(OsStr::from_bytes(rest)),
        };
        let (mode, mtime) = (file.facts.mode() & 0o777, file.facts.mtime());
        match file.facts.kind() {
            Some(FileKind::Dir) => {
                let made = DirBuilder::new().mode(0o700).create(&path);
                made.with_context(|| format!("make {}", path.display()))?;
                dirs.push((path, mode, mtime));
            }
            Some(FileKind::File) => match names.entry((file.stored.layer(), file.facts.inode())) {
                Entry::Occupied(first) => further.push((first.get().clone(), path)),
                Entry::Vacant(name) => {
                    name.insert(path.clone());
                    let at = (file.stored.layer(), file.stored.row());
                    waiting.insert(at, Waiting { path, mode, mtime });
                }
            },
            Some(FileKind::Symlink) => links.push((file.facts.link(), path)),
            _ => left_out.push(path_text(file.path)),
        }
    }
    fill(subject, tree, &mut waiting)?;
    for (first, path) in further {
        fs::hard_link(first, &path).with_context(|| format!("make {}", path.display()))?;
    }
    for (text, path) in links {
        let made = symlink(OsStr::from_bytes(text), &path);
        made.with_context(|| format!("make {}", path.display()))?;
    }
    for (path, mode, mtime) in dirs.into_iter().rev() {
        finish(&path, mode, mtime).with_context(|| format!("set {}", path.display()))?;
    }
    Ok(left_out)
}

/// Makes the files with their contents.
fn fill(
    subject: &Subject,
    tree: &Tree,
    waiting: &mut BTreeMap<(usize, usize), Waiting>,
) -> anyhow::Result<()> {
    for (layer, index) in tree.stack().layers().iter().enumerate() {
        let rows: Vec<usize> =
            waiting.range((layer, 0)..(layer + 1, 0)).map(|((_, row), _)| *row).collect();
        if rows.is_empty() {
            continue;
        }
        subject.source.read(layer, index, &rows, &mut |row, content| {
            let Some(file) = waiting.remove(&(layer, row)) else { return Ok(()) };
            write(&file, content).with_context(|| format!("write {}", file.path.display()))
        })?;
    }
    match waiting.values().next() {
        Some(missing) => bail!("{}: the content is not there", missing.path.display()),
        None => Ok(()),
    }
}

fn write(file: &Waiting, content: &mut dyn Read) -> anyhow::Result<()> {
    let mut made =
        OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&file.path)?;
    io::copy(content, &mut made)?;
    set_mtime(&made, file.mtime)
}

fn finish(path: &Path, mode: u32, mtime: Time) -> anyhow::Result<()> {
    let dir = File::open(path)?;
    rustix::fs::fchmod(&dir, rustix::fs::Mode::from_raw_mode(mode))?;
    set_mtime(&dir, mtime)
}

fn set_mtime(file: &File, mtime: Time) -> anyhow::Result<()> {
    let time = rustix::fs::Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::futimens(file, &times)?)
}
