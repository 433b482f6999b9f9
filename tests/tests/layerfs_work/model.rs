//! What a tree must hold after a row of random changes, told without a file system.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    /// A file by its number: hard links share one.
    File(usize),
    Link(PathBuf),
}

/// Numbers that look random and are the same for the same seed (xorshift64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(usize::MAX) % bound.max(1)
    }
}

/// A tree and what it must hold.
#[derive(Debug)]
pub(crate) struct Model {
    root: PathBuf,
    nodes: BTreeMap<PathBuf, Node>,
    files: Vec<Vec<u8>>,
    serial: usize,
}

impl Model {
    /// A tree that was made by [`populate`].
    pub(crate) fn populated(root: PathBuf) -> Self {
        let mut model = Self { root, nodes: BTreeMap::new(), files: Vec::new(), serial: 0 };
        for (path, content) in populated() {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                model.nodes.insert(parent.to_owned(), Node::Dir);
            }
            model.add_file(path, content);
        }
        model
    }

    fn add_file(&mut self, path: PathBuf, content: Vec<u8>) {
        self.files.push(content);
        self.nodes.insert(path, Node::File(self.files.len() - 1));
    }

    /// One random change or look.
    pub(crate) fn step(&mut self, random: &mut Random) -> io::Result<()> {
        match random.below(15) {
            0 => self.create(random),
            1 => self.make_dir(random),
            2 => self.remove(random),
            3 => self.remove_dir(random),
            4 | 5 => self.rename(random),
            6 => self.link(random),
            7 => self.symlink(random),
            8 => self.truncate(random),
            9 => self.list(random),
            10 | 11 => self.read(random),
            _ => self.write(random),
        }
    }

    fn pick(&self, random: &mut Random, want: impl Fn(&Node) -> bool) -> Option<PathBuf> {
        let all: Vec<_> = self.nodes.iter().filter(|(_, node)| want(node)).collect();
        (!all.is_empty()).then(|| all[random.below(all.len())].0.clone())
    }

    fn pick_file(&self, random: &mut Random) -> Option<(PathBuf, usize)> {
        let path = self.pick(random, |node| matches!(node, Node::File(_)))?;
        match self.nodes[&path] {
            Node::File(number) => Some((path, number)),
            _ => None,
        }
    }

    /// A directory, the root among them.
    fn pick_dir(&self, random: &mut Random) -> PathBuf {
        let root = random.below(4) == 0;
        let dir = self.pick(random, |node| *node == Node::Dir).filter(|_| !root);
        dir.unwrap_or_default()
    }

    fn fresh(&mut self, random: &mut Random) -> PathBuf {
        self.serial += 1;
        self.pick_dir(random).join(format!("new-{}", self.serial))
    }

    fn create(&mut self, random: &mut Random) -> io::Result<()> {
        let path = self.fresh(random);
        let content =
            vec![b'a' + u8::try_from(self.serial % 26).unwrap_or(0); random.below(20_000)];
        fs::write(self.root.join(&path), &content).map_err(failed(&path, "create"))?;
        self.add_file(path, content);
        Ok(())
    }

    fn make_dir(&mut self, random: &mut Random) -> io::Result<()> {
        let path = self.fresh(random);
        fs::create_dir(self.root.join(&path)).map_err(failed(&path, "mkdir"))?;
        self.nodes.insert(path, Node::Dir);
        Ok(())
    }

    fn remove(&mut self, random: &mut Random) -> io::Result<()> {
        let Some(path) = self.pick(random, |node| *node != Node::Dir) else { return Ok(()) };
        fs::remove_file(self.root.join(&path)).map_err(failed(&path, "unlink"))?;
        self.nodes.remove(&path);
        Ok(())
    }

    fn remove_dir(&mut self, random: &mut Random) -> io::Result<()> {
        let Some(path) = self.pick(random, |node| *node == Node::Dir) else { return Ok(()) };
        let is_empty = !self.nodes.keys().any(|other| other != &path && other.starts_with(&path));
        match fs::remove_dir(self.root.join(&path)) {
            Ok(()) if is_empty => drop(self.nodes.remove(&path)),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && !is_empty => {}
            outcome => return Err(told(&path, "rmdir", format!("{outcome:?}, empty: {is_empty}"))),
        }
        Ok(())
    }

    /// A rename to a fresh name, or of a file over another one.
    fn rename(&mut self, random: &mut Random) -> io::Result<()> {
        let Some(from) = self.pick(random, |_| true) else { return Ok(()) };
        let over = self.pick_file(random).filter(|_| self.nodes[&from] != Node::Dir);
        let to = match over {
            Some((path, _)) if random.below(2) == 0 => path,
            _ => self.fresh(random),
        };
        if to.starts_with(&from) {
            return Ok(());
        }
        fs::rename(self.root.join(&from), self.root.join(&to)).map_err(failed(&from, "rename"))?;
        // rename(2): two names of one file are left as they are.
        if self.nodes.get(&to) == self.nodes.get(&from) && self.nodes[&from] != Node::Dir {
            return Ok(());
        }
        let moved: Vec<_> =
            self.nodes.keys().filter(|path| path.starts_with(&from)).cloned().collect();
        for path in moved {
            let below = path.strip_prefix(&from).unwrap_or(Path::new(""));
            let new = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
            if let Some(node) = self.nodes.remove(&path) {
                self.nodes.insert(new, node);
            }
        }
        Ok(())
    }

    fn link(&mut self, random: &mut Random) -> io::Result<()> {
        let Some((old, number)) = self.pick_file(random) else { return Ok(()) };
        let new = self.fresh(random);
        fs::hard_link(self.root.join(old), self.root.join(&new)).map_err(failed(&new, "link"))?;
        self.nodes.insert(new, Node::File(number));
        Ok(())
    }

    fn symlink(&mut self, random: &mut Random) -> io::Result<()> {
        let path = self.fresh(random);
        let target = PathBuf::from(format!("to/{}", self.serial));
        std::os::unix::fs::symlink(&target, self.root.join(&path))
            .map_err(failed(&path, "symlink"))?;
        self.nodes.insert(path, Node::Link(target));
        Ok(())
    }

    fn open_to_write(&self, path: &Path) -> io::Result<fs::File> {
        let file = fs::OpenOptions::new().write(true).open(self.root.join(path));
        file.map_err(failed(path, "open"))
    }

    fn truncate(&mut self, random: &mut Random) -> io::Result<()> {
        let Some((path, number)) = self.pick_file(random) else { return Ok(()) };
        let length = random.below(30_000);
        let file = self.open_to_write(&path)?;
        file.set_len(length as u64).map_err(failed(&path, "truncate"))?;
        self.files[number].resize(length, 0);
        Ok(())
    }

    fn write(&mut self, random: &mut Random) -> io::Result<()> {
        let Some((path, number)) = self.pick_file(random) else { return Ok(()) };
        let (at, length) = (random.below(25_000), 1 + random.below(9_000));
        let byte = b'A' + u8::try_from(random.below(26)).unwrap_or(0);
        let bytes = vec![byte; length];
        self.open_to_write(&path)?
            .write_all_at(&bytes, at as u64)
            .map_err(failed(&path, "write"))?;
        let content = &mut self.files[number];
        content.resize(content.len().max(at + length), 0);
        content[at..at + length].fill(byte);
        Ok(())
    }

    fn read(&self, random: &mut Random) -> io::Result<()> {
        let Some((path, number)) = self.pick_file(random) else { return Ok(()) };
        self.check_file(&path, number)
    }

    fn list(&self, random: &mut Random) -> io::Result<()> {
        let dir = self.pick_dir(random);
        self.check_dir(&dir)
    }

    fn check_file(&self, path: &Path, number: usize) -> io::Result<()> {
        let found = fs::read(self.root.join(path)).map_err(failed(path, "read"))?;
        let expected = &self.files[number];
        if found == *expected {
            return Ok(());
        }
        let at = found.iter().zip(expected).position(|(a, b)| a != b);
        let lengths = (found.len(), expected.len());
        Err(told(path, "read", format!("differs at {at:?}; found and expected length {lengths:?}")))
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(dir)).map_err(failed(dir, "list"))? {
            found.push(dir.join(entry.map_err(failed(dir, "list"))?.file_name()));
        }
        found.sort_unstable();
        let expected: Vec<_> =
            self.nodes.keys().filter(|path| path.parent() == Some(dir)).cloned().collect();
        if found == expected {
            return Ok(());
        }
        Err(told(dir, "list", format!("found {found:?}, expected {expected:?}")))
    }

    /// Looks at the whole tree.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.check_dir(Path::new(""))?;
        for (path, node) in &self.nodes {
            match node {
                Node::Dir => self.check_dir(path)?,
                Node::File(number) => self.check_file(path, *number)?,
                Node::Link(target) => {
                    let found =
                        fs::read_link(self.root.join(path)).map_err(failed(path, "readlink"))?;
                    if found != *target {
                        return Err(told(path, "readlink", format!("{found:?}, not {target:?}")));
                    }
                }
            }
        }
        Ok(())
    }
}

fn told(path: &Path, op: &str, what: String) -> io::Error {
    io::Error::other(format!("{op} {}: {what}", path.display()))
}

/// Says of an error what was done where.
fn failed(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| told(path, op, error.to_string())
}

/// The files that every tree begins with.
fn populated() -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for dir in ["", "one", "two"] {
        for number in 0..8_u8 {
            let content = vec![b'0' + number; 1000 * usize::from(number)];
            files.push((Path::new(dir).join(format!("old-{number}")), content));
        }
    }
    files
}

/// Writes the first files of a tree, half of them into each of two layers.
pub(crate) fn populate(bottom: &Path, top: &Path) -> io::Result<()> {
    for (number, (path, content)) in populated().into_iter().enumerate() {
        let layer = if number % 2 == 0 { bottom } else { top };
        let path = layer.join(path);
        fs::create_dir_all(path.parent().unwrap_or(layer))?;
        fs::write(path, content)?;
    }
    Ok(())
}
