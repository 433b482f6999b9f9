//! The btrfs driver on a loop device: whether a layer's life costs the same for 10 files and for 50,000,
//! with a stock of snapshots and without, a diff of 10 changed files against a walk over both trees, and imports
//! beside overlay2's.
//!
//! Words keep the parts that are named: `lives`, `ages`, `crowds`, `removals`, `diffs`, `shares`, `imports`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use benches::engines::{self, Daemon};
use benches::rounds::{self, Contestant};
use benches::{Failure, run};
use cow::root::Root;
use drivers::{Access, CreateOptions, Driver, LayerId, LayerRecord};
use tests::disk;
use tests::root::TempRoot;
use tests::stock;

const SMALL: usize = 10;
const LARGE: usize = 50_000;
const CHANGED: usize = 10;
const ROUNDS: usize = 20;
const NAME: &str = "localhost/debian-four:latest";

type Times = Vec<(String, Vec<Duration>)>;

fn id(text: &str) -> Result<LayerId, Failure> {
    text.parse().map_err(|error| format!("id {text}: {error}").into())
}

fn path_of(file: usize) -> String {
    format!("dir{}/file{file}", file / 100)
}

/// The tar of a layer of so many files of one to four KiB.
fn tar(dir: &Path, files: usize) -> Result<PathBuf, Failure> {
    let tree = dir.join(format!("tree-{files}"));
    for file in 0..files {
        let path = tree.join(path_of(file));
        if file % 100 == 0 {
            fs::create_dir_all(tree.join(format!("dir{}", file / 100)))?;
        }
        fs::write(path, vec![b'x'; 1024 + file % 3072])?;
    }
    let tar = dir.join(format!("{files}.tar"));
    run(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&tar).arg("."))?;
    fs::remove_dir_all(tree)?;
    Ok(tar)
}

fn timed(
    times: &mut Vec<Duration>,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let start = Instant::now();
    work()?;
    times.push(start.elapsed());
    Ok(())
}

/// A driver with its own home on the file system of the others.
struct Store {
    driver: Box<dyn Driver>,
    home: PathBuf,
    label: &'static str,
}

impl Store {
    fn open(root: &TempRoot, label: &'static str, option: &str) -> Result<Self, Failure> {
        let home = root.join(option);
        let driver = drivers::open("btrfs", &home, &[option])?;
        Ok(Self { driver, home, label })
    }
}

/// A row for each store and each size of a layer.
fn rows(stores: &[Store], tars: &[(usize, PathBuf)]) -> Times {
    let row = |store: &Store, files: usize| (format!("{files} files{}", store.label), Vec::new());
    stores.iter().flat_map(|store| tars.iter().map(move |(files, _)| row(store, *files))).collect()
}

fn import_tar(driver: &dyn Driver, image: &LayerId, tar: &Path) -> Result<(), Failure> {
    driver.create(image, None, &CreateOptions::active())?;
    driver.apply(image, &mut fs::File::open(tar)?)?;
    Ok(())
}

fn commit(driver: &dyn Driver, layer: &LayerId) -> Result<(), Failure> {
    Ok(driver.commit(layer, &LayerRecord::default()).map(drop)?)
}

/// Layers of few and of many files: commit and removal of the layer, and preparation, commit and
/// removal of a container on it, round by round.
fn lives(stores: &[Store], tars: &[(usize, PathBuf)]) -> Result<(), Failure> {
    let mut tables: [Times; 4] = std::array::from_fn(|_| rows(stores, tars));
    let active = CreateOptions::active();
    let (image, container) = (id("image")?, id("container")?);
    for (store, first) in stores.iter().zip((0..).step_by(tars.len())) {
        // What one store frees would be felt in the other.
        settle(stores, 0)?;
        let each = (0..3).flat_map(|_round| tars.iter().enumerate());
        for (at, (_, tar)) in each {
            let (driver, at) = (&*store.driver, first + at);
            import_tar(driver, &image, tar)?;
            timed(&mut tables[2][at].1, || commit(driver, &image))?;
            for _ in 0..ROUNDS / 2 {
                timed(&mut tables[0][at].1, || {
                    Ok(driver.create(&container, Some(&image), &active)?)
                })?;
                write_in(driver, &container, &["new"])?;
                timed(&mut tables[1][at].1, || commit(driver, &container))?;
                driver.remove(&container)?;
            }
            timed(&mut tables[3][at].1, || Ok(driver.remove(&image)?))?;
        }
    }
    let titles = [
        "prepare a container on a layer",
        "commit a container's layer on it",
        "commit an image's layer",
        "remove an image's layer",
    ];
    titles.into_iter().zip(&tables).for_each(|(title, table)| rounds::table(title, table));
    Ok(())
}

/// Clients that make containers side by side, each with a pause between two: whether those that a stock does not
/// serve wait for it.
fn crowds(stores: &[Store], tars: &[(usize, PathBuf)]) -> Result<(), Failure> {
    const CLIENTS: usize = 8;
    let mut tables: [Times; 2] = std::array::from_fn(|_| rows(stores, tars));
    let each = stores.iter().flat_map(|store| tars.iter().map(move |(_, tar)| (store, tar)));
    for (at, (store, tar)) in each.enumerate() {
        let (driver, image) = (&*store.driver, id("image")?);
        import_tar(driver, &image, tar)?;
        commit(driver, &image)?;
        settle(stores, 0)?;
        let client = |client: usize| -> Result<[Vec<Duration>; 2], String> {
            let mut times: [Vec<Duration>; 2] = Default::default();
            let mut round = |number: usize| -> Result<(), Failure> {
                let container = id(&format!("container-{client}-{number}"))?;
                let active = CreateOptions::active();
                timed(&mut times[0], || Ok(driver.create(&container, Some(&image), &active)?))?;
                write_in(driver, &container, &["new"])?;
                timed(&mut times[1], || commit(driver, &container))?;
                std::thread::sleep(Duration::from_millis(100));
                Ok(driver.remove(&container)?)
            };
            (0..2 * ROUNDS).try_for_each(&mut round).map_err(|error| error.to_string())?;
            Ok(times)
        };
        let taken: Result<Vec<_>, String> = std::thread::scope(|scope| {
            let started: Vec<_> =
                (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
            let joined = started.into_iter().map(|thread| thread.join());
            joined.map(|taken| taken.unwrap_or_else(|_| Err("a client panics".into()))).collect()
        });
        for [prepared, committed] in taken? {
            tables[0][at].1.extend(prepared);
            tables[1][at].1.extend(committed);
        }
        driver.remove(&image)?;
    }
    rounds::table("prepare a container, 8 clients", &tables[0]);
    rounds::table("commit a container, 8 clients", &tables[1]);
    Ok(())
}

/// Waits until nothing is left to do from earlier calls: neither for the drivers' threads, of which each stock has so
/// many spares then, nor for the kernel's cleaner, and what was written is on the disk.
fn settle(stores: &[Store], spares: usize) -> Result<(), Failure> {
    for store in stores {
        let has_spares = || {
            let ready = stock::spares(&store.driver.status());
            ready.is_none_or(|ready| ready >= spares && names(&store.home.join("stock")) == ready)
        };
        let places = ["tmp", "trash"].map(|place| store.home.join(place));
        while places.iter().any(|place| names(place) > 0) || !has_spares() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let home = &stores[0].home;
    disk::clean_btrfs(home);
    Ok(rustix::fs::syncfs(fs::File::open(home)?)?)
}

/// How many names there are in a directory, which need not be there.
fn names(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Writes files of a container.
fn write_in(driver: &dyn Driver, container: &LayerId, names: &[&str]) -> Result<(), Failure> {
    let path = driver.mount(container, Access::Default)?;
    names.iter().try_for_each(|name| fs::write(path.join(name), "new"))?;
    Ok(driver.unmount(container)?)
}

/// What the calls of a container's life cost by themselves: whatever others left in the file system's
/// transaction is written out before each. Layers of few and of many files take turns.
///
/// A container whose first writes the kernel has written out, as it does every 30 s, is committed with one more
/// file.
fn ages(stores: &[Store], tars: &[(usize, PathBuf)]) -> Result<(), Failure> {
    let mut tables: [Times; 4] = std::array::from_fn(|_| rows(stores, tars));
    let active = CreateOptions::active();
    let image = |files: &usize| id(&format!("image-{files}"));
    let [young, old] = [id("young")?, id("old")?];
    for store in stores {
        for (files, tar) in tars {
            let (driver, image) = (&*store.driver, image(files)?);
            import_tar(driver, &image, tar)?;
            commit(driver, &image)?;
            for _ in 0..2 {
                driver.create(&young, Some(&image), &active)?;
                driver.remove(&young)?;
            }
        }
    }
    let settle = || settle(stores, tars.len());
    for _round in 0..ROUNDS {
        let each =
            stores.iter().flat_map(|store| tars.iter().map(move |(files, _)| (store, files)));
        for (at, (store, files)) in each.enumerate() {
            let (driver, image) = (&*store.driver, image(files)?);
            settle()?;
            timed(&mut tables[0][at].1, || Ok(driver.create(&young, Some(&image), &active)?))?;
            settle()?;
            write_in(driver, &young, &["new"])?;
            timed(&mut tables[1][at].1, || commit(driver, &young))?;
            driver.create(&old, Some(&image), &active)?;
            write_in(driver, &old, &["first", "second"])?;
            settle()?;
            write_in(driver, &old, &["new"])?;
            timed(&mut tables[2][at].1, || commit(driver, &old))?;
            settle()?;
            timed(&mut tables[3][at].1, || Ok(driver.remove(&young)?))?;
            driver.remove(&old)?;
        }
    }
    for store in stores {
        for (files, _) in tars {
            store.driver.remove(&image(files)?)?;
        }
    }
    let titles = [
        "prepare a container, nothing left from others",
        "commit a container right after its first write",
        "commit a container whose first writes are on the disk",
        "remove a container's layer",
    ];
    titles.into_iter().zip(&tables).for_each(|(title, table)| rounds::table(title, table));
    Ok(())
}

/// Containers that are prepared in the time in which the kernel frees a large layer after its removal; the
/// clients come now and then.
fn removals(driver: &dyn Driver, tars: &[(usize, PathBuf)]) -> Result<(), Failure> {
    let active = CreateOptions::active();
    let [small, large] = [id("small")?, id("large")?];
    driver.create(&small, None, &active)?;
    driver.commit(&small, &LayerRecord::default())?;
    let mut times = vec![("one a second, 35 s".to_owned(), Vec::new())];
    times.push(("the slowest of each round".to_owned(), Vec::new()));
    for round in 0..3 {
        driver.create(&large, None, &active)?;
        driver.apply(&large, &mut fs::File::open(&tars[1].1)?)?;
        driver.commit(&large, &LayerRecord::default())?;
        driver.remove(&large)?;
        for second in 0..35 {
            std::thread::sleep(Duration::from_secs(1));
            let container = id(&format!("container-{round}-{second}"))?;
            timed(&mut times[0].1, || Ok(driver.create(&container, Some(&small), &active)?))?;
        }
        let slowest = times[0].1[round * 35..].iter().max().copied();
        times[1].1.extend(slowest);
    }
    rounds::table("prepare a container after the removal of a layer of 50,000 files", &times);
    for container in driver.list()?.iter().filter(|layer| layer.parent.is_some()) {
        driver.remove(&container.id)?;
    }
    Ok(driver.remove(&small)?)
}

/// A walk over both trees that believes metadata, as other engines do it: the time is that of a look
/// at every file of both.
fn metadata_walk(lower: &Root, upper: &Root) -> Result<usize, Failure> {
    let mut seen = Vec::new();
    for root in [lower, upper] {
        let mut files = std::collections::BTreeMap::new();
        let mut walk = cow::walk::Walk::new(root, cow::walk::Vanished::Fail)?;
        while let Some(entry) = walk.next_entry()? {
            let meta = entry.meta;
            files.insert(entry.path.to_owned(), (meta.kind, meta.mode, meta.size, meta.mtime));
        }
        seen.push(files);
    }
    Ok(seen[1].iter().filter(|(path, meta)| seen[0].get(*path) != Some(meta)).count())
}

fn diffs(driver: &dyn Driver, home: &Path, tar: &Path) -> Result<(), Failure> {
    let (image, container) = (id("image")?, id("container")?);
    let active = CreateOptions::active();
    driver.create(&image, None, &active)?;
    driver.apply(&image, &mut fs::File::open(tar)?)?;
    driver.commit(&image, &LayerRecord::default())?;
    driver.create(&container, Some(&image), &active)?;
    let path = driver.mount(&container, Access::Default)?;
    for file in 0..CHANGED {
        fs::write(path.join(path_of(file * LARGE / CHANGED)), "changed")?;
    }
    driver.unmount(&container)?;
    // Through a mount, which notes no times of access: the walk would write every inode that it reads.
    let lower = Root::open(home.join("layers/image/ro"))?;
    let upper = Root::open(driver.mount(&container, Access::ReadOnly)?)?;
    let expected = driver.changes(&container, None)?.changes.len();
    let check = |found: usize| match found == expected && found >= CHANGED {
        true => Ok(()),
        false => Err(Failure::from(format!("{found} changes, not {expected}"))),
    };
    let nothing = || Ok(());
    let mut race = [
        Contestant {
            name: "walk of both trees, exact",
            work: Box::new(|| check(cow::diff::trees(Some(&lower), &upper)?.changes.len())),
            reset: Box::new(nothing),
        },
        Contestant {
            name: "walk of both trees, metadata alone",
            work: Box::new(|| check(metadata_walk(&lower, &upper)?)),
            reset: Box::new(nothing),
        },
        Contestant {
            name: "btrfs, active layer",
            work: Box::new(|| check(driver.changes(&container, None)?.changes.len())),
            reset: Box::new(nothing),
        },
    ];
    let mut times = rounds::race(ROUNDS / 4, &mut race)?;
    drop(race);
    drop(upper);
    driver.unmount(&container)?;
    driver.commit(&container, &LayerRecord::default())?;
    let mut committed = Vec::new();
    for _ in 0..ROUNDS {
        timed(&mut committed, || check(driver.changes(&container, None)?.changes.len()))?;
    }
    times.push(("btrfs, committed layer".to_owned(), committed));
    rounds::table("diff of 10 changed files on 50,000", &times);
    driver.remove(&container)?;
    Ok(driver.remove(&image)?)
}

/// The tar of a layer of 10,000 files of 4 to 96 KiB, none like another.
fn distinct(dir: &Path) -> Result<PathBuf, Failure> {
    let tree = dir.join("distinct");
    let mut state = 1_u64;
    for file in 0..10_000 {
        let path = tree.join(path_of(file));
        if file % 100 == 0 {
            fs::create_dir_all(tree.join(format!("dir{}", file / 100)))?;
        }
        let mut content = Vec::with_capacity(96 << 10);
        for _ in 0..(4 + file % 93) << 7 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            content.extend_from_slice(&state.to_le_bytes());
        }
        fs::write(path, content)?;
    }
    let tar = dir.join("distinct.tar");
    run(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&tar).arg("."))?;
    fs::remove_dir_all(tree)?;
    Ok(tar)
}

/// A layer whose files nobody has, and one whose files the first has, with and without deduplication.
fn shares(root: &TempRoot) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let tar = distinct(dir.path())?;
    let mut times: Times = Vec::new();
    let mut stores = Vec::new();
    for choice in ["off", "on"] {
        stores.push(Store::open(root, "", &format!("dedupe={choice}"))?);
        for what in ["new content", "known content"] {
            times.push((format!("{what}, dedupe={choice}"), Vec::new()));
        }
    }
    let active = CreateOptions::active();
    for round in 0..=ROUNDS / 5 {
        for (store, Store { driver, .. }) in stores.iter().enumerate() {
            let layers = [id("first")?, id("second")?];
            for (at, layer) in layers.iter().enumerate() {
                driver.create(layer, None, &active)?;
                let mut taken = Vec::new();
                timed(&mut taken, || {
                    driver.apply(layer, &mut fs::File::open(&tar)?)?;
                    Ok(driver.commit(layer, &LayerRecord::default()).map(drop)?)
                })?;
                if round > 0 {
                    times[2 * store + at].1.extend(taken);
                }
            }
            layers.iter().try_for_each(|layer| driver.remove(layer))?;
            settle(&stores, 0)?;
        }
    }
    rounds::table("a layer of 500 MB in 10,000 files", &times);
    Ok(())
}

fn import<'a>(name: &'a str, daemon: &'a Daemon, archive: &Path) -> Contestant<'a> {
    let archive = archive.to_owned();
    Contestant {
        name,
        work: Box::new(move || {
            run(engines::layerctl(daemon).arg("import").arg(&archive)).map(drop)
        }),
        reset: Box::new(move || run(engines::layerctl(daemon).args(["rmi", NAME])).map(drop)),
    }
}

/// Imports on the same disk and, as a loop device costs something, on the same btrfs.
fn imports(root: &TempRoot) -> Result<(), Failure> {
    let images = benches::debian_image()?;
    let disk = tempfile::tempdir_in(benches::cache())?;
    let on_disk = engines::layerd(disk.path(), "overlay2")?;
    let places = ["overlay2", "btrfs"].map(|driver| root.join(format!("import-{driver}")));
    places.iter().try_for_each(fs::create_dir)?;
    let overlay = engines::layerd(&places[0], "overlay2")?;
    let btrfs = engines::layerd(&places[1], "btrfs")?;
    for (kind, archive) in [("docker-archive", "docker.tar"), ("OCI, gzip", "oci-gzip.tar")] {
        let archive = images.join(archive);
        let mut race = [
            import("overlay2 on the disk", &on_disk, &archive),
            import("overlay2 on btrfs", &overlay, &archive),
            import("btrfs", &btrfs, &archive),
        ];
        let times = rounds::race(ROUNDS / 5, &mut race)?;
        rounds::table(&format!("import ({kind})"), &times);
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| part == word);
    fs::create_dir_all(benches::cache())?;
    let root = TempRoot::on_btrfs("bench");
    if ["lives", "ages", "crowds", "removals", "diffs"].into_iter().any(wanted) {
        let dir = tempfile::tempdir()?;
        let tars = [SMALL, LARGE].map(|files| tar(dir.path(), files).map(|tar| (files, tar)));
        let tars = tars.into_iter().collect::<Result<Vec<_>, _>>()?;
        let stores = [
            Store::open(&root, "", "stock=off")?,
            Store::open(&root, ", with a stock", "stock=on")?,
        ];
        if wanted("lives") {
            lives(&stores, &tars)?;
        }
        if wanted("ages") {
            ages(&stores, &tars)?;
        }
        if wanted("crowds") {
            crowds(&stores, &tars)?;
        }
        let Store { driver, home, .. } = &stores[1];
        if wanted("removals") {
            removals(&**driver, &tars)?;
        }
        if wanted("diffs") {
            diffs(&**driver, home, &tars[1].1)?;
        }
    }
    if wanted("shares") {
        shares(&root)?;
    }
    if wanted("imports") {
        imports(&root)?;
    }
    Ok(())
}
