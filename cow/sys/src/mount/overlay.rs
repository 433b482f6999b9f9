//! The layers of an overlay mount, which are too many and too long for plain options.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{Context, Explain as _, MountError, Result, magic};

/// The longest string that `fsconfig(2)` takes, its NUL included.
const VALUE_MAX: usize = 256;

/// The longest option string of mount(2): a page, its NUL included.
const PAGE: usize = 4096;

/// Splits the value of overlay's `lowerdir=` into paths, uppermost first.
///
/// Paths are separated by colons; `\:` is a colon and `\\` a backslash of a path, and any other
/// character after a backslash is itself (Documentation/filesystems/overlayfs.rst).
pub fn split_lowers(value: &str) -> Vec<String> {
    let mut lowers = vec![String::new()];
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        let (end, character) = match character {
            ':' => (true, None),
            '\\' => (false, characters.next()),
            other => (false, Some(other)),
        };
        if end {
            lowers.push(String::new());
        } else if let (Some(lower), Some(character)) = (lowers.last_mut(), character) {
            lower.push(character);
        }
    }
    lowers
}

/// Hands all options of an overlay to its context, layer by layer.
pub(super) fn configure(context: &Context, options: &[&str]) -> Result<()> {
    if !configurable()? {
        return Err(MountError::new("fsconfig", "overlay lowerdir+", Errno::NOSYS));
    }
    for option in options {
        match option.split_once('=') {
            Some(("lowerdir", "")) => {}
            // Data-only layers (`::`) leave empty names, and only the whole string expresses them.
            Some(("lowerdir", value)) if value.contains("::") => {
                context.set_string("lowerdir", value)?;
            }
            Some(("lowerdir", value)) => split_lowers(value)
                .iter()
                .try_for_each(|lower| set_layer(context, "lowerdir+", lower))?,
            Some((key @ ("lowerdir+" | "datadir+" | "upperdir" | "workdir"), path)) => {
                set_layer(context, key, path)?;
            }
            _ => context.set(option)?,
        }
    }
    Ok(())
}

/// Whether this kernel's overlay reads its options one by one; found out once.
///
/// Before Linux 6.5 any option was collected unread for the old parser, even a senseless one.
fn configurable() -> Result<bool> {
    static PROBE: OnceLock<bool> = OnceLock::new();
    if let Some(known) = PROBE.get() {
        return Ok(*known);
    }
    let context = Context::open("overlay")?;
    let answer = rustix::mount::fsconfig_set_flag(&context.fd, "no_such_option");
    Ok(*PROBE.get_or_init(|| answer.is_err()))
}

/// Sets one layer, by path where it is short and free of backslashes (which some kernels take for
/// escapes), else by fd.
fn set_layer(context: &Context, key: &str, path: &str) -> Result<()> {
    if path.len() < VALUE_MAX && !path.contains('\\') {
        return context.set_string(key, path);
    }
    let layer = hold(path)?;
    match rustix::mount::fsconfig_set_fd(&context.fd, key, layer.as_fd()) {
        // Before Linux 6.13; the context resolves the path at once, so the fd may close.
        Err(Errno::INVAL) => context.set_string(key, &magic(layer.as_fd())),
        answer => context.explain(answer, "fsconfig", &format!("{key}={path}")),
    }
}

fn hold(path: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).explain("open layer", path)
}

/// The option string of mount(2), and the fds that must stay open until it was used.
pub(super) struct Legacy {
    /// The string.
    pub(super) data: String,
    /// Layers that the string names through `/proc/self/fd`.
    pub(super) held: Vec<OwnedFd>,
}

/// Writes an overlay's options for mount(2), shortened by `/proc/self/fd` names when they would not
/// fit in a page.
///
/// # Errors
/// `NAMETOOLONG` when they do not fit even so.
pub(super) fn legacy(options: &[&str]) -> Result<Legacy> {
    let whole = options.join(",");
    if whole.len() < PAGE {
        return Ok(Legacy { data: whole, held: Vec::new() });
    }
    let mut held = Vec::new();
    let mut data = Vec::new();
    for option in options {
        let Some(("lowerdir", value)) = option.split_once('=') else {
            data.push((*option).to_owned());
            continue;
        };
        let mut names = Vec::new();
        for lower in split_lowers(value) {
            let layer = hold(&lower)?;
            names.push(magic(layer.as_fd()));
            held.push(layer);
        }
        data.push(format!("lowerdir={}", names.join(":")));
    }
    let data = data.join(",");
    if data.len() >= PAGE {
        return Err(MountError::new("mount", "overlay: too many layers", Errno::NAMETOOLONG));
    }
    Ok(Legacy { data, held })
}
