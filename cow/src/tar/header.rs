//! The 512-byte header block: fields, numbers, checksum.

use std::ops::Range;

use super::BLOCK;

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Range<usize> = 157..257;
pub(super) const MAGIC: Range<usize> = 257..265;
pub(super) const MAJOR: Range<usize> = 329..337;
pub(super) const MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
/// The prefix in star's old format, which keeps times behind it and `tar\0` at the end.
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;
/// GNU's old sparse format: four pairs of offset and length, a flag, the real size.
pub(super) const SPARSE: Range<usize> = 386..482;
pub(super) const SPARSE_MORE: usize = 482;
pub(super) const SPARSE_SIZE: Range<usize> = 483..495;

pub(super) const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

/// One header block.
pub(super) type Block = [u8; BLOCK];

/// The dialect that the magic bytes name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before POSIX: no prefix, no device numbers of note.
    V7,
    /// POSIX, with a prefix field.
    Ustar,
    /// POSIX magic with star's shorter prefix.
    Star,
    /// GNU, with times and sparse data where POSIX has the prefix.
    Gnu,
}

/// Reads the dialect.
pub(super) fn dialect(block: &Block) -> Dialect {
    if &block[MAGIC] == GNU {
        Dialect::Gnu
    } else if !block[MAGIC].starts_with(b"ustar\0") {
        Dialect::V7
    } else if &block[STAR_TRAILER] == b"tar\0" {
        Dialect::Star
    } else {
        Dialect::Ustar
    }
}

/// The bytes of a field up to its NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Writes the header's path, prefix and name joined, into `path`.
pub(super) fn path(block: &Block, path: &mut Vec<u8>) {
    path.clear();
    let prefix = match dialect(block) {
        Dialect::Ustar => text(&block[PREFIX]),
        Dialect::Star => text(&block[STAR_PREFIX]),
        Dialect::V7 | Dialect::Gnu => b"",
    };
    if !prefix.is_empty() {
        path.extend_from_slice(prefix);
        path.push(b'/');
    }
    path.extend_from_slice(text(&block[NAME]));
}

/// Reads a number: octal digits between blanks and NULs, or GNU's big-endian two's complement
/// behind a byte with its high bit set. None for anything else.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // 0x80 marks a positive number and 0xff a negative one; the bits below are its highest.
        let negative = first & 0x40 != 0;
        let start = if negative { -1_i128 } else { 0 };
        let head = i128::from(first & 0x3f);
        let mut value = if negative { start << 6 | head } else { head };
        for byte in &field[1..] {
            value = value << 8 | i128::from(*byte);
            if i64::try_from(value).is_err() {
                return None;
            }
        }
        return i64::try_from(value).ok();
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return None;
    }
    digits[..end].iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Reads a number that cannot be negative.
pub(super) fn size(field: &[u8]) -> Option<u64> {
    u64::try_from(number(field)?).ok()
}

/// The checksum of a block: the sum of its bytes with the checksum field as blanks, as unsigned
/// bytes (POSIX) and as signed ones (some old writers).
pub(super) fn checksums(block: &Block) -> (i64, i64) {
    const BLANKS: i64 = 8 * b' ' as i64;
    let unsigned = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(*byte)).sum::<i64>();
    let high = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte >> 7)).sum::<i64>();
    let sum = unsigned(block) - unsigned(&block[CHECKSUM]) + BLANKS;
    // A byte with its high bit set counts 256 less when it is signed.
    (sum, sum - 256 * (high(block) - high(&block[CHECKSUM])))
}

/// Whether the block's checksum is right.
pub(super) fn sound(block: &Block) -> bool {
    let (unsigned, signed) = checksums(block);
    number(&block[CHECKSUM]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// Writes a number as octal digits that fill the field but for a closing NUL; whether it fits.
pub(super) fn put_octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let fits = value >> (3 * digits) == 0;
    let mut rest = if fits { value } else { 0 };
    for byte in field[..digits].iter_mut().rev() {
        *byte = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    fits
}

/// Fills the checksum in: six digits, NUL, blank.
pub(super) fn seal(block: &mut Block) {
    let sum = checksums(block).0.cast_unsigned();
    put_octal(&mut block[CHECKSUM.start..CHECKSUM.end - 1], sum);
    block[CHECKSUM.end - 1] = b' ';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let cases: [(&[u8], Option<i64>); 16] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"77777777", Some(0o77_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\0\0\0\x80\0\0\0", Some(1 << 31)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"64 4   \0", None),
            (b"0x1ff  \0", None),
            (b"", None),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), expected, "{field:?}");
        }
        assert_eq!(size(b"\xff\xff\xff\xff\xff\xff\xff\xff"), None, "a negative size");
    }

    #[test]
    fn octal_is_written_only_where_it_fits() {
        let cases = [(0, true), (0o7_777_777, true), (0o10_000_000, false), (u64::MAX, false)];
        for (value, fits) in cases {
            let mut field = [0; 8];
            assert_eq!(put_octal(&mut field, value), fits, "{value:o}");
            let read = if fits { value } else { 0 };
            assert_eq!(size(&field), Some(read), "{value:o}: {field:?}");
        }
    }

    #[test]
    fn a_sealed_block_is_sound_until_a_byte_changes() {
        let mut block = [0; BLOCK];
        block[NAME.start] = 0xe9;
        seal(&mut block);
        assert!(sound(&block), "sealed");
        block[NAME.start] = 0xe8;
        assert!(!sound(&block), "one byte changed");
        let signed = checksums(&block).1.cast_unsigned();
        put_octal(&mut block[CHECKSUM.start..CHECKSUM.end - 1], signed);
        assert!(sound(&block), "the sum of signed bytes is accepted too");
    }
}
