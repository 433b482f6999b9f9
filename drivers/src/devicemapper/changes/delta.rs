//! Which parts of two thin devices are not the same blocks, as `thin_delta` tells it.
//!
//! ```text
//! <superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="0">
//!   <diff left="1" right="2">
//!     <same begin="0" length="7"/>
//!     <different begin="7" length="2"/>
//!     <left_only begin="9" length="1"/>
//!     <right_only begin="20" length="4"/>
//!   </diff>
//! </superblock>
//! ```
//!
//! Lengths are in blocks of the pool; a part that neither device has is not told. Programs of this
//! family print one element a line and no text between them, but nothing here depends on lines. What
//! is not wholly as above is refused: half a list would hide changes.

use std::io::{BufRead, Read as _};
use std::ops::Range;

use super::super::dm::{SECTOR, ThinId};

/// The longest tag that is read.
const MAX_TAG: u64 = 4096;

/// Reads the list, and gives each part that differs, in bytes from the devices' beginning, and whether the
/// right device has any blocks there.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(
    mut input: impl BufRead,
    [left, right]: [ThinId; 2],
    block_size: u64,
    mut differs: impl FnMut(Range<u64>, bool),
) -> Result<(), String> {
    // The elements that are open.
    let mut open: Vec<String> = Vec::new();
    let mut is_complete = false;
    let mut text = Vec::new();
    while let Some(tag) = Tag::next(&mut input, &mut text)? {
        let way: Vec<&str> = open.iter().map(String::as_str).collect();
        match (way.as_slice(), tag.form, tag.name) {
            (_, Form::Close, name) => {
                if open.pop().as_deref() != Some(name) {
                    return Err(format!("</{name}> closes nothing"));
                }
                is_complete |= name == "diff";
                continue;
            }
            ([], Form::Open, "superblock") => {
                let sectors = tag.number("data_block_size")?;
                if sectors.checked_mul(SECTOR) != Some(block_size) {
                    return Err(format!("blocks of {sectors} sectors are not the pool's"));
                }
            }
            (["superblock"], Form::Open, "diff") if !is_complete => {
                let devices = [tag.number("left")?, tag.number("right")?];
                if devices != [u64::from(left), u64::from(right)] {
                    return Err(format!("it is of the devices {devices:?}"));
                }
            }
            (["superblock", "diff"], Form::Empty, "same") => {}
            (["superblock", "diff"], Form::Empty, "different" | "left_only" | "right_only") => {
                differs(tag.bytes(block_size)?, tag.name != "left_only");
            }
            (_, _, name) => return Err(format!("the element {name} is not known here")),
        }
        if tag.form == Form::Open {
            open.push(tag.name.to_owned());
        }
    }
    if !is_complete || !open.is_empty() {
        return Err("it is cut off".to_owned());
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Open,
    Close,
    Empty,
}

/// One tag.
#[derive(Debug)]
struct Tag<'t> {
    form: Form,
    name: &'t str,
    attributes: &'t str,
}

impl<'t> Tag<'t> {
    /// The next tag of a stream, in `text`; none at its end.
    fn next(input: &mut impl BufRead, text: &'t mut Vec<u8>) -> Result<Option<Self>, String> {
        text.clear();
        let read = input.by_ref().take(MAX_TAG).read_until(b'>', text);
        read.map_err(|error| error.to_string())?;
        let tag = std::str::from_utf8(text).map_err(|error| error.to_string())?.trim_ascii();
        if tag.is_empty() {
            return Ok(None);
        }
        let inner = tag.strip_prefix('<').and_then(|tag| tag.strip_suffix('>'));
        let inner = inner.ok_or_else(|| format!("{tag:?} is no tag"))?;
        let (form, inner) = if let Some(inner) = inner.strip_prefix('/') {
            (Form::Close, inner)
        } else if let Some(inner) = inner.strip_suffix('/') {
            (Form::Empty, inner)
        } else {
            (Form::Open, inner)
        };
        let (name, attributes) = inner.split_once([' ', '\t', '\n']).unwrap_or((inner, ""));
        Ok(Some(Self { form, name, attributes }))
    }

    /// An attribute that is a number.
    fn number(&self, name: &str) -> Result<u64, String> {
        let mut values = self.attributes.split_ascii_whitespace().filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            (key == name).then_some(value)
        });
        let value = values.next().and_then(|value| value.strip_prefix('"')?.strip_suffix('"'));
        let number = value.and_then(|value| value.parse().ok());
        number.ok_or_else(|| format!("{} has no number {name}", self.name))
    }

    /// The part that an element tells of.
    fn bytes(&self, block_size: u64) -> Result<Range<u64>, String> {
        let (begin, length) = (self.number("begin")?, self.number("length")?);
        let start = begin.checked_mul(block_size);
        let end = begin.checked_add(length).and_then(|end| end.checked_mul(block_size));
        match (start, end) {
            (Some(start), Some(end)) => Ok(start..end),
            _ => Err(format!("no device is as long as {length} blocks from {begin}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="0">
  <diff left="1" right="2">
    <same begin="0" length="7"/>
    <different begin="7" length="2"/>
    <left_only begin="9" length="1"/>
    <right_only begin="20" length="4"/>
  </diff>
</superblock>
"#;

    fn parsed(text: &str) -> Result<Vec<Range<u64>>, String> {
        let mut found = Vec::new();
        parse(text.as_bytes(), [1, 2], 65_536, |part, is_right| {
            assert_eq!(is_right, part.start != 9 * 65_536, "all but what the left one alone has");
            found.push(part);
        })?;
        Ok(found.into_iter().map(|part| part.start / 65_536..part.end / 65_536).collect())
    }

    #[test]
    fn what_differs_is_told_and_what_is_the_same_is_not() {
        assert_eq!(parsed(SOUND).unwrap(), [7..9, 9..10, 20..24]);
        let none = SOUND.lines().filter(|line| !line.contains("begin"));
        assert_eq!(parsed(&none.collect::<String>()).unwrap(), [0..0; 0], "on one line, empty");
    }

    #[test]
    fn whatever_is_not_as_expected_is_refused() {
        for (from, to, reason) in [
            ("data_block_size=\"128\"", "data_block_size=\"256\"", "not the pool's"),
            ("data_block_size=\"128\"", "", "no number data_block_size"),
            ("right=\"2\"", "right=\"3\"", "devices [1, 3]"),
            ("<different", "<changed", "element changed"),
            ("length=\"2\"", "length=\"x\"", "no number length"),
            ("length=\"2\"", "length=\"18446744073709551615\"", "no device is as long"),
            ("<same", "text<same", "no tag"),
            ("  </diff>\n", "", "closes nothing"),
            ("</superblock>", "", "cut off"),
            ("</superblock>", "</superblock><diff left=\"1\" right=\"2\">", "element diff"),
        ] {
            assert!(SOUND.contains(from), "{from}");
            let error = parsed(&SOUND.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(reason), "{from} -> {to}: {error}");
        }
        let cut = |at: usize| parsed(&SOUND[..at]);
        let whole = SOUND.trim_end().len();
        assert!((0..whole).all(|at| cut(at).is_err()), "a cut-off list is taken");
        assert!(parsed(&format!("<{}", "x".repeat(10_000))).is_err(), "an endless tag");
    }
}
