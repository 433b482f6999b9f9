//! The options of fuse, and what layerfs gets of them.

use std::path::PathBuf;

use crate::call::HomeCall;
use crate::error::{ErrorKind, Result};
use crate::options::Given;

/// The options that the driver takes, as `--storage-opt` names them (with or without `fuse.`).
const KNOWN: [&str; 6] = ["enable_uring", "mountopt", "program", "size", "volatile", "xino"];

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Where layerfs is; none looks for it.
    pub(super) program: Option<PathBuf>,
    pub(super) volatile: bool,
    pub(super) xino: Option<String>,
    pub(super) size: Option<u64>,
    /// Whether directories of lower layers can be renamed.
    pub(super) renames: bool,
    /// Whether the kernel is told to offer its ring to FUSE mounts, the whole machine's.
    pub(super) enable_uring: bool,
    /// More options for every mount, as they are.
    extra: Vec<String>,
}

impl Options {
    /// Reads the list of `name=value`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown name or a strange value, by its name.
    pub(super) fn parse<S: AsRef<str>>(call: HomeCall, list: &[S]) -> Result<Self> {
        let given = Given::parse(call, &KNOWN, list)?;
        let mut options = Self {
            program: given.text("program").map(PathBuf::from),
            volatile: given.switch(call, "volatile")?.unwrap_or(false),
            xino: given.text("xino").map(str::to_owned),
            size: given.size(call, "size")?,
            renames: true,
            enable_uring: given.switch(call, "enable_uring")?.unwrap_or(false),
            extra: Vec::new(),
        };
        if options.program.as_ref().is_some_and(|path| !path.is_absolute()) {
            let reason = "option program: not an absolute path";
            return Err(call.refused(ErrorKind::InvalidArgument, reason));
        }
        if let Some(xino) = &options.xino
            && !["on", "off", "auto"].contains(&xino.as_str())
        {
            let reason = format!("option xino: {xino:?} is not on, off or auto");
            return Err(call.refused(ErrorKind::InvalidArgument, reason));
        }
        for word in given.text("mountopt").unwrap_or_default().split(',').map(str::trim) {
            options.take_mount_word(call, word)?;
        }
        Ok(options)
    }

    /// Takes one word of `mountopt`. Those that layerfs does not know, it refuses itself when the
    /// driver is opened; the directories and who may use the mount are the driver's own affair.
    fn take_mount_word(&mut self, call: HomeCall, word: &str) -> Result<()> {
        match word.split_once('=').unwrap_or((word, "")) {
            ("", _) => {}
            ("volatile", _) | ("fsync", "0") => self.volatile = true,
            ("xino", value) => self.xino = Some(value.to_owned()),
            (name @ ("lowerdir" | "upperdir" | "workdir" | "userxattr" | "ro"), _) => {
                let reason = format!("option mountopt: {name} is the driver's to set");
                return Err(call.refused(ErrorKind::InvalidArgument, reason));
            }
            (name, value) => {
                self.renames &= name != "redirect_dir" || value == "on";
                self.extra.push(word.to_owned());
            }
        }
        Ok(())
    }

    /// The options of a mount, without its directories.
    pub(super) fn words(&self, writable: bool) -> Vec<String> {
        // What a changed file's other names show must be what a commit keeps of them: the index,
        // which holds them together, is not part of the layer.
        let mut words = vec!["index=off".to_owned()];
        if self.volatile && writable {
            words.push("volatile".to_owned());
        }
        if let Some(xino) = &self.xino {
            words.push(format!("xino={xino}"));
        }
        words.extend(self.extra.iter().cloned());
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: HomeCall = HomeCall { driver: "fuse", op: "open" };

    #[test]
    fn options_are_read() {
        let list = ["fuse.program=/bin/layerfs", "size=1g", "mountopt=nodev,fsync=0,xino=auto"];
        let options = Options::parse(CALL, &list).unwrap();
        let expected = Options {
            program: Some("/bin/layerfs".into()),
            volatile: true,
            xino: Some("auto".into()),
            size: Some(1 << 30),
            renames: true,
            enable_uring: false,
            extra: vec!["nodev".into()],
        };
        assert_eq!(options, expected);
        assert_eq!(options.words(true), ["index=off", "volatile", "xino=auto", "nodev"]);
        assert_eq!(options.words(false), ["index=off", "xino=auto", "nodev"]);
        let options =
            Options::parse(CALL, &["mountopt=redirect_dir=off", "enable_uring=1"]).unwrap();
        assert!(options.enable_uring, "the ring is asked for");
        assert!(!options.renames, "directories stay where they are");
    }

    #[test]
    fn strange_options_are_refused_by_name() {
        let cases = [
            ("colour=red", "colour"),
            ("xino=2", "xino"),
            ("volatile=2", "volatile"),
            ("enable_uring=2", "enable_uring"),
            ("size=big", "size"),
            ("program=layerfs", "program"),
            ("mountopt=lowerdir=/x", "lowerdir"),
            ("mountopt=ro", "ro"),
        ];
        for (option, name) in cases {
            let error = Options::parse(CALL, &[option]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{option}: {error}");
            assert!(error.to_string().contains(name), "{option}: {error}");
        }
    }
}
