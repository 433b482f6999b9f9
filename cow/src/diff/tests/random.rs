//! Random work on the kernel's overlay, layer upon layer.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use super::stack::{Stack, can_mount};
use super::*;

/// A small generator (xorshift), so that a failure can be repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// A path of up to three components out of few names, so that operations meet.
    fn path(&mut self, base: &Path) -> PathBuf {
        let names = ["a", "b", "c", "d.e", "f"];
        let depth = 1 + self.below(3);
        (0..depth).fold(base.to_owned(), |path, _| path.join(names[self.below(names.len())]))
    }
}

/// Does one random thing; most fail by their nature (no such file), which is as good as nothing.
fn step(random: &mut Random, base: &Path, log: &mut Vec<String>) {
    let (one, two) = (random.path(base), random.path(base));
    let which = random.below(14);
    let done = match which {
        0 | 1 => fs::write(&one, format!("{}", random.below(3))),
        2 | 3 => fs::create_dir(&one),
        4 => fs::remove_file(&one),
        5 => fs::remove_dir_all(&one),
        6..=8 => fs::rename(&one, &two),
        9 => fs::hard_link(&one, &two),
        10 => symlink(["x", "y"][random.below(2)], &one),
        11 => {
            fs::set_permissions(&one, fs::Permissions::from_mode([0o700, 0o701][random.below(2)]))
        }
        12 => {
            let time = SystemTime::UNIX_EPOCH + Duration::new(random.below(2) as u64, 7);
            fs::File::open(&one).and_then(|file| file.set_modified(time))
        }
        _ => {
            let attr = ["user.x", "trusted.y"][random.below(2)];
            fs::File::open(&one).and_then(|file| {
                crate::xattr::set_at(file, "".as_ref(), attr.as_ref(), b"1").map_err(Into::into)
            })
        }
    };
    if done.is_ok() {
        let show = |path: &Path| path.strip_prefix(base).unwrap().display().to_string();
        log.push(format!("{which} {} {}", show(&one), show(&two)));
    }
}

#[test]
fn random_work_is_found_as_the_double_walk_finds_it() {
    if !can_mount() {
        return;
    }
    let rounds = std::env::var("COW_DIFF_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    for options in ["", "redirect_dir=on,metacopy=on"] {
        for seed in 1..=rounds {
            let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let mut stack = Stack::new(options);
            stack.layer(&["a/b/c", "a/c", "b/a/a", "b/b", "c", "f/f/f"]);
            let mut log = Vec::new();
            for _layer in 0..4 {
                for _check in 0..2 {
                    let merged = stack.mount();
                    (0..25).for_each(|_| step(&mut random, &merged, &mut log));
                    stack.agree(&format!("{options:?}, seed {seed}: {log:#?}"));
                }
                stack.commit();
                log.push("commit".to_owned());
            }
        }
    }
}
