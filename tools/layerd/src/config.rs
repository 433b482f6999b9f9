//! What a daemon is told: from a JSON file with Docker's names, and from flags, which win.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// The root directory when none is given.
pub const DEFAULT_ROOT: &str = "/var/lib/layerd";
/// The socket when none is given.
pub const DEFAULT_SOCKET: &str = "/run/layerd/layerd.sock";

/// The whole configuration of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The root directory of the store.
    pub root: PathBuf,
    /// The unix socket to serve.
    pub socket: PathBuf,
    /// The default driver; none lets the state on disk and the kernel decide.
    pub driver: Option<String>,
    /// Driver options, `key=value`, later ones win.
    pub storage_opts: Vec<String>,
    /// Whether the socket is also linked where Docker looks for plugins.
    pub docker_plugin: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: DEFAULT_ROOT.into(),
            socket: DEFAULT_SOCKET.into(),
            driver: None,
            storage_opts: Vec::new(),
            docker_plugin: false,
        }
    }
}

/// One source of configuration: what it does not say is left to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The root directory.
    pub root: Option<PathBuf>,
    /// The unix socket.
    pub socket: Option<PathBuf>,
    /// The default driver.
    pub storage_driver: Option<String>,
    /// Driver options.
    #[serde(default)]
    pub storage_opts: Vec<String>,
    /// Whether to link the socket for Docker.
    pub docker_plugin: Option<bool>,
}

impl Settings {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// `NotFound` without the file, `InvalidArgument` for one that is no JSON object or has a field
    /// that layerd does not know, by its name: a misspelt option must not be lost in silence.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| Error::sys("read configuration", path, e))?;
        Self::parse(&text, path)
    }

    /// Parses the text of a configuration file; `path` is for the message.
    fn parse(text: &[u8], path: &Path) -> Result<Self> {
        serde_json::from_slice(text).map_err(|error| {
            Error::refused(
                "read configuration",
                path.display().to_string(),
                error.to_string(),
                ErrorKind::InvalidArgument,
            )
        })
    }

    /// Lays flags over this file: a flag wins, and options of both are kept in order.
    #[must_use]
    pub fn overlaid(mut self, flags: Self) -> Self {
        self.storage_opts.extend(flags.storage_opts);
        Self {
            root: flags.root.or(self.root),
            socket: flags.socket.or(self.socket),
            storage_driver: flags.storage_driver.or(self.storage_driver),
            storage_opts: self.storage_opts,
            docker_plugin: flags.docker_plugin.or(self.docker_plugin),
        }
    }

    /// Fills what nobody said with the defaults.
    ///
    /// # Errors
    /// `InvalidArgument` for an option that is not `key=value`.
    pub fn resolve(self) -> Result<Config> {
        for option in &self.storage_opts {
            if option.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
                let reason = "not of the form key=value";
                let kind = ErrorKind::InvalidArgument;
                return Err(Error::refused("read storage option", option, reason, kind));
            }
        }
        let default = Config::default();
        Ok(Config {
            root: self.root.unwrap_or(default.root),
            socket: self.socket.unwrap_or(default.socket),
            driver: self.storage_driver,
            storage_opts: self.storage_opts,
            docker_plugin: self.docker_plugin.unwrap_or(default.docker_plugin),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings> {
        Settings::parse(text.as_bytes(), Path::new("layerd.json"))
    }

    #[test]
    fn flags_win_over_the_file_and_options_add_up() {
        let file = parse(
            r#"{"storage-driver": "btrfs", "storage-opts": ["a=1"], "root": "/r", "socket": "/s"}"#,
        )
        .unwrap();
        let flags = Settings {
            storage_driver: Some("vfs".into()),
            storage_opts: vec!["a=2".into()],
            docker_plugin: Some(true),
            ..Settings::default()
        };
        let config = file.overlaid(flags).resolve().unwrap();
        let expected = Config {
            root: "/r".into(),
            socket: "/s".into(),
            driver: Some("vfs".into()),
            storage_opts: vec!["a=1".into(), "a=2".into()],
            docker_plugin: true,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        assert_eq!(parse("{}").unwrap().resolve().unwrap(), Config::default());
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("{\"storage-drvier\": \"vfs\"}", "storage-drvier"),
            ("{\"storage-opts\": \"a=1\"}", "sequence"),
            ("[", "EOF"),
            ("", "EOF"),
        ];
        for (text, named) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}: {error}");
            assert!(error.to_string().contains(named), "{text}: {error} does not name {named}");
            assert!(error.to_string().contains("layerd.json"), "{error} does not name the file");
        }
        let bad = Settings { storage_opts: vec!["size".into()], ..Settings::default() };
        assert!(bad.resolve().unwrap_err().to_string().contains("size"));
    }
}
