//! Threads that answer: which of them wait for requests, and on which CPUs they run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::PoisonError;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::ahead::counter;
use crate::faults::server_of;
use crate::stage::{NAMESPACES, OVER_RING, Stage, may_mount};

/// So long a machine that is busy may take to show what a quiet one shows at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a client can ask while it is answered; says why not, and fails where CI promised it.
fn has_cpus() -> bool {
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        return true;
    }
    let promised = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!promised, "this test needs two CPUs, which CI promises");
    eprintln!("skipped: this test needs two CPUs");
    false
}

/// The threads of a server whose names begin with this one, as directories of `/proc`.
fn threads(server: u32, name: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(format!("/proc/{server}/task")).expect("the server's threads");
    let named = |thread: &PathBuf| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.starts_with(name))
    };
    all.flatten().map(|thread| thread.path()).filter(named).collect()
}

/// Whether the kernel lets one run only where no other thread wants the CPU (`policy` of
/// proc_pid_stat(5)).
fn gives_way(thread: &Path) -> bool {
    let stat = fs::read_to_string(thread.join("stat")).expect("its state");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let policy = fields.split(' ').nth(38).expect("a policy");
    policy.parse() == Ok(nix::libc::SCHED_IDLE)
}

/// How many of them wait for each other, and not for the kernel.
fn off_duty(threads: &[PathBuf]) -> usize {
    let futex = format!("{} ", nix::libc::SYS_futex);
    let waits = |thread: &&PathBuf| {
        fs::read_to_string(thread.join("syscall")).is_ok_and(|call| call.starts_with(&futex))
    };
    threads.iter().filter(waits).count()
}

/// Asks for names that nobody has asked for before.
fn ask(mount: &Path, client: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let found = fs::exists(mount.join(format!("{client}-{number}")));
        assert_eq!(found.ok(), Some(false), "name {number} of {client}");
    }
}

/// Repeats until it is so.
fn until(what: &str, mut is_so: impl FnMut(u32) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    for round in 0.. {
        if is_so(round) {
            return;
        }
        assert!(Instant::now() < deadline, "never: {what}");
    }
}

/// A mount over the device with these options, its server and the four threads that read.
fn four_readers(stage: &mut Stage, options: &str) -> (PathBuf, u32, Vec<PathBuf>) {
    let point = stage.background("m", &format!("transport=device,threads=4,{options}"));
    let server = server_of(&point).expect("the serving process");
    // The mount is there before the last of them is.
    until("four readers", |_| threads(server, "layerfs-").len() == 4);
    (point, server, threads(server, "layerfs-"))
}

#[test]
fn root_one_reader_waits_for_a_single_client() {
    if !may_mount() || !has_cpus() {
        return;
    }
    let mut stage = Stage::new();
    let layers = stage.layers(&["low"], "top");
    let (mut point, server, mut readers) = four_readers(&mut stage, &layers);
    // It is given up for a while whenever this machine has something else to do.
    until("a single client leaves one reader on duty", |round| {
        ask(&point, "one", round * 100..(round + 1) * 100);
        off_duty(&readers) == 3
    });
    let met = |counters: [&str; 2]| counters.map(|name| counter(server, name)).iter().sum::<u64>();
    assert!(met(["awaited ", "beside "]) > 0, "requests found it awake, or beside the client");
    until("it gives way on the client's CPU", |round| {
        if round % 300 == 299 {
            // What it has given up here it gives up for longer each time.
            stage.unmount(&point);
            (point, _, readers) = four_readers(&mut stage, &layers);
        }
        ask(&point, "four", round * 100..(round + 1) * 100);
        readers.iter().any(|reader| gives_way(reader))
    });
    // Two clients that take turns.
    let (here, mine) = channel();
    let (there, theirs) = channel();
    let mount = &point;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..100 {
                theirs.recv().expect("a turn");
                ask(mount, "two", number..number + 1);
                here.send(()).expect("the other's turn");
            }
        });
        for number in 0..100 {
            ask(&point, "three", number..number + 1);
            there.send(()).expect("the other's turn");
            mine.recv().expect("a turn");
        }
    });
    until("all read for two clients", |_| off_duty(&readers) == 0);
    until("and none gives way", |_| !readers.iter().any(|reader| gives_way(reader)));
    stage.unmount(&point);
    let point = stage.background("m", &format!("transport=device,spin=0,{layers}"));
    let server = server_of(&point).expect("the serving process");
    ask(&point, "one", 0..1000);
    assert_eq!(counter(server, "awaited ") + counter(server, "beside "), 0, "turned off");
    assert_eq!(off_duty(&threads(server, "layerfs-")), 0, "all read");
    stage.unmount(&point);
}

#[test]
fn root_what_another_lists_does_not_take_the_reader_from_its_client() {
    const NAMES: usize = 40;
    if !may_mount() || !has_cpus() {
        return;
    }
    let mut stage = Stage::new();
    // Nothing but what is asked for here is listed.
    let options = format!("prefetch=0,{}", stage.layers(&["low"], "top"));
    let (point, server, readers) = four_readers(&mut stage, &options);
    let list = |dir: u32| {
        let sizes = fs::read_dir(point.join(dir.to_string())).expect("a listing").map(|entry| {
            let entry = entry.expect("a name");
            (entry.file_name(), entry.metadata().expect("its attributes").len())
        });
        let named = |(name, size): &(std::ffi::OsString, u64)| **name == *size.to_string();
        assert_eq!(sizes.filter(named).count(), NAMES, "directory {dir}");
    };
    // It is given up for a while whenever this machine has something else to do.
    until("a listing is passed on, and the others stay off duty", |round| {
        let dir = point.join(round.to_string());
        fs::create_dir(&dir).expect("a directory");
        for name in 0..NAMES {
            fs::write(dir.join(name.to_string()), vec![b'x'; name]).expect("a file");
        }
        // The other one asks for nothing but the listing.
        fs::metadata(&dir).expect("its attributes");
        ask(&point, "one", round * 100..(round + 1) * 100);
        std::thread::scope(|scope| scope.spawn(|| list(round)).join().expect("another client"));
        counter(server, "passed on") > 0 && off_duty(&readers) == 3
    });
    stage.unmount(&point);
}

/// Root of a user namespace may give way, and never take it back.
#[test]
fn root_in_a_user_namespace_nobody_gives_way() {
    if !may_mount() {
        return;
    }
    let stage = Stage::new();
    let layers = stage.layers(&["low"], "top");
    let point = stage.path("m");
    let script = "\"$0\" -f -o \"$1\" \"$2\" & server=$!
        i=0; until mountpoint -q \"$2\"; do i=$((i+1)); [ $i -lt 600 ]; sleep 0.1; done
        i=0; while [ $i -lt 3000 ]; do [ ! -e \"$2/no$i\" ]; i=$((i+1)); done
        for stat in /proc/$server/task/*/stat; do sed 's/.*) //' $stat | cut -d' ' -f39; done
        umount \"$2\"; wait $server";
    let _alone = NAMESPACES.write().unwrap_or_else(PoisonError::into_inner);
    let ran = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec", script])
        .args([env!("CARGO_BIN_EXE_layerfs"), &layers])
        .arg(&point)
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&ran.stdout);
    let failed = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}{failed}");
    assert!(said.lines().count() > 1, "its threads: {said}{failed}");
    assert!(said.lines().all(|policy| policy == "0"), "some are not as threads are: {said}");
}

#[test]
fn root_only_those_who_answer_on_a_cpu_are_kept_there() {
    if !may_mount() || !OVER_RING {
        return;
    }
    let mut stage = Stage::new();
    let layers = stage.layers(&["low"], "top");
    let point = stage.background("m", &format!("transport=ring,{layers}"));
    let file = File::create(point.join("file")).expect("a file");
    file.sync_all().expect("what another thread carries out");
    drop(file);
    let server = server_of(&point).expect("the serving process");
    let allowed = |thread: &Path| {
        let status = fs::read_to_string(thread.join("status")).expect("its state");
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.expect("its CPUs").trim().to_owned()
    };
    let everywhere = allowed(Path::new(&format!("/proc/{server}")));
    for thread in threads(server, "layerfs-cpu") {
        let cpus = allowed(&thread);
        assert!(cpus.parse::<u32>().is_ok(), "{} on {cpus}", thread.display());
    }
    let others = threads(server, "layerfs-pool");
    assert!(!others.is_empty(), "a thread of the pool");
    for thread in others {
        assert_eq!(allowed(&thread), everywhere, "{}", thread.display());
        assert!(!gives_way(&thread), "{} as threads do", thread.display());
    }
    // One that was kept from running has given it up for some thousand requests.
    let rings = threads(server, "layerfs-cpu");
    until("one gives way to its clients", |round| {
        let gives = rings.iter().any(|thread| gives_way(thread));
        if !gives {
            ask(&point, "one", round * 100..(round + 1) * 100);
        }
        gives
    });
    stage.unmount(&point);
    let point = stage.background("m", &format!("transport=ring,spin=0,{layers}"));
    let server = server_of(&point).expect("the serving process");
    ask(&point, "one", 0..100);
    let rings = threads(server, "layerfs-cpu");
    assert!(!rings.iter().any(|thread| gives_way(thread)), "turned off");
    stage.unmount(&point);
}
