//! The processes that serve the mounts of driver fuse.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end whose mount is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// The layerfs processes that serve a mount at or below `dir`, in no order.
#[must_use]
pub fn servers_below(dir: &Path) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("/proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| serves_below(*id, dir)).filter_map(Pid::from_raw).collect()
}

fn serves_below(id: i32, dir: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{id}/cmdline")) else { return false };
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.trim_end_matches('\0').split('\0');
    let is_ours = words.next().is_some_and(|program| {
        program == "/proc/self/exe" || Path::new(program).file_name() == Some("layerfs".as_ref())
    });
    is_ours && words.next_back().is_some_and(|point| Path::new(point).starts_with(dir))
}

/// Kills a process as a crash would, and waits for its end.
///
/// # Panics
/// When it has ended by itself, or does not end.
pub fn kill(server: Pid) {
    kill_process(server, Signal::KILL).expect("the process lives");
    ends(&format!("process {server}"), || lives(server));
}

/// Waits until no layerfs serves a mount below `dir`.
///
/// # Panics
/// When one does not end.
pub fn all_end_below(dir: &Path) {
    let mut seen = Vec::new();
    ends("a layerfs without a mount", || {
        seen.extend(servers_below(dir));
        seen.retain(|server| lives(*server));
        !seen.is_empty()
    });
}

/// Waits until so many layerfs serve a mount at or below `dir`, and returns them: those of mounts that are gone end a
/// moment later.
///
/// # Panics
/// When there are more or fewer.
#[must_use]
pub fn servers_become(dir: &Path, count: usize) -> Vec<Pid> {
    ends("a layerfs too many or too few", || servers_below(dir).len() != count);
    servers_below(dir)
}

/// Whether a process has anything open: its files are closed when its last thread ends, its command line is gone before
/// that. Whether somebody has reaped it is of no interest.
fn lives(server: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{server}/stat")) else { return false };
    let is_over = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
    let threads = || fs::read_dir(format!("/proc/{server}/task")).map_or(0, Iterator::count);
    !is_over || threads() > 1
}

fn ends(what: &str, mut lives: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while lives() {
        assert!(Instant::now() < deadline, "{what} does not end");
        thread::sleep(Duration::from_millis(2));
    }
}
