//! Content that several layers have, kept once (option `dedupe`).
//!
//! Before a layer gets its final form, the files that it wrote are summed and looked up in what earlier
//! layers noted of theirs ([`sums`](super::sums)). For two that seem equal the kernel is asked to let them
//! share their extents: it compares them itself, with writers held off, so that neither a stale note nor
//! a file that changes meanwhile can harm. It is done to the writable tree: a committed one that changed
//! would look changed to its children.
//!
//! Nothing here fails a layer: what cannot be shared is not.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroU64;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::thread;

use cow::digest::Digester;
use cow::root::Root;
use cow_sys::dedupe::{self, Compared};
use rustix::fs::Advice;

use super::search::Paths;
use super::since::WrittenFile;
use super::sums::{MOST, Record, Shared, Sums};
use super::{Btrfs, RO, removal, since};
use crate::driver::State;
use crate::home::{Layer, fs};

/// The least size of a file that is looked at: a block. What is smaller lies in the tree itself, or saves
/// less than the note of it takes.
const LEAST: u64 = 4096;
/// The most threads at work on one layer: more wait for each other in the kernel.
const MOST_THREADS: usize = 4;

/// What became of the files of a layer that seemed equal to others.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    shared: Shared,
    /// Files that turned out to differ: written to meanwhile, or a note is stale.
    differing: u64,
    /// Files that could not be read, or that the kernel did not let share.
    failed: u64,
}

impl Btrfs {
    /// Lets the files that a layer wrote share their extents with equal ones of earlier layers, and notes
    /// them for later ones. `begun` is the transaction in which its tree was made.
    pub(super) fn share_equal(&self, layer: &Layer, tree: &OwnedFd, begun: u64) {
        match self.try_share(layer, tree, begun) {
            Ok(Tally { shared: Shared { files, bytes }, differing, failed }) => {
                self.unshared.fetch_add(failed, Ordering::Relaxed);
                tracing::info!(layer = %layer.id, files, bytes, differing, failed, "deduplicated");
            }
            Err(error) => {
                self.unshared.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(layer = %layer.id, %error, "not deduplicated");
            }
        }
    }

    fn try_share(&self, layer: &Layer, tree: &OwnedFd, begun: u64) -> cow::Result<Tally> {
        // Content gets its place, and the file system's tree shows it, when it is written out.
        removal::settle(tree)?;
        let mut files = since::written_files(tree, begun.saturating_sub(1), LEAST)?;
        if files.len() > MOST {
            tracing::info!(layer = %layer.id, files = files.len(), most = MOST, "only the largest are looked at");
            files.select_nth_unstable_by_key(MOST, |file| std::cmp::Reverse(file.size));
            files.truncate(MOST);
        }
        let mut tally = Tally::default();
        let sums = side_by_side(&files, |files| sum_all(tree, files));
        let mut records: Vec<Record> = sums.into_iter().flatten().flatten().collect();
        tally.failed += (files.len() - records.len()) as u64;
        records.sort_unstable();
        let mut alone = records.clone();
        for other in self.home.layers() {
            if other.id != layer.id && other.state() == State::Committed && !alone.is_empty() {
                // What is removed meanwhile has nothing to share.
                let _ = self.share_with(&other, tree, &mut alone, &mut tally);
            }
        }
        share_within(&mut Tree::new(tree)?, &alone, &mut tally);
        let sums = Sums { shared: tally.shared, records };
        sums.write(self.home.open_in_layer(&layer.id, ".")?)?;
        Ok(tally)
    }

    /// Lets files share with those of one layer that are noted with the same content; `records` are those
    /// that have found none yet.
    fn share_with(
        &self,
        other: &Layer,
        tree: &OwnedFd,
        records: &mut Vec<Record>,
        tally: &mut Tally,
    ) -> cow::Result<()> {
        let dir = self.home.open_in_layer(&other.id, ".")?;
        let Some(Sums { records: noted, .. }) = Sums::read(&dir) else { return Ok(()) };
        let dir = fs::open_dir(&dir, RO)?;
        let pairs = pairs(&noted, records);
        let outcomes = side_by_side(&pairs, |pairs| share_all(&dir, tree, pairs));
        let mut shared = HashSet::new();
        for (ino, outcome) in outcomes.into_iter().flatten() {
            if tally.take(outcome) {
                shared.insert(ino);
            }
        }
        records.retain(|record| !shared.contains(&record.ino));
        Ok(())
    }

    /// What all layers share, as a person is told.
    pub(super) fn shared_fact(&self) -> String {
        if !self.options.dedupe {
            return "off".to_owned();
        }
        let mut all = Shared::default();
        for layer in self.home.layers() {
            let dir = self.home.open_in_layer(&layer.id, ".");
            if let Some(shared) = dir.ok().and_then(Sums::shared) {
                all.files += shared.files;
                all.bytes += shared.bytes;
            }
        }
        let failed = self.unshared.load(Ordering::Relaxed);
        format!("{} bytes in {} files shared, {failed} failed", all.bytes, all.files)
    }

    /// What one layer shares with others by deduplication.
    pub(super) fn shared_by(&self, layer: &Layer) -> Option<Shared> {
        self.home.open_in_layer(&layer.id, ".").ok().and_then(Sums::shared)
    }
}

impl Tally {
    /// Counts a file; whether it shares now.
    fn take(&mut self, outcome: cow::Result<Option<u64>>) -> bool {
        match outcome {
            Ok(Some(bytes)) => {
                self.shared.files += 1;
                self.shared.bytes += bytes;
                return true;
            }
            Ok(None) => self.differing += 1,
            Err(_) => self.failed += 1,
        }
        false
    }
}

/// Lets equal files of one layer share, each with the one before it.
fn share_within(own: &mut Tree<'_>, records: &[Record], tally: &mut Tally) {
    for pair in records.windows(2) {
        if pair[0].content() == pair[1].content() {
            let files = own.open(pair[0].ino).and_then(|from| Ok((from, own.open(pair[1].ino)?)));
            tally.take(files.and_then(|(from, to)| share_files(&from, &to)));
        }
    }
}

/// A subvolume whose files are opened by their inodes.
struct Tree<'d> {
    root: Root,
    paths: Paths<'d>,
}

impl<'d> Tree<'d> {
    fn new(dir: &'d OwnedFd) -> cow::Result<Self> {
        Ok(Self {
            root: Root::from_fd(fs::open_dir(dir, ".")?, ""),
            paths: Paths::new(dir.as_fd()),
        })
    }

    fn open(&mut self, ino: u64) -> cow::Result<File> {
        let path = self.paths.of(ino)?;
        self.root.open_file(&path).map(File::from)
    }
}

/// The first half of the digest of a file's content up to `size`: it may grow meanwhile.
fn sum(file: &File, size: u64) -> cow::Result<[u8; 16]> {
    let mut digester = Digester::new(io::sink());
    io::copy(&mut file.take(size), &mut digester)
        .map_err(|source| cow::Error::sys("read", "", source))?;
    let (_, digest, _) = digester.finish();
    let mut sum = [0; 16];
    sum.copy_from_slice(&digest.as_bytes()[..16]);
    Ok(sum)
}

/// Sums files of a tree; none for one that cannot be read.
fn sum_all(tree: &OwnedFd, files: &[WrittenFile]) -> Vec<Option<Record>> {
    let Ok(mut tree) = Tree::new(tree) else { return Vec::new() };
    let record = |&WrittenFile { ino, size }: &WrittenFile| {
        let sum = tree.open(ino).and_then(|file| sum(&file, size)).ok()?;
        Some(Record { sum, size, ino })
    };
    files.iter().map(record).collect()
}

/// What is noted of one layer and of another with the same content. Both are ordered.
fn pairs(noted: &[Record], records: &[Record]) -> Vec<(Record, Record)> {
    let mut noted = noted.iter().peekable();
    let like = |record: &Record| {
        while noted.next_if(|their| their.content() < record.content()).is_some() {}
        let like = noted.peek().filter(|their| their.content() == record.content());
        like.map(|&&like| (like, *record))
    };
    records.iter().filter_map(like).collect()
}

/// Lets files of one tree share with those of another, pair by pair; the outcomes are by the inodes of `own`.
fn share_all(
    theirs: &OwnedFd,
    own: &OwnedFd,
    pairs: &[(Record, Record)],
) -> Vec<(u64, cow::Result<Option<u64>>)> {
    let (Ok(mut theirs), Ok(mut own)) = (Tree::new(theirs), Tree::new(own)) else {
        return Vec::new();
    };
    let mut share = |like: &Record, record: &Record| {
        share_files(&theirs.open(like.ino)?, &own.open(record.ino)?)
    };
    pairs.iter().map(|(like, record)| (record.ino, share(like, record))).collect()
}

/// Does work of which the order does not matter in several threads, a part in each; the outcomes are in order.
fn side_by_side<T: Sync, R: Send>(work: &[T], each: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let each = &each;
    thread::scope(|scope| {
        let start = |part| {
            let named = thread::Builder::new().name("dedupe".to_owned());
            // Without a thread, here.
            named.spawn_scoped(scope, move || each(part)).map_err(|_| each(part))
        };
        let parts = work.chunks(work.len().div_ceil(threads).max(1));
        let parts: Vec<_> = parts.map(start).collect();
        parts
            .into_iter()
            .filter_map(|part| part.map_or_else(Some, |part| part.join().ok()))
            .collect()
    })
}

/// Lets two files share what they hold; gives the bytes, and none where they differ.
fn share_files(from: &File, to: &File) -> cow::Result<Option<u64>> {
    let failed = |errno| cow::Error::sys("share extents", "", errno);
    let stat = rustix::fs::fstat(from).map_err(failed)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut at = 0;
    while at < size {
        let length = (size - at).min(dedupe::MOST);
        // The kernel compares page by page, and waits for the disk at each that is not in memory.
        let _ = rustix::fs::fadvise(from, at, NonZeroU64::new(length), Advice::WillNeed);
        match dedupe::share(from, to, at, length).map_err(failed)? {
            Compared::Shared(0) | Compared::Differs => return Ok(None),
            Compared::Shared(bytes) => at += bytes,
        }
    }
    Ok(Some(size))
}
