//! The last steps in the container's first process: find the program, then become it.
//!
//! This code runs after the library has set up namespaces, root, user and capabilities, in the
//! container. A program that is not there is told to the runtime in a form that
//! [`Failure::find`] reads back out of the library's error.

use std::collections::HashMap;
use std::ffi::{CString, NulError};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::sys::signal::SigSet;
use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use crate::error::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, Error};
use crate::seccomp;

/// Marks a [`Failure`] in the text of an error; no message has these bytes by chance.
const MARK: &str = "\u{1}exec\u{1}";

/// Why a program cannot be executed, with the exit code for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// 126 or 127.
    pub code: i32,
    /// Docker's words for it.
    pub message: String,
}

impl Failure {
    fn new(code: i32, program: &str, reason: &str) -> Self {
        Self { code, message: format!("exec: {program:?}: {reason}") }
    }

    fn of(program: &str, path: &Path, errno: Errno) -> Self {
        let what = std::io::Error::from(errno).to_string().to_lowercase();
        let what = what.split(" (os error").next().unwrap_or_default();
        match errno {
            Errno::NOENT | Errno::NOTDIR => {
                Self::new(EXIT_NOT_FOUND, program, &format!("stat {}: {what}", path.display()))
            }
            _ => Self::new(EXIT_NOT_EXECUTABLE, program, what),
        }
    }

    fn mark(&self) -> String {
        format!("{MARK}{}{MARK}{}{MARK}", self.code, self.message)
    }

    /// Finds a failure in the text of an error that has passed through the library.
    pub fn find(text: &str) -> Option<Self> {
        let mut fields = text.split(MARK).skip(1);
        let code = fields.next()?.parse().ok()?;
        Some(Self { code, message: fields.next()?.to_owned() })
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Exec { code: failure.code, message: failure.message }
    }
}

/// Becomes the container's program.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    /// Whether the container is to die with its runtime, however that dies.
    pub die_with_parent: bool,
}

impl Executor for Exec {
    /// Looks the program up, in the container and as its user: what is wrong is then known before
    /// the container counts as created.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let failed = ExecutorValidationError::ArgValidationError;
        let (program, env) = program(spec).ok_or_else(|| failed("no program".to_owned()))?;
        find(program, path_of(env)).map_err(|failure| failed(failure.mark()))?;
        if self.die_with_parent {
            // It must come after the change of user, which clears it: prctl(2), PR_SET_PDEATHSIG.
            let signal = Some(rustix::process::Signal::KILL);
            rustix::process::set_parent_process_death_signal(signal)
                .map_err(|errno| failed(format!("bind to the runtime's life: {errno}")))?;
        }
        Ok(())
    }

    /// Does nothing: the environment is given to the program itself.
    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    /// Replaces this process. By now nobody listens for errors: they go to the container's standard
    /// error and become its exit code.
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = match program(spec) {
            Some((program, env)) => become_program(program, spec, env),
            None => Failure::new(EXIT_NOT_FOUND, "", "no program"),
        };
        let line = format!("layerun: {}\n", failure.message);
        let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
        std::process::exit(failure.code);
    }
}

fn program(spec: &Spec) -> Option<(&str, &[String])> {
    let process = spec.process().as_ref()?;
    let program = process.args().as_ref()?.first()?;
    Some((program, process.env().as_deref().unwrap_or_default()))
}

/// Returns only if it fails.
fn become_program(program: &str, spec: &Spec, env: &[String]) -> Failure {
    let path = match find(program, path_of(env)) {
        Ok(path) => path,
        Err(failure) => return failure,
    };
    let words = |words: &[String]| -> Result<Vec<CString>, NulError> {
        words.iter().map(|word| CString::new(word.as_bytes())).collect()
    };
    let args = spec.process().as_ref().and_then(|process| process.args().as_deref());
    let name = CString::new(path.as_os_str().as_bytes());
    let (Ok(name), Ok(args), Ok(env)) = (name, words(args.unwrap_or_default()), words(env)) else {
        return Failure::new(EXIT_NOT_EXECUTABLE, program, "a NUL byte in the command");
    };
    // The runtime blocks signals for its own loop and ignores SIGPIPE; its children inherit that.
    cow_sys::signal::reset_all();
    if let Err(errno) = SigSet::empty().thread_set_mask() {
        return Failure::new(EXIT_NOT_EXECUTABLE, program, errno.desc());
    }
    if let Err(error) = seccomp::install() {
        return Failure::new(EXIT_NOT_EXECUTABLE, program, &error.to_string());
    }
    let Err(errno) = nix::unistd::execve(&name, &args, &env);
    match Errno::from_raw_os_error(errno as i32) {
        // The file is there: it is the interpreter that it names which is not.
        Errno::NOENT => Failure::new(EXIT_NOT_FOUND, program, "no such file or directory"),
        errno => Failure::of(program, &path, errno),
    }
}

fn path_of(env: &[String]) -> &str {
    env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default()
}

/// Finds what execve(2) is to be given: names with a slash are taken as they are, others looked for
/// in `PATH`.
fn find(program: &str, path: &str) -> Result<PathBuf, Failure> {
    if program.contains('/') {
        let found = PathBuf::from(program);
        return match check(&found) {
            Ok(()) => Ok(found),
            Err(Unfit::Directory) => {
                Err(Failure::new(EXIT_NOT_EXECUTABLE, program, "is a directory"))
            }
            Err(Unfit::System(errno)) => Err(Failure::of(program, &found, errno)),
        };
    }
    let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    dirs.map(|dir| Path::new(dir).join(program))
        .find(|candidate| !program.is_empty() && check(candidate).is_ok())
        .ok_or_else(|| Failure::new(EXIT_NOT_FOUND, program, "executable file not found in $PATH"))
}

enum Unfit {
    Directory,
    System(Errno),
}

fn check(path: &Path) -> Result<(), Unfit> {
    let name = path.as_os_str().as_bytes();
    let found = stat(name).map_err(Unfit::System)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err(Unfit::Directory);
    }
    accessat(CWD, name, Access::EXEC_OK, AtFlags::EACCESS).map_err(Unfit::System)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, mode) in [("a/run", 0o755), ("b/run", 0o755), ("a/data", 0o644)] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, "x").expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        }
        fs::create_dir(dir.path().join("a/dir")).expect("a directory");
        dir
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let dir = tree();
        let base = dir.path().display();
        let path = format!("{base}/none:{base}/a:{base}/b");
        assert_eq!(find("run", &path), Ok(dir.path().join("a/run")), "the first in PATH");
        let full = format!("{base}/b/run");
        assert_eq!(find(&full, ""), Ok(PathBuf::from(&full)), "a path as it is");
    }

    #[test]
    fn failures_have_dockers_words_and_codes() {
        let dir = tree();
        let base = dir.path().display().to_string();
        let path = format!("{base}/a");
        for (program, code, message) in [
            ("foo".to_owned(), 127, "exec: \"foo\": executable file not found in $PATH".to_owned()),
            (
                "data".to_owned(),
                127,
                "exec: \"data\": executable file not found in $PATH".to_owned(),
            ),
            ("".to_owned(), 127, "exec: \"\": executable file not found in $PATH".to_owned()),
            (
                format!("{base}/no"),
                127,
                format!("exec: \"{base}/no\": stat {base}/no: no such file or directory"),
            ),
            (format!("{base}/a/dir"), 126, format!("exec: \"{base}/a/dir\": is a directory")),
            (format!("{base}/a/data"), 126, format!("exec: \"{base}/a/data\": permission denied")),
            (
                format!("{base}/a/data/x"),
                127,
                format!("exec: \"{base}/a/data/x\": stat {base}/a/data/x: not a directory"),
            ),
        ] {
            assert_eq!(find(&program, &path), Err(Failure { code, message }), "{program}");
        }
    }

    #[test]
    fn failures_come_back_out_of_any_text() {
        let failure = Failure::new(127, "foo", "executable file not found in $PATH");
        let text = format!("exec process failed with error {}; and more", failure.mark());
        assert_eq!(Failure::find(&text), Some(failure), "unharmed");
        for text in ["", "plain", "\u{1}exec\u{1}x\u{1}exec\u{1}"] {
            assert_eq!(Failure::find(text), None, "{text:?} holds none");
        }
    }
}
