//! How soon `layerctl explore` answers a key, on an image of 100,000 files in three layers.
//!
//! A pseudo-terminal stands for the user: a key goes in, and two times are taken: when the first byte
//! of the answer comes out, and the last before a silence. The processor time of a key, of all threads,
//! says what remains of that on a machine with nothing else to do. `EXPLORE_FILES` asks for another
//! number of files.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benches::{Failure, program};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tests::archive;

const FILES: usize = 100_000;
/// Files in one directory.
const WIDTH: usize = 100;
/// After so much silence a screen is as it stays.
const SILENCE: Duration = Duration::from_millis(120);
/// How long it may take to open the image.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rounds of each set of keys.
const ROUNDS: usize = 10;

const DOWN: &str = "\x1b[6~";
const UP: &str = "\x1b[5~";

/// What is done, and by which keys; those of the first list only lead there.
const WORK: &[(&str, &[&str], &[&str])] = &[
    (
        "moving, all directories open",
        &["\t", "t", "+"],
        &["j", "j", DOWN, DOWN, "k", UP, "G", "g", DOWN, UP],
    ),
    (
        "opening and closing",
        &["-", "g", "j"],
        &[" ", " ", "\x1b[C", "\x1b[D", "+", "-", "+", "-", " ", " "],
    ),
    (
        "another layer, changes or all",
        &["-", "g"],
        &["[", "[", "]", "]", "t", "t", "[", "t", "]", "t"],
    ),
    ("two layers side by side", &["c"], &["k", "k", "j", "j", "k", "j", "k", "k", "j", "j"]),
    (
        "looking for a name",
        &["\x1b", "/"],
        &["f", "i", "l", "e", "5", "\x7f", "\x7f", "\x7f", "\x7f", "\x7f"],
    ),
    ("sorting and hiding", &["\x1b"], &["s", "s", "4", "4", "s", "1", "1", "s", "2", "2"]),
];

/// Writes an archive whose first layer has nearly all of the files.
fn write_archive(path: &Path, files: usize) {
    let names: Vec<_> =
        (0..files).map(|file| format!("usr/lib/dir-{}/file-{file}.py", file / WIDTH)).collect();
    let base: Vec<_> = names.iter().map(|name| (name.as_str(), "print()\n")).collect();
    let changed: Vec<_> =
        base.iter().step_by(WIDTH).map(|(name, _)| (*name, "print(2)\n")).collect();
    let gone = [("usr/lib/dir-0/.wh.file-1.py", ""), ("srv/new", "new\n")];
    let tars = vec![archive::layer(&base), archive::layer(&changed), archive::layer(&gone)];
    archive::docker_of_tars(path, "explored:1", tars, &serde_json::json!({}));
}

/// The explorer and the other end of its terminal.
struct Explorer {
    child: Child,
    user: File,
}

impl Explorer {
    fn start(archive: &Path) -> Result<Self, Failure> {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&user)?;
        unlockpt(&user)?;
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&user, size)?;
        let name = ptsname(&user, Vec::new())?.into_string()?;
        let end = || File::options().read(true).write(true).open(&name);
        let mut command = Command::new(program("layerctl"));
        command.arg("explore").arg(archive).env("TERM", "xterm-256color");
        command.stdin(end()?).stdout(Stdio::from(OwnedFd::from(end()?))).stderr(Stdio::null());
        Ok(Self { child: command.spawn()?, user: user.into() })
    }

    /// Waits for something to come out, and takes it until there is a silence; when the first and the
    /// last byte came.
    fn answer(
        &mut self,
        patience: Duration,
    ) -> Result<Option<(Instant, Instant, Vec<u8>)>, Failure> {
        let mut found: Option<(Instant, Instant, Vec<u8>)> = None;
        let (patience, silence) = (Timespec::try_from(patience)?, Timespec::try_from(SILENCE)?);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut polled = [PollFd::new(&self.user, PollFlags::IN)];
            let wait = if found.is_none() { &patience } else { &silence };
            if poll(&mut polled, Some(wait))? == 0 {
                return Ok(found);
            }
            let read = self.user.read(&mut buffer)?;
            let now = Instant::now();
            let (_, last, bytes) = found.get_or_insert((now, now, Vec::new()));
            *last = now;
            bytes.extend_from_slice(&buffer[..read]);
        }
    }

    /// Waits until the image is there and nothing moves any more.
    fn open(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        let mut quiet = 0;
        let mut seen = Vec::new();
        while quiet < 5 {
            match self.answer(SILENCE)? {
                Some((_, _, bytes)) => (quiet, seen) = (0, [seen, bytes].concat()),
                None if seen.windows(10).any(|part| part == b"efficiency") => quiet += 1,
                None if Instant::now() > end => return Err("the image does not open".into()),
                None => {}
            }
        }
        Ok(())
    }

    /// The processor time that it has used so far.
    fn processor(&self) -> Result<Duration, Failure> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            sum += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Presses a key; how long the first and the last byte of the answer took.
    fn press(&mut self, key: &str) -> Result<(Duration, Duration), Failure> {
        let start = Instant::now();
        self.user.write_all(key.as_bytes())?;
        let (first, last, _) =
            self.answer(PATIENCE)?.ok_or_else(|| format!("the key {key:?} has no answer"))?;
        Ok((first - start, last - start))
    }
}

impl Drop for Explorer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Middle, 99th of a hundred, and longest, in milliseconds.
fn figures(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part).div_ceil(100).saturating_sub(1));
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    format!("{:>6.1} {:>6.1} {:>6.1}", ms(at(50)), ms(at(99)), ms(times.last()))
}

#[expect(clippy::print_stdout, reason = "the figures are what a benchmark is for")]
fn main() -> Result<(), Failure> {
    let files = std::env::var("EXPLORE_FILES").ok().map(|text| text.parse()).transpose()?;
    let files = files.unwrap_or(FILES);
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("image.tar");
    write_archive(&archive, files);
    let mut explorer = Explorer::start(&archive)?;
    explorer.open()?;
    println!("{files} files; from a key to the screen, milliseconds");
    println!("{:<32} {:<20}   {:<20}   processor", "p50, p99, max:", "first byte", "settled");
    for (what, before, keys) in WORK {
        for key in *before {
            explorer.press(key)?;
        }
        let (mut first, mut settled) = (Vec::new(), Vec::new());
        let start = explorer.processor()?;
        for _ in 0..ROUNDS {
            for key in *keys {
                let (answered, still) = explorer.press(key)?;
                first.push(answered);
                settled.push(still);
            }
        }
        let used = (explorer.processor()? - start).as_secs_f64() * 1e3;
        let used = used / f64::from(u32::try_from(first.len())?);
        println!("{what:<32} {}   {}   {used:>6.1}", figures(first), figures(settled));
    }
    Ok(())
}
