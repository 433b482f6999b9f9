//! Where the layers are: lists of paths, and what is escaped in them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::Options;
use crate::error::{Error, Result};

/// Splits at a separator that no backslash precedes; what a backslash precedes otherwise is kept.
pub(super) fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let Some(part) = parts.last_mut() else { break };
        match byte {
            b'\\' => match bytes.next() {
                Some(next) if next == separator => part.push(next),
                Some(next) => part.extend([b'\\', next]),
                None => part.push(b'\\'),
            },
            byte if byte == separator => parts.push(Vec::new()),
            byte => part.push(byte),
        }
    }
    parts
}

/// Takes the remaining backslashes out of a path.
pub(super) fn path(text: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => plain.push(bytes.next().unwrap_or(b'\\')),
            byte => plain.push(byte),
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

impl Options {
    /// Takes `A:B::C::D`: layers, and after each pair of colons one for data alone.
    pub(super) fn set_lower(&mut self, value: &[u8]) -> Result<()> {
        (self.lower, self.data, self.listed) = (Vec::new(), Vec::new(), true);
        let parts = split(value, b':');
        let mut empty = false;
        for part in &parts {
            match (part.is_empty(), empty, self.data.is_empty()) {
                (true, ..) => {}
                (false, true, _) => self.data.push(path(part)),
                (false, false, true) => self.lower.push(path(part)),
                (false, false, false) => {
                    return Err(Error::option(
                        "lowerdir=: only data layers (::) follow a data layer",
                    ));
                }
            }
            empty = part.is_empty();
        }
        Ok(())
    }

    /// Takes one more layer, in whose path nothing is escaped.
    pub(super) fn add_lower(&mut self, name: &str, value: &[u8]) -> Result<()> {
        if self.listed {
            return Err(Error::option(format!("{name}=: the layers are in lowerdir= already")));
        }
        let path = PathBuf::from(OsString::from_vec(value.to_vec()));
        match (name, self.data.is_empty()) {
            ("datadir+", _) => self.data.push(path),
            (_, true) => self.lower.push(path),
            (_, false) => return Err(Error::option("lowerdir+= follows datadir+=")),
        }
        Ok(())
    }
}
