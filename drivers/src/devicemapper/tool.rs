//! Programs that do what no library does: LVM's commands, `mkfs`, `fsck`, `thin_delta`.

use std::ffi::OsStr;
use std::io::{BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use cow::error::{Error, ErrorKind, Result};

/// How much of a program's output is kept.
const MAX_OUTPUT: u64 = 1 << 20;

/// Runs a program and gives its standard output.
///
/// # Errors
/// `Unsupported` when it is not installed; otherwise what it said, and its exit code.
pub(super) fn run<A: AsRef<OsStr>>(program: &'static str, arguments: &[A]) -> Result<String> {
    let ran = run_any(program, arguments)?;
    if ran.code == Some(0) {
        return Ok(ran.stdout);
    }
    Err(ran.failure())
}

/// What a program did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    line: String,
    /// None when a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ran {
    /// The program's failure in its own words.
    pub(super) fn failure(&self) -> Error {
        let code = self.code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        let said = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let said: Vec<_> = said.filter(|line| !line.starts_with("WARNING")).collect();
        let reason = format!("{code}: {}", said.join("; "));
        let kind = match self.stderr.contains("nsufficient free space") {
            true => ErrorKind::NoSpace,
            false => ErrorKind::Io,
        };
        Error::refused("run", &self.line, reason, kind)
    }
}

/// Runs a program to its end, however it ends.
///
/// # Errors
/// `Unsupported` when it is not installed.
pub(super) fn run_any<A: AsRef<OsStr>>(program: &'static str, arguments: &[A]) -> Result<Ran> {
    let mut running = Running::start(program, arguments)?;
    let stdout = running.child.stdout.take().map(read_some).unwrap_or_default();
    running.end(stdout)
}

/// Runs a program whose standard output is read while it comes, however long it is.
///
/// # Errors
/// What `read` says, or as [`run`].
pub(super) fn run_reading<A: AsRef<OsStr>>(
    program: &'static str,
    arguments: &[A],
    read: impl FnOnce(BufReader<ChildStdout>) -> Result<()>,
) -> Result<()> {
    let mut running = Running::start(program, arguments)?;
    // A reader that gives up closes the pipe, which ends the program.
    let read = running.child.stdout.take().map_or(Ok(()), |stdout| read(BufReader::new(stdout)));
    let ran = running.end(String::new())?;
    match (read, ran.code) {
        (read, Some(0)) => read,
        (Err(error), None) => Err(error),
        _ => Err(ran.failure()),
    }
}

/// A program that has not ended yet.
struct Running {
    program: &'static str,
    line: String,
    child: Child,
    /// Both pipes are emptied at once, so that neither can stop the program.
    errors: JoinHandle<String>,
}

impl Running {
    fn start<A: AsRef<OsStr>>(program: &'static str, arguments: &[A]) -> Result<Self> {
        let mut words = vec![program.to_owned()];
        words.extend(arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned()));
        if let Some(at) = words.iter().position(|word| word == "--config") {
            // How LVM finds its way without udev is of no interest to a reader.
            words.drain(at..words.len().min(at + 2));
        }
        let line = words.join(" ");
        tracing::debug!(%line, "run");
        let mut command = Command::new(program);
        // LVM warns of every descriptor that a caller lets it inherit.
        command.args(arguments).env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = crate::spawning::spawn(&mut command).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                let reason = "the program is not installed";
                return Error::refused("run", program, reason, ErrorKind::Unsupported);
            }
            Error::sys("run", program, source)
        })?;
        let stderr = child.stderr.take();
        let read = move || stderr.map(read_some).unwrap_or_default();
        let errors = match std::thread::Builder::new().spawn(read) {
            Ok(errors) => errors,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::sys("start a thread for", program, error));
            }
        };
        Ok(Self { program, line, child, errors })
    }

    fn end(mut self, stdout: String) -> Result<Ran> {
        let stderr = self.errors.join().unwrap_or_default();
        let status =
            self.child.wait().map_err(|source| Error::sys("wait for", self.program, source))?;
        Ok(Ran { line: self.line, code: status.code(), stdout, stderr })
    }
}

/// Reads what is kept of a stream, and the rest to its end.
fn read_some(mut stream: impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_failure_are_told() {
        assert_eq!(run("printf", &["%s", "out"]).unwrap(), "out");
        let error = run("sh", &["-c", "echo WARNING: x >&2; echo no such thing >&2; exit 5"]);
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("exit code 5: no such thing") && !text.contains("WARNING: x;"),
            "{text}"
        );
        let missing = run::<&str>("layerd-no-such-program", &[]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Unsupported, "{missing}");
    }

    #[test]
    fn output_is_read_while_it_comes() {
        let mut length = 0;
        let count = |mut output: BufReader<ChildStdout>| {
            length = std::io::copy(&mut output, &mut std::io::sink()).unwrap();
            Ok(())
        };
        run_reading("head", &["-c", "3000000", "/dev/zero"], count).unwrap();
        assert_eq!(length, 3_000_000, "all of it");
        // Who has read enough, or what is wrong, does not wait for the rest.
        let refuse = |_| Err(Error::invalid("read", "", "no more"));
        let error = run_reading("cat", &["/dev/zero"], refuse).unwrap_err();
        assert!(error.to_string().contains("no more"), "{error}");
        let error = run_reading("sh", &["-c", "echo reason >&2; exit 3"], |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("exit code 3: reason"), "{error}");
    }

    #[test]
    fn much_output_is_cut_and_does_not_stop_the_program() {
        let text = run("head", &["-c", "3000000", "/dev/zero"]).unwrap();
        assert_eq!(text.len() as u64, MAX_OUTPUT, "what is kept");
    }
}
