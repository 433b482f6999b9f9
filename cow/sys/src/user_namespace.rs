//! User namespaces that exist only for their mapping of ids.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Signals do their default action in the child (`linux/sched.h`, Linux 5.5).
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

/// A process that was made to hold a namespace, until it is dropped.
struct Holder(libc::pid_t);

impl Holder {
    /// Starts a process in a user namespace of its own, which does nothing.
    fn start() -> io::Result<Self> {
        // SAFETY: all fields are integers, for which zero is what "not asked for" is.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        // Without a signal at its end it is nobody's child but ours to wait for.
        args.flags = libc::CLONE_NEWUSER as u64 | CLONE_CLEAR_SIGHAND;
        // SAFETY: it takes nothing and returns an integer.
        let parent = unsafe { libc::getpid() };
        // SAFETY: `args` is read for its size. Memory and fds are copied, as fork(2) does; the child has
        // one thread and makes system calls only, never touching a lock that another thread held.
        let pid = unsafe {
            libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>())
        };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => hold(parent),
            pid => Ok(Self(libc::pid_t::try_from(pid).unwrap_or_default())),
        }
    }
}

/// What the child does: it gives up its copies of what is open, locks and mounts above all, and waits for its
/// end, which also comes with the thread that made it.
fn hold(parent: libc::pid_t) -> ! {
    // SAFETY: these calls take and return integers, and are safe after a fork; nothing here uses a file.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(0);
        }
        loop {
            libc::pause();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: the pid is that of a child that nobody has waited for, so it is no other process's.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            while libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) == -1
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}

/// Makes a user namespace with these mappings, each a line `inside outside count` an extent
/// (user_namespaces(7)), for [`mount_attr::Change::id_map`](crate::mount_attr::Change::id_map).
///
/// # Errors
/// `EINVAL` for mappings that overlap or are malformed, `EPERM` for ids that the process may not map.
pub fn of_maps(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let holder = Holder::start()?;
    let proc = |name: &str| format!("/proc/{}/{name}", holder.0);
    std::fs::write(proc("uid_map"), uid_map)?;
    std::fs::write(proc("gid_map"), gid_map)?;
    Ok(File::open(proc("ns/user"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_maps_what_it_likes() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let namespace = of_maps("0 100000 1000\n1000 0 1\n", "0 200000 10\n").expect("a namespace");
        let link = std::fs::read_link(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&namespace)
        ));
        let link = link.expect("its name").display().to_string();
        assert!(link.starts_with("user:["), "{link}");
        let error = of_maps("0 1 10\n5 100 10\n", "0 1 1\n").expect_err("extents that overlap");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
}
