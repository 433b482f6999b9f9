//! Signal dispositions, before another program takes this process over.

/// Sets every signal of this process to its default action.
///
/// A program is executed with the signals ignored that its parent ignored, execve(2): a Rust
/// program ignores `SIGPIPE`, and one started in the background may ignore `SIGINT` and `SIGQUIT`.
/// Signals that cannot be changed (`SIGKILL`, `SIGSTOP` and those of the C library) are left alone.
pub fn reset_all() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no handler, so no code can be called that is not safe to be
        // called from a signal; for signals that cannot be changed this fails and changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
