//! Where the kernel does not read and write the layers' files itself: what it is given, and what it tells later.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use crate::stage::{Stage, may_mount};

const CONTENT: &[u8] = &[7; 300_000];

/// The names of a directory that are not whiteouts.
fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("readdir").map(|entry| entry.expect("an entry"));
    let files = entries.filter(|entry| !entry.file_type().expect("a type").is_char_device());
    files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn root_nothing_is_copied_up_for_the_time_of_a_removal() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    for name in ["gone", "touched"] {
        fs::write(low.join(name), CONTENT).expect("a lower file");
    }
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &format!("passthrough=0,{options}"));

    let mut open = File::open(mount.join("gone")).expect("a lower file");
    fs::remove_file(mount.join("gone")).expect("unlink");
    let mut content = Vec::new();
    open.read_to_end(&mut content).expect("a file without a name");
    assert!(content == CONTENT, "the content of a file without a name");
    assert_eq!(open.metadata().expect("fstat").nlink(), 0, "links of a file without a name");
    // A copy without a name would lie there for as long as it is open.
    let server = stage.server().id();
    let open_files = fs::read_dir(format!("/proc/{server}/fd")).expect("the server's files");
    let links = open_files.filter_map(|fd| fs::read_link(fd.expect("an fd").path()).ok());
    let copies: Vec<_> =
        links.filter(|to| to.to_string_lossy().ends_with(" (deleted)")).collect();
    assert!(copies.is_empty(), "{copies:?}");
    drop(open);
    let up = stage.path("top/up");
    assert_eq!(files(&up), Vec::<String>::new(), "nothing but whiteouts");

    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_007);
    let file = File::open(mount.join("touched")).expect("a lower file");
    file.set_modified(time).expect("futimens");
    drop(file);
    stage.unmount(&mount);
    assert_eq!(files(&up), ["touched"], "a time that somebody sets is a change");
    let stat = fs::metadata(up.join("touched")).expect("the copy");
    assert_eq!((stat.modified().expect("a time"), stat.len()), (time, CONTENT.len() as u64));
}

/// Bytes that tell where they are.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ at >> 8 ^ at >> 16).to_le_bytes()[0]).collect()
}

#[test]
fn root_long_reads_are_what_the_file_holds_from_any_place_on() {
    const LENGTH: usize = (3 << 20) + 12_345;
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    let mut content = pattern(LENGTH);
    let file = File::create(low.join("f")).expect("a lower file");
    file.write_all_at(&content, 0).expect("its content");
    // In memory, on the disk alone, and a hole.
    let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, hole, 1 << 20, 200_000).expect("a hole");
    content[1 << 20..][..200_000].fill(0);
    file.sync_all().expect("fsync");
    let cold = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(&file, 2 << 20, None, cold).expect("fadvise");
    drop(file);

    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &format!("passthrough=0,{options}"));
    assert!(fs::read(mount.join("f")).expect("all of it") == content, "through the cache");
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).expect("a flag");
    let file = File::options().read(true).custom_flags(direct).open(mount.join("f"));
    let file = file.expect("around the cache");
    for (at, length) in [
        (0, 32 << 10),
        (1, 32 << 10),
        (4_095, 70_000),
        ((1 << 20) - 777, 300_001),
        (3, 1 << 20),
        (100, LENGTH - 100),
        (LENGTH - 40_000, 40_000),
        (LENGTH - 40_000, 80_000),
        (LENGTH - 10, 40_000),
        (LENGTH, 40_000),
    ] {
        let mut buffer = vec![0xee; length];
        let mut done = 0;
        while done < length {
            match file.read_at(&mut buffer[done..], (at + done) as u64).expect("a read") {
                0 => break,
                count => done += count,
            }
        }
        let end = LENGTH.min(at + length);
        assert_eq!(done, end - at, "{length} bytes at {at}");
        assert!(buffer[..done] == content[at..end], "{length} bytes at {at}: other content");
    }
}

#[test]
fn root_a_file_may_be_cut_while_it_is_read() {
    const LENGTH: usize = 1 << 20;
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let content = pattern(LENGTH);
    fs::write(stage.path("low").join("f"), &content).expect("a lower file");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &format!("passthrough=0,writeback=0,{options}"));
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).expect("a flag");
    let open = || {
        File::options().read(true).write(true).custom_flags(direct).open(mount.join("f"))
    };
    let (reader, writer) = (open().expect("a file"), open().expect("a file"));
    let met = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let cutting = scope.spawn(|| {
            let rounds = (0..50_000).take_while(|_| met.load(Ordering::Relaxed) < 20);
            rounds.for_each(|_| {
                writer.set_len(5_000).expect("a cut");
                writer.write_all_at(&content, 0).expect("the same content");
            });
        });
        while !cutting.is_finished() {
            let mut buffer = vec![0xee; LENGTH];
            let done = reader.read_at(&mut buffer, 0).expect("a read");
            // Never anything but what was there, or zeros for what was just cut.
            let other = buffer[..done].iter().zip(&content).filter(|(a, b)| a != b && **a != 0);
            assert_eq!(other.count(), 0, "{done} bytes");
            met.fetch_add(u32::from(done < LENGTH), Ordering::Relaxed);
        }
    });
    assert!(met.into_inner() >= 20, "reads that met a cut");
}
