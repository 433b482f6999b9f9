//! Exit codes, and how a failure is told.

use std::io;
use std::process::ExitCode;

/// The command failed.
pub(crate) const FAILED: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// `run` failed before the container's process was started, as docker's.
pub(crate) const RUN_FAILED: u8 = 125;

/// A command line that clap could not see to be bad.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A bad command line, as an error of any command.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Tells the failure on standard error and says which code to exit with.
///
/// A reader of standard output that has seen enough is no failure.
pub(crate) fn report(error: &anyhow::Error, code: u8) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    tell(&message(error));
    if error.is::<Usage>() && code == FAILED {
        return ExitCode::from(USAGE);
    }
    ExitCode::from(code)
}

/// An error and its causes on a line. Many errors tell their cause themselves; it is not told again.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| {
        match (told.is_empty(), told.ends_with(&cause)) {
            (true, _) => cause,
            (_, true) => told,
            _ => format!("{told}: {cause}"),
        }
    })
}

/// Writes a line for the user on standard error.
pub(crate) fn tell(message: &str) {
    use std::io::Write;
    // There is nobody left to tell when this fails.
    drop(writeln!(io::stderr().lock(), "layerctl: {message}"));
}

/// Only standard output is written with plain io errors: the socket's come inside a
/// [`layerd_api::ClientError`].
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let socket = layerd_api::ClientError::NotRunning { socket: "/s".into(), source: missing() };
        let told = socket.to_string();
        for (error, expected) in [
            (anyhow::Error::from(missing()).context("open x"), format!("open x: {}", missing())),
            (anyhow::Error::from(socket).context("look"), format!("look: {told}")),
            (anyhow::anyhow!("alone"), "alone".to_owned()),
        ] {
            assert_eq!(message(&error), expected);
        }
    }

    #[test]
    fn a_broken_pipe_of_standard_output_is_told_from_others() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&pipe().into()), "as writing gives it");
        let full = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!is_broken_pipe(&full), "a full disk is a failure");
        let socket = layerd_api::ClientError::NotRunning { socket: "/s".into(), source: pipe() };
        assert!(!is_broken_pipe(&socket.into()), "the daemon went away");
    }
}
