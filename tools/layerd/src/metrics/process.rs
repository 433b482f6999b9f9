//! The daemon's own process, by the names that Prometheus's clients have for it.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::scrape::Gauges;

/// Adds the figures of this process (proc(5)); what cannot be read is left out.
pub(super) fn gather(gauges: &mut Gauges) -> prometheus::Result<()> {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat")
        && let Some(stat) = Stat::parse(&stat)
    {
        let ticks = clock_ticks_per_second() as f64;
        let cpu = "User and system time of the process.";
        gauges.counter("process_cpu_seconds_total", cpu, stat.cpu as f64 / ticks)?;
        let resident = (stat.resident * page_size() as u64) as f64;
        gauges.one("process_resident_memory_bytes", "Memory of the process.", resident)?;
        let virt = "Address space of the process.";
        gauges.one("process_virtual_memory_bytes", virt, stat.size as f64)?;
        gauges.one("process_threads", "Threads of the process.", stat.threads as f64)?;
        if let Some(boot) = boot_time() {
            let start = boot as f64 + stat.start as f64 / ticks;
            let help = "When the process began, in seconds since 1970.";
            gauges.one("process_start_time_seconds", help, start)?;
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The directory that is read is one of them.
        let open = open.count().saturating_sub(1);
        gauges.one("process_open_fds", "Open file descriptors.", open as f64)?;
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        gauges.one("process_max_fds", "The limit of file descriptors.", most as f64)?;
    }
    Ok(())
}

/// Fields of `/proc/self/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Clock ticks of user and system time (fields 14 and 15).
    cpu: u64,
    /// Field 20.
    threads: u64,
    /// When it began, in clock ticks since the boot (field 22).
    start: u64,
    /// Bytes (field 23).
    size: u64,
    /// Pages (field 24).
    resident: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the command in parentheses, which may hold anything.
        let rest = text.get(text.rfind(')')? + 1..)?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu: field(14)? + field(15)?,
            threads: field(20)?,
            start: field(22)?,
            size: field(23)?,
            resident: field(24)?,
        })
    }
}

/// When the machine was started, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_command() {
        let numbers: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let text = format!("7 (a) b (c)) S {}", numbers.join(" "));
        let expected = Stat { cpu: 14 + 15, threads: 20, start: 22, size: 23, resident: 24 };
        assert_eq!(Stat::parse(&text), Some(expected), "numbered as in proc(5)");
        assert_eq!(Stat::parse("7 (short) S 1"), None, "a line that is cut off");
    }
}
