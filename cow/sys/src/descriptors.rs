//! File descriptors of a process that is about to start another program.

use rustix::io::Errno;

/// Has every file descriptor from `first` on closed when this process executes another program,
/// close_range(2).
///
/// Those that Rust opens are anyway; this is for the ones that came from whoever started this
/// process. Before Linux 5.11 it does nothing.
///
/// # Errors
/// `InvalidInput` for a negative number.
pub fn close_on_exec_from(first: i32) -> std::io::Result<()> {
    let first = u32::try_from(first).map_err(|_| Errno::INVAL)?;
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now, only flags are set; whoever counts on
    // another program to inherit a descriptor is the caller, who says that nobody does.
    let outcome =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match outcome {
        -1 => {
            let error = std::io::Error::last_os_error();
            match Errno::from_io_error(&error) {
                Some(Errno::NOSYS | Errno::INVAL) => Ok(()),
                _ => Err(error),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn another_program_gets_none_of_them() {
        let file = tempfile::tempfile().unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let sees = || Command::new("readlink").arg(&path).output().unwrap().status.success();
        assert!(sees(), "it is inherited");
        close_on_exec_from(file.as_raw_fd()).unwrap();
        assert!(!sees(), "it is inherited still");
        assert!(close_on_exec_from(-1).is_err(), "a negative number");
    }
}
