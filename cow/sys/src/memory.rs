//! How the C library's allocator keeps what was freed.

/// Bounds what the allocator holds back, for a daemon that works in bursts.
///
/// glibc gives every thread that asks while others do an arena of its own, and keeps freed memory in
/// it; after an import with a dozen threads that is most of the process. Two arenas serve two
/// processors as well, and buffers from 128 KiB on go back to the system at once when they are freed
/// (mallopt(3)). Elsewhere than on glibc this does nothing.
pub fn hold_back_little() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 2),
        (libc::M_MMAP_THRESHOLD, 128 << 10),
        (libc::M_TRIM_THRESHOLD, 1 << 20),
    ] {
        // SAFETY: mallopt only sets a number within the allocator, under the allocator's own lock.
        unsafe { libc::mallopt(parameter, value) };
    }
}
