//! PAX extended header records: `LENGTH KEY=VALUE\n`, read by length.

use std::borrow::Cow;

use super::sparse::{self, decimal};
use super::{Entry, Limits, Segment};
use crate::meta::Time;

/// What a PAX header says beyond the fields of an [`Entry`].
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// The bytes that follow in the stream.
    pub(super) stored: Option<u64>,
    /// The sparse map, where it is in the header (formats 0.0 and 0.1).
    pub(super) map: Option<Vec<Segment>>,
    /// The sparse map precedes the content (format 1.0).
    pub(super) preamble: bool,
    /// The real size of a sparse file.
    pub(super) real_size: Option<u64>,
    /// The real name of a sparse file.
    name: Option<Vec<u8>>,
    /// An offset that waits for its length (format 0.0).
    offset: Option<u64>,
}

/// Why a record was not taken.
type Reason = &'static str;

/// Splits records by their lengths.
pub(super) fn records(mut data: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Reason>> {
    std::iter::from_fn(move || {
        // Some writers pad inside the announced size.
        if data.iter().take(8).all(|byte| *byte == 0) {
            return None;
        }
        let record = first_record(data);
        data = record.as_ref().map_or(&[][..], |(_, rest)| rest);
        Some(record.map(|(pair, _)| pair))
    })
}

/// A key with its value, and the data behind the record.
type Record<'a> = ((&'a [u8], &'a [u8]), &'a [u8]);

fn first_record(data: &[u8]) -> Result<Record<'_>, Reason> {
    let blank =
        data.iter().take(20).position(|byte| *byte == b' ').ok_or("record has no length")?;
    let length = decimal(&data[..blank]).ok_or("record length is no number")?;
    let length = usize::try_from(length).map_err(|_| "record length is too large")?;
    if length > data.len() || length < blank + 3 {
        return Err("record length is out of bounds");
    }
    let (record, rest) = data.split_at(length);
    let Some((b'\n', body)) = record[blank + 1..].split_last() else {
        return Err("record does not end with a newline");
    };
    let equals = body.iter().position(|byte| *byte == b'=').ok_or("record has no '='")?;
    if equals == 0 {
        return Err("record has no key");
    }
    Ok(((&body[..equals], &body[equals + 1..]), rest))
}

/// Merges a PAX header into an entry that the plain header has filled.
///
/// Unknown keys are passed over, as POSIX asks; an empty value leaves the header's own.
pub(super) fn merge(data: &[u8], entry: &mut Entry, limits: &Limits) -> Result<Extra, Reason> {
    let mut extra = Extra::default();
    for record in records(data) {
        let (key, value) = record?;
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            set_xattr(entry, name, Cow::Borrowed(value), limits)?;
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = url_decode(name).ok_or("xattr name is not url-encoded")?;
            // libarchive writes both forms; the plain one needs no decoding and wins.
            if !entry.xattrs.iter().any(|(known, _)| *known == name) {
                let value = base64_decode(value).ok_or("xattr value is not base64")?;
                set_xattr(entry, &name, Cow::Owned(value), limits)?;
            }
        } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            merge_sparse(key, value, &mut extra, limits)?;
        } else if !value.is_empty() {
            merge_field(key, value, entry, &mut extra)?;
        }
    }
    if let Some(name) = extra.name.take() {
        entry.path = name;
    }
    Ok(extra)
}

fn merge_field(
    key: &[u8],
    value: &[u8],
    entry: &mut Entry,
    extra: &mut Extra,
) -> Result<(), Reason> {
    match key {
        b"path" => copy_text(value, &mut entry.path)?,
        b"linkpath" => copy_text(value, &mut entry.link)?,
        b"size" => extra.stored = Some(decimal(value).ok_or("size is no number")?),
        b"uid" => entry.uid = id(value).ok_or("uid is out of range")?,
        b"gid" => entry.gid = id(value).ok_or("gid is out of range")?,
        b"mtime" => entry.mtime = parse_time(value).ok_or("mtime is no number")?,
        _ => {}
    }
    Ok(())
}

fn merge_sparse(
    key: &[u8],
    value: &[u8],
    extra: &mut Extra,
    limits: &Limits,
) -> Result<(), Reason> {
    let number = || decimal(value).ok_or("sparse record is no number");
    match key {
        b"size" | b"realsize" => extra.real_size = Some(number()?),
        b"name" => copy_text(value, extra.name.insert(Vec::new()))?,
        b"major" => match number()? {
            0 => {}
            1 => extra.preamble = true,
            _ => return Err("sparse format is unknown"),
        },
        b"numblocks" => extra.map = Some(Vec::new()),
        b"offset" => extra.offset = Some(number()?),
        b"numbytes" => {
            let offset = extra.offset.take().ok_or("sparse length without offset")?;
            extra.map.get_or_insert_default().push(Segment { offset, len: number()? });
        }
        b"map" => {
            sparse::comma_list(value, extra.map.insert(Vec::new()))
                .ok_or("sparse map malformed")?;
        }
        _ => {}
    }
    if extra.map.as_ref().is_some_and(|map| map.len() > limits.segments) {
        return Err("sparse file has too many segments");
    }
    Ok(())
}

fn copy_text(value: &[u8], text: &mut Vec<u8>) -> Result<(), Reason> {
    if value.contains(&0) {
        return Err("a path holds NUL");
    }
    text.clear();
    text.extend_from_slice(value);
    Ok(())
}

fn set_xattr(
    entry: &mut Entry,
    name: &[u8],
    value: Cow<'_, [u8]>,
    limits: &Limits,
) -> Result<(), Reason> {
    if name.is_empty() || name.len() > 255 || name.contains(&0) {
        return Err("xattr name is malformed");
    }
    if value.len() > limits.xattr {
        return Err("xattr value is too large");
    }
    match entry.xattrs.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.into_owned(),
        None => entry.xattrs.push((name.to_vec(), value.into_owned())),
    }
    Ok(())
}

/// Reads a user or group id; 4294967295 means "leave as it is" to chown and is none.
pub(super) fn id(text: &[u8]) -> Option<u32> {
    decimal(text).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX)
}

/// Reads decimal seconds with an optional sign and fraction; seconds beyond 64 bits saturate, digits
/// below a nanosecond are cut off towards the past.
pub(super) fn parse_time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..dot], text.get(dot + 1..).unwrap_or(b""));
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let secs = whole
        .iter()
        .fold(0_i64, |secs, digit| secs.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    let mut nanos = 0_u32;
    for index in 0..9 {
        nanos = nanos * 10 + fraction.get(index).map_or(0, |digit| u32::from(digit - b'0'));
    }
    Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time { secs: (-secs).saturating_sub(1), nanos: 1_000_000_000 - nanos },
    })
}

/// Writes decimal seconds as [`parse_time`] reads them, without closing zeros.
pub(super) fn format_time(time: Time) -> String {
    let (sign, secs, nanos) = match (time.secs < 0, time.nanos.min(999_999_999)) {
        (true, nanos @ 1..) => ("-", time.secs.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (true, 0) => ("-", time.secs.unsigned_abs(), 0),
        (false, nanos) => ("", time.secs.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{secs}");
    }
    let text = format!("{sign}{secs}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

/// Appends one record, whose length counts its own digits.
pub(super) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn url_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let mut nibble = || char::from(*bytes.next()?).to_digit(16);
        let (high, low) = (nibble()?, nibble()?);
        out.push(u8::try_from(high << 4 | low).ok()?);
    }
    Some(out)
}

/// Decodes base64 with or without its padding, as libarchive writes it without.
fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let mut out = Vec::with_capacity(end / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    (end % 4 != 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(data: &[u8]) -> Result<(Entry, Extra), Reason> {
        let mut entry = Entry::default();
        let extra = merge(data, &mut entry, &Limits::default())?;
        Ok((entry, extra))
    }

    #[test]
    fn records_are_split_by_length_not_by_newline() {
        let mut data = Vec::new();
        push_record(&mut data, b"SCHILY.xattr.user.a", b"one\ntwo\n=\0");
        push_record(&mut data, b"path", b"p/q");
        let (entry, _) = merged(&data).unwrap();
        assert_eq!(entry.xattrs, [(b"user.a".to_vec(), b"one\ntwo\n=\0".to_vec())]);
        assert_eq!(entry.path, b"p/q");
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: [&[u8]; 14] = [
            b"path=x\n",
            b"x path=x\n",
            b"0 path=x\n",
            b"3 path=x\n",
            b"99 path=x\n",
            b"99999999999999999999999 path=x\n",
            b"-9 path=x\n",
            b"10 path=xx",
            b"9 path_x\n",
            b"5 =x\n",
            b"10 path=\0x\n",
            b"12 size=0x10\n",
            b"18 uid=4294967295\n",
            b"11 mtime=x\n",
        ];
        for data in cases {
            assert!(merged(data).is_err(), "{:?} was accepted", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        for size in [0, 1, 88, 89, 90, 91, 92, 93, 988, 989, 990, 991, 9_980, 9_987] {
            let value = vec![b'v'; size];
            let mut data = Vec::new();
            push_record(&mut data, b"k", &value);
            let parsed: Vec<_> = records(&data).collect();
            assert_eq!(parsed, [Ok((&b"k"[..], &value[..]))], "value of {size} bytes");
        }
    }

    #[test]
    fn times_read_and_write() {
        let cases = [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("1.000000001", 1, 1),
            ("-1", -1, 0),
            ("-0.5", -1, 500_000_000),
            ("-1.25", -2, 750_000_000),
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
        ];
        for (text, secs, nanos) in cases {
            let time = Time { secs, nanos };
            assert_eq!(parse_time(text.as_bytes()), Some(time), "{text}");
            assert_eq!(format_time(time), text, "{time:?}");
        }
        let far = parse_time(b"99999999999999999999.9999999999").unwrap();
        assert_eq!((far.secs, far.nanos), (i64::MAX, 999_999_999), "saturates");
        for text in ["", ".", "-", "1.x", "1e3", "+1", " 1", "1.5.5"] {
            assert_eq!(parse_time(text.as_bytes()), None, "{text:?}");
        }
        let lowest = Time { secs: i64::MIN, nanos: 1 };
        assert_eq!(format_time(lowest), "-9223372036854775807.999999999");
    }

    #[test]
    fn libarchive_xattrs_are_decoded_and_the_plain_form_wins() {
        let mut data = Vec::new();
        push_record(&mut data, b"LIBARCHIVE.xattr.user.a%3Db", b"AP8K");
        push_record(&mut data, b"LIBARCHIVE.xattr.user.c", b"AA");
        push_record(&mut data, b"SCHILY.xattr.user.c", b"plain");
        let (entry, _) = merged(&data).unwrap();
        let expected =
            [(b"user.a=b".to_vec(), vec![0, 0xff, b'\n']), (b"user.c".to_vec(), b"plain".to_vec())];
        assert_eq!(entry.xattrs, expected);
        for (key, value) in [("user.%3", "AA"), ("user.%zz", "AA"), ("user.a", "A"), ("u", "!!")] {
            let mut data = Vec::new();
            let key = format!("LIBARCHIVE.xattr.{key}");
            push_record(&mut data, key.as_bytes(), value.as_bytes());
            assert!(merged(&data).is_err(), "{key}={value} was accepted");
        }
    }

    #[test]
    fn sparse_records_of_all_formats() {
        let record = |pairs: &[(&str, &str)]| {
            let mut data = Vec::new();
            for (key, value) in pairs {
                push_record(&mut data, format!("GNU.sparse.{key}").as_bytes(), value.as_bytes());
            }
            merged(&data)
        };
        let oldest = [
            ("size", "100"),
            ("numblocks", "2"),
            ("offset", "0"),
            ("numbytes", "5"),
            ("offset", "90"),
            ("numbytes", "10"),
        ];
        let segments = Some(vec![Segment { offset: 0, len: 5 }, Segment { offset: 90, len: 10 }]);
        let (_, extra) = record(&oldest).unwrap();
        assert_eq!((extra.map, extra.real_size), (segments.clone(), Some(100)), "0.0");
        let (entry, extra) =
            record(&[("name", "real"), ("size", "100"), ("map", "0,5,90,10")]).unwrap();
        assert_eq!((extra.map, entry.path.as_slice()), (segments, &b"real"[..]), "0.1");
        let (_, extra) = record(&[("major", "1"), ("minor", "0"), ("realsize", "7")]).unwrap();
        assert_eq!((extra.preamble, extra.real_size), (true, Some(7)), "1.0");
        for bad in [("major", "2"), ("numbytes", "5"), ("map", "1"), ("size", "-1")] {
            assert!(record(&[bad]).is_err(), "{bad:?} was accepted");
        }
    }
}
