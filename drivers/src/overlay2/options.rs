//! The options of overlay2, and what they become in a mount.

use std::fmt;

use crate::call::HomeCall;
use crate::error::{ErrorKind, Result};
use crate::options::Given;

/// The options that the driver takes, as `--storage-opt` names them (with or without `overlay2.`).
///
/// `override_kernel_check` is Docker's and has had no meaning since Linux 4.0; it is accepted so
/// that a configuration can be kept as it is.
pub(super) const KNOWN: [&str; 9] = [
    "index",
    "metacopy",
    "mountopt",
    "override_kernel_check",
    "redirect_dir",
    "size",
    "userxattr",
    "volatile",
    "xino",
];

/// Whether renamed directories are followed and made (`redirect_dir=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Directories of lower layers can be renamed.
    On,
    /// Renames made earlier are seen, new ones fail with EXDEV.
    Follow,
    /// Neither.
    Off,
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Follow => "follow",
            // "off" still follows where the module says redirect_always_follow.
            Self::Off => "nofollow",
        })
    }
}

/// What was asked for; none is left to the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) index: Option<bool>,
    pub(super) metacopy: Option<bool>,
    pub(super) redirect: Option<Redirect>,
    pub(super) userxattr: Option<bool>,
    pub(super) volatile: bool,
    pub(super) xino: Option<String>,
    pub(super) size: Option<u64>,
    /// More options for every mount, as they are.
    pub(super) extra: Vec<String>,
}

impl Options {
    /// Reads the list of `name=value`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown name or a strange value, by its name.
    pub(super) fn parse<S: AsRef<str>>(call: HomeCall, list: &[S]) -> Result<Self> {
        let given = Given::parse(call, &KNOWN, list)?;
        let mut options = Self {
            index: given.switch(call, "index")?,
            metacopy: given.switch(call, "metacopy")?,
            redirect: parse_redirect(call, given.text("redirect_dir"))?,
            userxattr: given.switch(call, "userxattr")?,
            volatile: given.switch(call, "volatile")?.unwrap_or(false),
            xino: parse_xino(call, given.text("xino"))?,
            size: given.size(call, "size")?,
            extra: Vec::new(),
        };
        for word in given.text("mountopt").unwrap_or_default().split(',') {
            options.take_mount_word(call, word.trim())?;
        }
        options.check_conflicts(call)?;
        Ok(options)
    }

    /// Takes one word of `mountopt`: one that is an option of the driver sets it, so that it is
    /// never given twice; the directories are the driver's own affair.
    fn take_mount_word(&mut self, call: HomeCall, word: &str) -> Result<()> {
        let (name, value) = word.split_once('=').unwrap_or((word, "on"));
        let value = [format!("{name}={value}")];
        match name {
            "" => {}
            "index" => self.index = Given::parse(call, &KNOWN, &value)?.switch(call, name)?,
            "metacopy" => self.metacopy = Given::parse(call, &KNOWN, &value)?.switch(call, name)?,
            "redirect_dir" => self.redirect = parse_redirect(call, word.split('=').nth(1))?,
            "userxattr" => self.userxattr = Some(true),
            "volatile" => self.volatile = true,
            "xino" => self.xino = parse_xino(call, word.split('=').nth(1))?,
            _ if name.starts_with("lowerdir") || ["upperdir", "workdir", "ro"].contains(&name) => {
                let reason = format!("option mountopt: {name} is the driver's to set");
                return Err(call.refused(ErrorKind::InvalidArgument, reason));
            }
            _ => self.extra.push(word.to_owned()),
        }
        Ok(())
    }

    /// Refuses what the kernel would refuse with a bare EINVAL.
    fn check_conflicts(&self, call: HomeCall) -> Result<()> {
        let conflict = |reason| Err(call.refused(ErrorKind::InvalidArgument, reason));
        if self.metacopy == Some(true) {
            if self.redirect.is_some_and(|redirect| redirect != Redirect::On) {
                return conflict("option metacopy=on needs redirect_dir=on");
            }
            if self.userxattr == Some(true) {
                return conflict("options metacopy=on and userxattr=on exclude each other");
            }
        }
        if self.redirect == Some(Redirect::On) && self.userxattr == Some(true) {
            return conflict("options redirect_dir=on and userxattr=on exclude each other");
        }
        Ok(())
    }
}

fn parse_redirect(call: HomeCall, text: Option<&str>) -> Result<Option<Redirect>> {
    match text {
        None => Ok(None),
        Some("on" | "true" | "1") => Ok(Some(Redirect::On)),
        Some("follow") => Ok(Some(Redirect::Follow)),
        Some("off" | "nofollow" | "false" | "0") => Ok(Some(Redirect::Off)),
        Some(text) => {
            let reason = format!("option redirect_dir: {text:?} is not on, follow or off");
            Err(call.refused(ErrorKind::InvalidArgument, reason))
        }
    }
}

fn parse_xino(call: HomeCall, text: Option<&str>) -> Result<Option<String>> {
    match text {
        None => Ok(None),
        Some(text @ ("on" | "off" | "auto")) => Ok(Some(text.to_owned())),
        Some(text) => {
            let reason = format!("option xino: {text:?} is not on, off or auto");
            Err(call.refused(ErrorKind::InvalidArgument, reason))
        }
    }
}

/// What every overlay mount of this home is made with: the options, and what probing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// None where the kernel does not know the option.
    pub(super) index: Option<bool>,
    pub(super) metacopy: bool,
    /// None leaves it to the kernel, which decides under `userxattr`.
    pub(super) redirect: Option<Redirect>,
    pub(super) userxattr: bool,
    pub(super) volatile: bool,
    pub(super) xino: Option<String>,
    pub(super) extra: Vec<String>,
}

impl Features {
    /// The options of a mount, without its directories.
    ///
    /// `own` tells a mount of the driver's from one that a client makes: only the driver can take
    /// away the mark that a volatile mount leaves.
    pub(super) fn mount_options(&self, writable: bool, own: bool) -> Vec<String> {
        let on = |set: bool| if set { "on" } else { "off" };
        let mut options = Vec::new();
        if let Some(index) = self.index.filter(|_| writable) {
            options.push(format!("index={}", on(index)));
        }
        if let Some(redirect) = self.redirect {
            options.push(format!("redirect_dir={redirect}"));
        }
        if self.metacopy {
            options.push("metacopy=on".to_owned());
        }
        if self.userxattr {
            options.push("userxattr".to_owned());
        }
        if self.volatile && writable && own {
            options.push("volatile".to_owned());
        }
        if let Some(xino) = &self.xino {
            options.push(format!("xino={xino}"));
        }
        options.extend(self.extra.iter().cloned());
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: HomeCall = HomeCall { driver: "overlay2", op: "open" };

    #[test]
    fn options_are_read() {
        let list = ["overlay2.index=on", "size=1g", "mountopt=nodev,metacopy=on,xino=auto"];
        let options = Options::parse(CALL, &list).unwrap();
        let expected = Options {
            index: Some(true),
            metacopy: Some(true),
            size: Some(1 << 30),
            xino: Some("auto".into()),
            extra: vec!["nodev".into()],
            ..Options::default()
        };
        assert_eq!(options, expected);
        assert_eq!(Options::parse(CALL, &["override_kernel_check=1"]).unwrap(), Options::default());
    }

    #[test]
    fn strange_and_conflicting_options_are_refused_by_name() {
        let cases: [(&[&str], &str); 9] = [
            (&["colour=red"], "colour"),
            (&["redirect_dir=perhaps"], "redirect_dir"),
            (&["xino=2"], "xino"),
            (&["index=2"], "index"),
            (&["size=big"], "size"),
            (&["mountopt=lowerdir+=/x"], "lowerdir"),
            (&["mountopt=workdir=/x"], "workdir"),
            (&["metacopy=on", "redirect_dir=off"], "metacopy"),
            (&["redirect_dir=on", "userxattr=on"], "userxattr"),
        ];
        for (list, name) in cases {
            let error = Options::parse(CALL, list).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{list:?}: {error}");
            assert!(error.to_string().contains(name), "{list:?}: {error}");
        }
    }

    #[test]
    fn a_read_only_mount_takes_nothing_that_needs_an_upper() {
        let features = Features {
            index: Some(false),
            metacopy: true,
            redirect: Some(Redirect::On),
            userxattr: false,
            volatile: true,
            xino: None,
            extra: vec!["nodev".into()],
        };
        let writable = ["index=off", "redirect_dir=on", "metacopy=on", "volatile", "nodev"];
        assert_eq!(features.mount_options(true, true), writable);
        let client = ["index=off", "redirect_dir=on", "metacopy=on", "nodev"];
        assert_eq!(features.mount_options(true, false), client);
        let read_only = ["redirect_dir=on", "metacopy=on", "nodev"];
        assert_eq!(features.mount_options(false, true), read_only);
    }
}
