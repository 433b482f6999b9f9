//! The CPUs on which threads run.

use rustix::io::Errno;
use rustix::thread::{CpuSet, Pid};

/// Where this process may run.
///
/// The first thread is never kept on one CPU, so it may run where whoever started the process, or changed
/// it since, said.
///
/// # Errors
/// A machine with more CPUs than a [`CpuSet`] holds.
pub fn of_process() -> Result<CpuSet, Errno> {
    rustix::thread::sched_getaffinity(Some(rustix::process::getpid()))
}

/// Keeps this thread on one CPU, which is one of [`of_process`].
///
/// # Errors
/// `EINVAL` where it may not run there.
pub fn stay_on(cpu: u16) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    if usize::from(cpu) >= CpuSet::MAX_CPU || !of_process()?.is_set(cpu.into()) {
        return Err(Errno::INVAL);
    }
    set.set(cpu.into());
    rustix::thread::sched_setaffinity(None, &set)
}

/// The CPU on which this thread gives way to a client, if it does.
pub fn given_way() -> Option<usize> {
    cow_sys::schedule::gives_way().then(rustix::thread::sched_getcpu)
}

/// Where a thread runs that works behind the back of a client: not where that is answered by somebody who gives
/// way. The kernel takes such a CPU for an idle one, and the client would be driven from it.
#[derive(Debug)]
pub struct Elsewhere {
    /// The process that tells where this thread may run.
    process: Pid,
    set: Option<CpuSet>,
}

impl Elsewhere {
    /// For a thread that may run where `process` may; which is another one's where the thread is the first of its own.
    pub fn of(process: Pid) -> Self {
        Self { process, set: None }
    }

    /// Keeps this thread off one CPU, or lets it run anywhere again; anywhere as well if there is no other.
    pub fn than(&mut self, cpu: Option<usize>) {
        let cpu = cpu.filter(|cpu| *cpu < CpuSet::MAX_CPU);
        if cpu.is_none() && self.set.is_none() {
            return;
        }
        let Ok(everywhere) = rustix::thread::sched_getaffinity(Some(self.process)) else { return };
        let mut set = everywhere;
        if let Some(cpu) = cpu {
            set.unset(cpu);
        }
        if self.set == Some(set) {
            return;
        }
        let kept = set.count() > 0 && rustix::thread::sched_setaffinity(None, &set).is_ok();
        if !kept && let Err(error) = rustix::thread::sched_setaffinity(None, &everywhere) {
            tracing::debug!(%error, "a thread stays where it is kept");
        }
        self.set = (kept && cpu.is_some()).then_some(set);
    }
}

/// The CPU on which a thread of whatever process is, or was when it last ran (`processor` of proc_pid_stat(5));
/// none if it is not to be seen.
pub fn of_thread(id: u32) -> Option<u16> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before it may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(36)?.parse().ok()
}

/// Lets this thread run wherever the process may, and as threads do.
///
/// A thread begins where the one that started it is kept, and gives way if that one does.
pub fn roam() {
    let set = of_process().and_then(|set| rustix::thread::sched_setaffinity(None, &set));
    if let Err(error) = set {
        tracing::debug!(%error, "a thread stays where it is kept");
    }
    if cow_sys::schedule::gives_way()
        && let Err(error) = cow_sys::schedule::give_way(false)
    {
        tracing::debug!(%error, "a thread gives way as the one that started it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_works_elsewhere_and_anywhere_again() {
        let everywhere = of_process().expect("the CPUs of the process");
        let cpus: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| everywhere.is_set(*cpu)).collect();
        let run = move || {
            let own = || rustix::thread::sched_getaffinity(None).expect("where it may run");
            let mut elsewhere = Elsewhere::of(rustix::process::getpid());
            for cpu in &cpus {
                elsewhere.than(Some(*cpu));
                assert_eq!(own().count() as usize, (cpus.len() - 1).max(1), "not on {cpu}");
                assert_eq!(own().is_set(*cpu), cpus.len() == 1, "unless there is no other");
            }
            elsewhere.than(Some(usize::MAX));
            assert_eq!(own(), everywhere, "no such CPU");
            elsewhere.than(cpus.first().copied());
            elsewhere.than(None);
            assert_eq!(own(), everywhere, "anywhere");
        };
        std::thread::spawn(run).join().expect("a thread of its own");
    }

    #[test]
    fn a_thread_is_kept_on_a_cpu_and_let_go() {
        let everywhere = of_process().expect("the CPUs of the process");
        let one = (0..CpuSet::MAX_CPU).find(|cpu| everywhere.is_set(*cpu)).expect("a CPU");
        let kept = std::thread::spawn(move || {
            stay_on(u16::try_from(one).expect("a small number")).expect("kept there");
            let kept = rustix::thread::sched_getaffinity(None).expect("its CPUs");
            let inherits = std::thread::spawn(|| {
                roam();
                rustix::thread::sched_getaffinity(None).expect("its CPUs")
            });
            (kept, inherits.join().expect("a thread"))
        });
        let (kept, roams) = kept.join().expect("a thread");
        assert_eq!((kept.count(), kept.is_set(one)), (1, true), "kept on CPU {one}");
        assert_eq!(roams, everywhere, "let go by its child");
        assert_eq!(of_process().expect("CPUs"), everywhere, "the process is none the wiser");
        assert_eq!(stay_on(u16::MAX), Err(Errno::INVAL), "no such CPU");
    }
}
