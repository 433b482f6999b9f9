//! Where tests stop the process.
//!
//! A program built with debug assertions kills itself, as a crash would, at the point that the
//! environment variable `LAYERD_CRASH_AT` names. In any other program nothing is compiled here.

/// A step between two changes of the disk.
#[cfg(debug_assertions)]
pub(super) fn point(name: &str) {
    use std::sync::OnceLock;
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("LAYERD_CRASH_AT").ok());
    if wanted.as_deref() == Some(name) {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}

/// A step between two changes of the disk.
#[cfg(not(debug_assertions))]
pub(super) fn point(_name: &str) {}
