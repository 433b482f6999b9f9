//! Programs that do what no library does: LVM's commands, `mkfs`, `fsck`, `thin_delta`.

use std::ffi::OsStr;
use std::io::Read as _;
use std::process::{Command, Stdio};

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
    let spawned =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            let reason = "the program is not installed";
            return Error::refused("run", program, reason, ErrorKind::Unsupported);
        }
        Error::sys("run", program, source)
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Both pipes are emptied at once, so that neither can stop the program.
    let errors = std::thread::spawn(move || stderr.map(read_some).unwrap_or_default());
    let stdout = stdout.map(read_some).unwrap_or_default();
    let stderr = errors.join().unwrap_or_default();
    let status = child.wait().map_err(|source| Error::sys("wait for", program, source))?;
    Ok(Ran { line, code: status.code(), stdout, stderr })
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
    fn much_output_is_cut_and_does_not_stop_the_program() {
        let text = run("head", &["-c", "3000000", "/dev/zero"]).unwrap();
        assert_eq!(text.len() as u64, MAX_OUTPUT, "what is kept");
    }
}
