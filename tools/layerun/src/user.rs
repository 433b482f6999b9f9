//! Who the container's process is: user, groups and home from the container's own files.
//!
//! The rules are those of `docker run --user` and of the OCI image-spec's `config.User`: either
//! half may be a name or a number, a number need not be in the files, a name must. The files belong
//! to the image, so whoever made it chose what is in them and what they *are*: they are opened
//! under the container's root only (a symlink to the host's `/etc/shadow` leads into the
//! container), must be regular files (a FIFO would block forever) and are bounded in size.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use cow_sys::resolve::openat2;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The longest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_FILE: u64 = 8 << 20;
/// The greatest id: what the kernel takes, less the half that signed programs break on.
const MAX_ID: u32 = i32::MAX as u32;

/// A process's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// Supplementary groups; always holds the primary one, so that dropping a group never lifts a
    /// restriction that is put on it (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// The home directory, `/` when the files know none.
    pub home: String,
}

/// Finds who `user` (`""`, `user`, `user:group`, by name or number) is in the container at `root`.
///
/// # Errors
///
/// [`Error::NoSuchUser`] for a name without entry, [`Error::Invalid`] for a malformed one,
/// [`Error::Io`] if a file is there but is not a readable regular file.
pub fn lookup(root: impl AsFd, user: &str) -> Result<Identity> {
    let passwd = read(root.as_fd(), "etc/passwd")?;
    let group = read(root.as_fd(), "etc/group")?;
    resolve(user, &passwd, &group)
}

/// The pure half of [`lookup`]: the same over the files' text.
///
/// # Errors
///
/// As [`lookup`], without its I/O.
pub fn resolve(user: &str, passwd: &str, group: &str) -> Result<Identity> {
    let (user_part, group_part) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let wanted = if user_part.is_empty() { "0" } else { user_part };
    let number = parse_id(wanted, user)?;
    let entry = passwd
        .lines()
        .filter_map(PasswdEntry::parse)
        .find(|entry| entry.name == wanted || (number.is_some() && number == Some(entry.uid)));
    let (uid, gid, home) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home),
        (None, Some(uid)) => (uid, 0, "/"),
        (None, None) => {
            return Err(Error::NoSuchUser { kind: "user", name: wanted.into(), file: "passwd" });
        }
    };
    let mut groups = Vec::new();
    let gid = match group_part {
        Some(name) => find_group(name, user, group)?,
        None => {
            let name = entry.as_ref().map(|entry| entry.name);
            groups.extend(name.into_iter().flat_map(|name| member_of(name, group)));
            gid
        }
    };
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

fn find_group(name: &str, user: &str, group: &str) -> Result<u32> {
    let number = parse_id(name, user)?;
    let found = group
        .lines()
        .filter_map(GroupEntry::parse)
        .find(|entry| entry.name == name || (number.is_some() && number == Some(entry.gid)))
        .map(|entry| entry.gid);
    found.or(number).ok_or_else(|| Error::NoSuchUser {
        kind: "group",
        name: name.into(),
        file: "group",
    })
}

fn member_of<'a>(name: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group
        .lines()
        .filter_map(GroupEntry::parse)
        .filter(move |entry| entry.members.split(',').any(|member| member == name))
        .map(|entry| entry.gid)
}

/// A number in range, or none for a name.
fn parse_id(text: &str, whole: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(Error::invalid("user", whole, format!("ids must be in range 0-{MAX_ID}"))),
    }
}

/// One line of passwd(5).
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    /// None for a comment, an empty or a malformed line: one bad line must not hide the others.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok().filter(|id| *id <= MAX_ID)?;
        let gid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    }
}

/// One line of group(5).
struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok().filter(|id| *id <= MAX_ID)?;
        Some(Self { name, gid, members: fields.next().unwrap_or("") })
    }
}

/// Reads one of the container's files; a missing one is empty.
fn read(root: impl AsFd, path: &'static str) -> Result<String> {
    let failed = |source: std::io::Error| Error::Io {
        operation: "read the container's",
        path: Path::new("/").join(path),
        source,
    };
    // O_NONBLOCK: opening a FIFO must not wait for a writer; a regular file does not care.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(root, Path::new(path), flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(failed(errno.into())),
    };
    let stat = fstat(&file).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(std::io::Error::other("longer than 8 MiB")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
