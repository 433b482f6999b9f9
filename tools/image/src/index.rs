//! The table of contents of an archive: where each entry's data lies in the tar.
//!
//! A small, strict scan of headers (POSIX ustar and pax, pubs.opengroup.org "pax"; GNU long names
//! and base-256 numbers, `tar.h` of GNU tar) that looks at nothing but names, types, sizes and link
//! targets. It serves files of whatever origin, so every number is checked before it is used and
//! what is kept is bounded.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use crate::error::{Error, Place, Result};

/// The unit of a tar.
pub(crate) const BLOCK: usize = 512;
/// The longest pax header or GNU long name that is read, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// The most entries of an image archive: 1,024 layers of a few files each, with room to spare.
const MAX_ENTRIES: usize = 1 << 16;
/// The most bytes of names in an image archive.
const MAX_NAMES: usize = 8 << 20;

/// Where the bytes of a tar come from: at any offset, or forward only.
pub(crate) trait Blocks {
    /// Reads as much of `buffer` as there is from `offset`, which never goes back.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize>;
    /// The length of the whole where it is known.
    fn len(&self) -> Option<u64>;
    /// The file, for error messages.
    fn file(&self) -> Place;
}

/// What an entry is, as far as reading an image needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file with its data.
    Regular,
    /// A symbolic link to a target that is relative to the link's directory.
    Symlink(String),
    /// A hard link to a target that is relative to the archive's root.
    Hardlink(String),
    /// A directory.
    Directory,
    /// Devices, sparse files and whatever else.
    Other,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name without a leading `./` or a trailing `/`; empty for the root itself.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: Kind,
    /// Where its data begins.
    pub(crate) offset: u64,
    /// How long its data is.
    pub(crate) size: u64,
}

/// Walks the headers of a tar.
#[derive(Debug)]
pub(crate) struct Scan<B> {
    blocks: B,
    offset: u64,
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<B: Blocks> Scan<B> {
    /// Starts at the beginning.
    pub(crate) fn new(blocks: B) -> Self {
        Self { blocks, offset: 0 }
    }

    /// The next entry; none after the end-of-archive mark.
    ///
    /// # Errors
    ///
    /// Corrupt where a header is malformed or the archive ends without its mark, which is how a
    /// download that stopped between two entries shows.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            let at = self.offset;
            let Some(header) = self.header()? else { return Ok(None) };
            let mut size = number(&header[124..136]).ok_or_else(|| self.bad(at, "size"))?;
            let flag = header[156];
            match flag {
                b'x' => {
                    let data = self.extension(at, size)?;
                    parse_pax(&data, &mut extensions).ok_or_else(|| self.bad(at, "pax record"))?;
                    continue;
                }
                b'L' => extensions.name = Some(until_nul(&self.extension(at, size)?).to_vec()),
                b'K' => extensions.link = Some(until_nul(&self.extension(at, size)?).to_vec()),
                b'g' => drop(self.extension(at, size)?),
                _ => {
                    size = extensions.size.unwrap_or(size);
                    return self.entry(&header, at, size, extensions).map(Some);
                }
            }
        }
    }

    /// Reads and checks one header block; none at the end-of-archive mark.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut header = [0; BLOCK];
        let at = self.offset;
        let read = self.blocks.read_at(&mut header, at)?;
        if read < BLOCK {
            let what = if read == 0 { "no end-of-archive mark" } else { "a partial header" };
            return Err(self.corrupt(format!("the archive is cut off at byte {at}: {what}")));
        }
        if header.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if !checksum_matches(&header) {
            let what = if at == 0 { "not a tar archive" } else { "the tar is damaged" };
            return Err(self.corrupt(format!("{what}: no valid header at byte {at}")));
        }
        self.offset += BLOCK as u64;
        Ok(Some(header))
    }

    /// Reads the data of an extension header.
    fn extension(&mut self, at: u64, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(self.corrupt(format!("an extension header at byte {at} is over 1 MiB")));
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        let read = self.blocks.read_at(&mut data, self.offset)?;
        if read < data.len() {
            return Err(self.corrupt(format!("the archive is cut off at byte {at}: a header")));
        }
        self.skip(at, size)?;
        Ok(data)
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        at: u64,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry> {
        let name = extensions.name.unwrap_or_else(|| header_name(header));
        let link = extensions.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        // Image archives name everything in ASCII: what is not UTF-8 is never looked up.
        let name = String::from_utf8_lossy(&name).into_owned();
        let link = String::from_utf8_lossy(&link).into_owned();
        let (kind, size) = match header[156] {
            _ if extensions.sparse => (Kind::Other, size),
            // Before POSIX, a trailing slash was what made a directory.
            b'0' | 0 if name.ends_with('/') => (Kind::Directory, size),
            b'0' | 0 | b'7' => (Kind::Regular, size),
            b'1' => (Kind::Hardlink(tidy(&link)), size),
            b'2' => (Kind::Symlink(link), 0),
            b'3' | b'4' | b'6' => (Kind::Other, 0),
            b'5' => (Kind::Directory, 0),
            _ => (Kind::Other, size),
        };
        if header[156] == b'S' && header[482] != 0 {
            self.skip_sparse_map(at)?;
        }
        let offset = self.offset;
        let name = tidy(&name);
        let end = offset.checked_add(size).ok_or_else(|| self.bad(at, "size"))?;
        if self.blocks.len().is_some_and(|len| end > len) {
            return Err(Error::corrupt(
                "read tar",
                Place { inner: name, ..self.blocks.file() },
                format!("the archive is cut off: the entry's data ends at byte {end}"),
            ));
        }
        self.skip(at, size)?;
        Ok(Entry { name, kind, offset, size })
    }

    /// Moves past the blocks that continue the map of an old GNU sparse header.
    fn skip_sparse_map(&mut self, at: u64) -> Result<()> {
        let mut block = [0; BLOCK];
        loop {
            if self.blocks.read_at(&mut block, self.offset)? < BLOCK {
                return Err(self.bad(at, "sparse map"));
            }
            self.offset += BLOCK as u64;
            if block[504] == 0 {
                return Ok(());
            }
        }
    }

    /// Moves past data and its padding.
    fn skip(&mut self, at: u64, size: u64) -> Result<()> {
        let next = size
            .checked_next_multiple_of(BLOCK as u64)
            .and_then(|padded| self.offset.checked_add(padded));
        self.offset = next.ok_or_else(|| self.bad(at, "size"))?;
        Ok(())
    }

    fn bad(&self, at: u64, what: &str) -> Error {
        self.corrupt(format!("the header at byte {at} has a malformed {what}"))
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::corrupt("read tar", self.blocks.file(), reason)
    }
}

/// Whether a block is a tar header; old writers summed signed bytes.
pub(crate) fn checksum_matches(header: &[u8; BLOCK]) -> bool {
    let Some(stored) = number(&header[148..156]) else { return false };
    // The field itself counts as eight blanks.
    let unsigned = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte)).sum::<i64>();
    let signed =
        |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte.cast_signed())).sum::<i64>();
    let blanks = 8 * i64::from(b' ');
    let field = &header[148..156];
    let Ok(stored) = i64::try_from(stored) else { return false };
    stored == unsigned(header) - unsigned(field) + blanks
        || stored == signed(header) - signed(field) + blanks
}

/// A numeric field: octal digits between blanks, or GNU's base-256 with the high bit set.
fn number(field: &[u8]) -> Option<u64> {
    match field {
        [0x80, rest @ ..] => rest.iter().try_fold(0_u64, |value, &byte| {
            value.checked_mul(256).map(|value| value | u64::from(byte))
        }),
        // A set high bit with anything else is a negative or absurdly large number.
        [first, ..] if first & 0x80 != 0 => None,
        _ => {
            let text = until_nul(field).trim_ascii();
            text.iter().try_fold(0_u64, |value, &byte| match byte {
                b'0'..=b'7' => value.checked_mul(8).map(|value| value | u64::from(byte - b'0')),
                _ => None,
            })
        }
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The name of a header, with the prefix that POSIX (but not GNU) headers have.
fn header_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[0..100]);
    let prefix = until_nul(&header[345..500]);
    if &header[257..263] != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// Takes what matters from pax records: `LENGTH KEY=VALUE\n`, the length counting all of it.
fn parse_pax(mut data: &[u8], extensions: &mut Extensions) -> Option<()> {
    while !data.is_empty() {
        let space = data.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
        let (record, rest) = data.split_at_checked(length)?;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let value = &record[equals + 1..];
        match &record[..equals] {
            b"path" => extensions.name = Some(value.to_vec()),
            b"linkpath" => extensions.link = Some(value.to_vec()),
            b"size" => extensions.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            key if key.starts_with(b"GNU.sparse.") => extensions.sparse = true,
            _ => {}
        }
        data = rest;
    }
    Some(())
}

/// Drops `./` in front and slashes at the end; nothing else, so that `..` stays to be refused.
fn tidy(name: &str) -> String {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest.trim_start_matches('/');
    }
    let name = name.trim_end_matches('/');
    if name == "." { String::new() } else { name.to_owned() }
}

/// The entries of an archive by name.
#[derive(Debug, Default)]
pub(crate) struct TarIndex {
    entries: HashMap<String, Indexed>,
    names: usize,
}

#[derive(Debug)]
struct Indexed {
    entry: Entry,
    /// Whether another regular file of this name came before.
    repeated: bool,
}

impl TarIndex {
    /// Reads all headers; none where there are more entries than an image archive can have.
    pub(crate) fn read(blocks: impl Blocks) -> Result<Option<Self>> {
        let mut index = Self::default();
        let mut scan = Scan::new(blocks);
        while let Some(entry) = scan.next()? {
            index.names += entry.name.len();
            if index.entries.len() >= MAX_ENTRIES || index.names > MAX_NAMES {
                return Ok(None);
            }
            match index.entries.entry(entry.name.clone()) {
                Slot::Vacant(slot) => drop(slot.insert(Indexed { entry, repeated: false })),
                Slot::Occupied(mut slot) => {
                    let both = [&slot.get().entry.kind, &entry.kind];
                    let repeated = !both.iter().all(|kind| **kind == Kind::Directory);
                    slot.insert(Indexed { entry, repeated });
                }
            }
        }
        Ok(Some(index))
    }

    /// Whether a name is there, whatever it is.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether a layer is there as Docker laid it out in its first archives.
    pub(crate) fn has_legacy_layer(&self) -> bool {
        self.entries.keys().any(|name| name.ends_with("/layer.tar"))
    }

    /// Looks a regular file up, through links; none if there is no such entry.
    ///
    /// # Errors
    ///
    /// The reason, in words that follow the entry's name: it is no file, is there twice (readers
    /// would disagree about which counts), or its links go in a circle or out of the archive.
    pub(crate) fn find(&self, name: &str) -> Result<Option<&Entry>, &'static str> {
        let mut name = clean(name).ok_or("the name is absolute, empty or has '..'")?;
        // Docker wrote chains of at most one link; the bound only has to end circles.
        for _ in 0..8 {
            let Some(found) = self.entries.get(&name) else { return Ok(None) };
            if found.repeated {
                return Err("the archive has this entry more than once");
            }
            name = match &found.entry.kind {
                Kind::Regular => return Ok(Some(&found.entry)),
                Kind::Hardlink(target) => {
                    clean(target).ok_or("it is a hard link out of the archive")?
                }
                Kind::Symlink(target) => {
                    join(&name, target).ok_or("it is a symbolic link out of the archive")?
                }
                Kind::Directory => return Err("it is a directory"),
                Kind::Other => return Err("it is no regular file"),
            };
        }
        Err("its links go in a circle")
    }
}

/// The plain form of a relative name; none if it is empty, absolute or goes up.
pub(crate) fn clean(name: &str) -> Option<String> {
    if name.split('/').any(|part| part == "..") { None } else { join("", name) }
}

/// Resolves a link's target against the directory of the link, inside the archive.
fn join(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') || target.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

#[cfg(test)]
mod tests;
