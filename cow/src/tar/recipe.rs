//! Putting a tar together again from its headers and the files that it made.

use std::io::{Read, Write};

use super::{Entry, EntryKind, Reader};
use crate::error::{Error, Result};

/// Writes the tar that a recipe was recorded of ([`Reader::recording`]), byte for byte, and returns
/// its length. `content` writes the stored bytes of each regular file: all of it, or the
/// [segments](Entry::sparse) of a sparse one.
///
/// # Errors
/// Those of the reader, and those of `content`.
pub fn rebuild<W: Write>(
    recipe: impl Read,
    out: &mut W,
    mut content: impl FnMut(&Entry, &mut W) -> Result<u64>,
) -> Result<u64> {
    let mut reader = Reader::new(recipe).recording().bare();
    let mut entry = Entry::default();
    let mut written = 0;
    let pass = |out: &mut W, bytes: &[u8]| {
        out.write_all(bytes).map_err(|error| Error::sys("write tar", "", error))?;
        Ok::<_, Error>(bytes.len() as u64)
    };
    loop {
        let more = reader.next_entry(&mut entry)?;
        written += pass(out, &reader.take_recorded())?;
        if !more {
            break;
        }
        if entry.kind == EntryKind::File && entry.size > 0 {
            written += content(&entry, out)?;
        }
    }
    reader.drain()?;
    Ok(written + pass(out, &reader.take_recorded())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Writer;

    /// A tar with everything that is no content: long names, xattrs, odd sizes, a global header's
    /// place, padding behind the end.
    fn archive() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        let long = "d/".repeat(90) + "file";
        for (path, content) in
            [("a", "text"), (&*long, "more"), ("empty", ""), ("b", &"x".repeat(700))]
        {
            let entry = Entry {
                path: path.into(),
                size: content.len() as u64,
                xattrs: vec![(b"user.a".to_vec(), b"1\n2".to_vec())],
                mode: 0o640,
                ..Entry::default()
            };
            writer.entry(&entry).unwrap();
            writer.data(content.as_bytes()).unwrap();
        }
        let mut tar = writer.finish().unwrap().0;
        tar.extend_from_slice(&[0; 4096]);
        tar
    }

    #[test]
    fn a_tar_is_put_together_byte_for_byte() {
        let tar = archive();
        let mut reader = Reader::new(&tar[..]).recording();
        let (mut entry, mut recipe) = (Entry::default(), Vec::new());
        let mut contents = Vec::new();
        while reader.next_entry(&mut entry).unwrap() {
            let mut content = Vec::new();
            reader.stored().read_to_end(&mut content).unwrap();
            contents.push((entry.path.clone(), content));
            recipe.extend(reader.take_recorded());
        }
        reader.drain().unwrap();
        recipe.extend(reader.take_recorded());
        assert_eq!(recipe.len(), tar.len() - 4 - 4 - 700, "everything but the contents");
        let mut again = Vec::new();
        let length = rebuild(&recipe[..], &mut again, |entry, out| {
            let (_, content) = contents.iter().find(|(path, _)| *path == entry.path).unwrap();
            out.extend_from_slice(content);
            Ok(content.len() as u64)
        });
        assert_eq!(length.unwrap(), tar.len() as u64);
        assert!(again == tar, "the same bytes");
        let cut = rebuild(&recipe[..600], &mut Vec::new(), |_, _| Ok(0));
        assert!(cut.is_err(), "a recipe that is cut off: {cut:?}");
    }
}
