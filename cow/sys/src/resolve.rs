//! Names resolved below a directory that they may not leave.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a name is resolved again while the kernel cannot tell where a `..` led.
const RETRIES: usize = 128;

/// `openat2(2)`, tried again when it was interrupted, and when it says `AGAIN`.
///
/// With `RESOLVE_IN_ROOT` and `RESOLVE_BENEATH` it does so for every `..`, in the path or in a link, that
/// it passes while anything is renamed or mounted, anywhere on the machine; the manual has its caller try
/// again.
///
/// # Errors
/// What `openat2(2)` meets: `AGAIN` only if it still says so after many tries.
pub fn openat2(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let dir = dir.as_fd();
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(dir, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RETRIES => tries += 1,
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn a_way_up_is_found_while_others_rename() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("a/b")).expect("directories");
        fs::write(dir.path().join("file"), b"").expect("a file");
        std::os::unix::fs::symlink("../../../../a/../file", dir.path().join("a/b/link"))
            .expect("a link");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, dir.path(), flags, Mode::empty()).expect("the root");
        let done = AtomicBool::new(false);
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        fs::create_dir(&one).expect("a directory");
        let open =
            |resolve: &dyn Fn(&Path, OFlags, ResolveFlags) -> rustix::io::Result<OwnedFd>| {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                resolve(Path::new("a/b/link"), flags, ResolveFlags::IN_ROOT)
            };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&one, &other)
                        .and_then(|()| fs::rename(&other, &one))
                        .expect("rename");
                }
            });
            let (mut failed, mut outcome) = (0, Ok(()));
            // Until the kernel has refused it at least once, which is seen without the retries.
            for round in 0..2_000_000 {
                if round > 2000 && failed > 0 {
                    break;
                }
                let bare = open(&|path, flags, resolve| {
                    rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)
                });
                failed += u32::from(bare.is_err());
                let tried = open(&|path, flags, resolve| {
                    openat2(&root, path, flags, Mode::empty(), resolve)
                });
                outcome = tried.map(drop);
                if outcome.is_err() {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(outcome, Ok(()), "it is there all the time");
            assert!(failed > 0, "the kernel has refused it meanwhile");
        });
    }
}
