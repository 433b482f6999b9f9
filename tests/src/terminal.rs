//! A program in a real terminal: tmux, with a server of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::Finish as _;

/// How long something may take to appear before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What runs the program: around it, whether the terminal is as it was.
const SCRIPT: &str = r#"
before=$(stty -g)
echo before
"$@"
echo "exit code $?"
[ "$(stty -g)" = "$before" ] && echo "settings restored"
exec sleep 1000
"#;

/// A terminal with one program in it; drop ends both.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
    /// The working directory of the program.
    dir: TempDir,
}

impl Terminal {
    /// Starts a program in a terminal of so many columns and lines.
    ///
    /// # Panics
    /// When tmux cannot be started.
    #[must_use]
    pub fn start(size: (u16, u16), program: &Path, arguments: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let terminal = Self { socket: dir.path().join(".tmux"), dir };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        let work = terminal.dir().to_str().expect("UTF-8").to_owned();
        let program = program.to_str().expect("UTF-8");
        let mut all =
            vec!["new-session", "-d", "-x", &width, "-y", &height, "-c", &work, "-e", "NO_COLOR="];
        all.extend(["sh", "-c", SCRIPT, "sh", program]);
        all.extend(arguments);
        terminal.tmux(&all);
        terminal.tmux(&["set", "-g", "status", "off"]);
        terminal.tmux(&["set", "-g", "escape-time", "0"]);
        terminal.resize(size);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        // Without UTF-8 tmux shows underscores for what is not ASCII.
        tmux.env("LC_ALL", "C.UTF-8").env_remove("TMUX").arg("-u").arg("-S").arg(&self.socket);
        tmux.args(["-f", "/dev/null"]).args(arguments).finish().ok()
    }

    /// The working directory of the program.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Presses keys, by tmux's names.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a text.
    pub fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Makes the terminal so many columns and lines large.
    pub fn resize(&self, (width, height): (u16, u16)) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What the screen shows.
    #[must_use]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// One of tmux's own variables, of the terminal.
    #[must_use]
    pub fn variable(&self, name: &str) -> String {
        self.tmux(&["display-message", "-p", &format!("#{{{name}}}")]).trim().to_owned()
    }

    /// Waits until the screen shows all of these texts, and gives it.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for(&self, texts: &[&str]) -> String {
        self.wait_until(&format!("{texts:?}"), |screen| {
            texts.iter().all(|text| screen.contains(text))
        })
    }

    /// Waits until the screen is as it should be, and gives it.
    ///
    /// # Panics
    /// When it never is.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "the screen never shows {what}:\n{screen}");
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut tmux = Command::new("tmux");
        // A server that is not there needs no end.
        drop(tmux.arg("-S").arg(&self.socket).arg("kill-server").output());
    }
}
