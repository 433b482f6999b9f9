//! The btrfs driver on a loop device: whether a layer's life costs the same for 10 files and for 50,000,
//! a diff of 10 changed files against a walk over both trees, and imports beside overlay2's.
//!
//! Words keep the parts that are named: `lives`, `ages`, `removals`, `diffs`, `shares`, `imports`.

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

/// Layers of few and of many files: commit and removal of the layer, and preparation, commit and
/// removal of a container on it, round by round.
fn lives(driver: &dyn Driver, tars: &[(usize, PathBuf)]) -> Result<(), Failure> {
    let mut tables: [Times; 4] = Default::default();
    for table in &mut tables {
        *table = tars.iter().map(|(files, _)| (format!("{files} files"), Vec::new())).collect();
    }
    let titles = ["prepare a container on a layer", "commit a container's layer on it"];
    let active = CreateOptions::active();
    for _round in 0..3 {
        for (at, (_, tar)) in tars.iter().enumerate() {
            let (image, container) = (id("image")?, id("container")?);
            driver.create(&image, None, &active)?;
            driver.apply(&image, &mut fs::File::open(tar)?)?;
            timed(&mut tables[2][at].1, || {
                Ok(driver.commit(&image, &LayerRecord::default()).map(drop)?)
            })?;
            for _ in 0..ROUNDS / 2 {
                timed(&mut tables[0][at].1, || {
                    Ok(driver.create(&container, Some(&image), &active)?)
                })?;
                let path = driver.mount(&container, Access::Default)?;
                fs::write(path.join("new"), "new")?;
                driver.unmount(&container)?;
                timed(&mut tables[1][at].1, || {
                    Ok(driver.commit(&container, &LayerRecord::default()).map(drop)?)
                })?;
                driver.remove(&container)?;
            }
            timed(&mut tables[3][at].1, || Ok(driver.remove(&image)?))?;
        }
    }
    for (title, table) in titles.into_iter().zip(&tables) {
        rounds::table(title, table);
    }
    rounds::table("commit an image's layer", &tables[2]);
    rounds::table("remove an image's layer", &tables[3]);
    Ok(())
}

/// Waits until nothing is left to do from earlier calls: neither for the driver's thread nor for the
/// kernel's cleaner, and what was written is on the disk.
fn settle(home: &Path) -> Result<(), Failure> {
    for place in ["tmp", "trash"] {
        while fs::read_dir(home.join(place))?.next().is_some() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    disk::clean_btrfs(home);
    Ok(rustix::fs::syncfs(fs::File::open(home)?)?)
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
fn ages(driver: &dyn Driver, home: &Path, tars: &[(usize, PathBuf)]) -> Result<(), Failure> {
    let mut tables: [Times; 3] = Default::default();
    for table in &mut tables {
        *table = tars.iter().map(|(files, _)| (format!("{files} files"), Vec::new())).collect();
    }
    let active = CreateOptions::active();
    let commit =
        |container: &LayerId| Ok(driver.commit(container, &LayerRecord::default()).map(drop)?);
    for (files, tar) in tars {
        let image = id(&format!("image-{files}"))?;
        driver.create(&image, None, &active)?;
        driver.apply(&image, &mut fs::File::open(tar)?)?;
        driver.commit(&image, &LayerRecord::default())?;
    }
    for _round in 0..ROUNDS {
        for (at, (files, _)) in tars.iter().enumerate() {
            let image = id(&format!("image-{files}"))?;
            let [young, old] = [id("young")?, id("old")?];
            settle(home)?;
            timed(&mut tables[0][at].1, || Ok(driver.create(&young, Some(&image), &active)?))?;
            driver.create(&old, Some(&image), &active)?;
            write_in(driver, &old, &["first", "second"])?;
            settle(home)?;
            write_in(driver, &young, &["new"])?;
            timed(&mut tables[1][at].1, || commit(&young))?;
            settle(home)?;
            write_in(driver, &old, &["new"])?;
            timed(&mut tables[2][at].1, || commit(&old))?;
            driver.remove(&young)?;
            driver.remove(&old)?;
        }
    }
    for (files, _) in tars {
        driver.remove(&id(&format!("image-{files}"))?)?;
    }
    rounds::table("prepare a container, nothing left from others", &tables[0]);
    rounds::table("commit a container right after its first write", &tables[1]);
    rounds::table("commit a container whose first writes are on the disk", &tables[2]);
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
        let home = root.join(format!("dedupe-{choice}"));
        stores.push((drivers::open("btrfs", &home, &[format!("btrfs.dedupe={choice}")])?, home));
        for what in ["new content", "known content"] {
            times.push((format!("{what}, dedupe={choice}"), Vec::new()));
        }
    }
    let active = CreateOptions::active();
    for round in 0..=ROUNDS / 5 {
        for (store, (driver, home)) in stores.iter().enumerate() {
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
            settle(home)?;
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
    let home = root.join("home");
    if ["lives", "ages", "removals", "diffs"].into_iter().any(wanted) {
        let dir = tempfile::tempdir()?;
        let tars = [SMALL, LARGE].map(|files| tar(dir.path(), files).map(|tar| (files, tar)));
        let tars = tars.into_iter().collect::<Result<Vec<_>, _>>()?;
        let driver = drivers::open::<&str>("btrfs", &home, &[])?;
        if wanted("lives") {
            lives(&*driver, &tars)?;
        }
        if wanted("ages") {
            ages(&*driver, &home, &tars)?;
        }
        if wanted("removals") {
            removals(&*driver, &tars)?;
        }
        if wanted("diffs") {
            diffs(&*driver, &home, &tars[1].1)?;
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
