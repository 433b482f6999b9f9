//! How a thread shares its CPU and the disks with others.

use rustix::io::{Errno, Result};

/// `IOPRIO_WHO_PROCESS`, which with number 0 is the calling thread.
const WHO_THREAD: libc::c_int = 1;
/// `IOPRIO_CLASS_BE` with its middle level: what a thread of nice 0 has without a priority of its own
/// (`linux/ioprio.h`).
const BEST_EFFORT: libc::c_int = 2 << 13 | 4;

fn answer(answer: libc::c_long) -> Result<libc::c_long> {
    match answer {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        answer => Ok(answer),
    }
}

/// `sched_setscheduler(2)` - Lets this thread run only where no other wants the CPU (`SCHED_IDLE`), or as
/// threads do (`SCHED_OTHER`).
///
/// The threads that it starts begin so as well.
///
/// # Errors
/// `PERM` for the way back without `CAP_SYS_NICE` in the first user namespace.
pub fn give_way(gives: bool) -> Result<()> {
    let policy = if gives { libc::SCHED_IDLE } else { libc::SCHED_OTHER };
    // SAFETY: the structure is plain numbers, for which zeros are valid.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the call reads the structure, which outlives it; 0 is the calling thread.
    answer(unsafe { libc::sched_setscheduler(0, policy, &raw const param) }.into()).map(drop)
}

/// Has every thread of this process run as threads do, where that is allowed: a process ends with the last of them.
pub fn none_gives_way() {
    let ids = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    for id in ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()) {
        // SAFETY: the structure is plain numbers, for which zeros are valid.
        let param: libc::sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: the calls take an id, and a structure that outlives them. For a thread that is gone they fail, or
        // another that has its number by now does not give way any more, which harms nobody.
        unsafe {
            if libc::sched_getscheduler(id) == libc::SCHED_IDLE {
                libc::sched_setscheduler(id, libc::SCHED_OTHER, &raw const param);
            }
        }
    }
}

/// Whether this thread gives way.
pub fn gives_way() -> bool {
    // SAFETY: the call takes no pointers; 0 is the calling thread.
    unsafe { libc::sched_getscheduler(0) == libc::SCHED_IDLE }
}

/// `ioprio_set(2)` - Gives this thread's reads and writes the priority that they have by default, whether
/// or not it gives its CPU away; one that was set already stays.
///
/// # Errors
/// What the kernel says.
pub fn keep_io_priority() -> Result<()> {
    // SAFETY: the call takes no pointers.
    let set = answer(unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_THREAD, 0) })?;
    if set >> 13 != 0 {
        return Ok(());
    }
    // SAFETY: the call takes no pointers.
    answer(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_THREAD, 0, BEST_EFFORT) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_and_keeps_its_place_at_the_disk() {
        std::thread::spawn(|| {
            keep_io_priority().expect("a priority");
            assert!(!gives_way(), "as threads begin");
            give_way(true).expect("always allowed");
            assert!(gives_way(), "told the kernel");
            assert!(std::thread::spawn(gives_way).join().expect("a thread"), "inherited");
            // SAFETY: the call takes no pointers.
            let set = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_THREAD, 0) };
            assert_eq!(set, BEST_EFFORT.into(), "not the lowest");
            match give_way(false) {
                Ok(()) => {
                    assert!(!gives_way(), "taken back");
                    give_way(true).expect("always allowed");
                    none_gives_way();
                    assert!(!gives_way(), "taken back for all");
                }
                Err(error) => assert_eq!(error, Errno::PERM, "without CAP_SYS_NICE"),
            }
        })
        .join()
        .expect("a thread of its own");
    }
}
