#![allow(clippy::cast_possible_truncation, reason = "the numbers are small and the test's own")]

use super::*;
use crate::error::ErrorKind;
use crate::tar::header::seal;
use crate::tar::{EntryKind, Writer};

/// A reader that hands out at most so many bytes at a time, to find assumptions on buffering.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(out.len());
        out[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

type Listed = Vec<(Entry, Vec<u8>)>;

fn list_with<R: Read>(mut reader: Reader<R>) -> Result<(Listed, u64)> {
    let (mut entry, mut listed) = (Entry::default(), Vec::new());
    while reader.next_entry(&mut entry)? {
        let mut content = vec![0; usize::try_from(entry.size).unwrap().min(1 << 24)];
        reader.content(&entry, |offset, piece| {
            let offset = usize::try_from(offset).unwrap();
            content[offset..offset + piece.len()].copy_from_slice(piece);
            Ok(())
        })?;
        listed.push((entry.clone(), content));
    }
    let total = reader.drain()?;
    Ok((listed, total))
}

fn list(archive: &[u8]) -> Result<(Listed, u64)> {
    list_with(Reader::new(archive))
}

/// A block by hand; the checksum is right.
fn block(name: &[u8], kind: u8, size: &[u8], magic: &[u8]) -> Block {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[header::MODE].copy_from_slice(b"0000644\0");
    block[header::SIZE][..size.len()].copy_from_slice(size);
    block[header::TYPE] = kind;
    block[header::MAGIC][..magic.len()].copy_from_slice(magic);
    seal(&mut block);
    block
}

const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
const USTAR: &[u8] = b"ustar\x0000";
const GNU: &[u8] = b"ustar  \0";

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data
}

/// A PAX header with the records, each as it is.
fn pax(records: &[u8]) -> Vec<u8> {
    let size = format!("{:011o}", records.len());
    [&block(b"pax", b'x', size.as_bytes(), USTAR)[..], &padded(records)].concat()
}

fn archive(parts: &[&[u8]]) -> Vec<u8> {
    [&parts.concat()[..], &END].concat()
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    let size = format!("{:011o}", data.len());
    [&block(name.as_bytes(), b'0', size.as_bytes(), USTAR)[..], &padded(data)].concat()
}

#[test]
fn content_is_the_same_however_the_stream_arrives() {
    let big: Vec<u8> = (0..700_000_u32).map(|index| (index % 251) as u8).collect();
    let archive = archive(&[&file("a", b"alpha"), &file("big", &big), &file("empty", b"")]);
    let (whole, total) = list(&archive).unwrap();
    assert_eq!(total, archive.len() as u64, "every byte is counted");
    assert_eq!(whole[1].1, big, "content over several buffers");
    for step in [1, 7, 511, 513, 65_536] {
        let found = list_with(Reader::new(Dribble(&archive, step))).unwrap();
        assert_eq!(found, (whole.clone(), total), "in steps of {step}");
    }
}

#[test]
fn content_not_taken_is_passed_over() {
    let archive = archive(&[&file("a", &[1; 2000]), &file("b", b"beta")]);
    let mut reader = Reader::new(&archive[..]);
    let mut entry = Entry::default();
    assert!(reader.next_entry(&mut entry).unwrap(), "a");
    let mut some = [0; 100];
    reader.stored().read_exact(&mut some).unwrap();
    assert!(reader.next_entry(&mut entry).unwrap(), "b");
    let mut text = String::new();
    reader.stored().read_to_string(&mut text).unwrap();
    assert_eq!((entry.path.as_slice(), text.as_str()), (&b"b"[..], "beta"));
    assert!(!reader.next_entry(&mut entry).unwrap(), "end");
    assert!(!reader.next_entry(&mut entry).unwrap(), "still the end");
}

#[test]
fn what_follows_the_end_is_drained_and_counted() {
    let mut archive = archive(&[&file("a", b"alpha")]);
    archive.extend_from_slice(&[7; 700_001]);
    let (listed, total) = list(&archive).unwrap();
    assert_eq!((listed.len(), total), (1, archive.len() as u64));
}

#[test]
fn every_cut_is_corrupt() {
    let whole =
        archive(&[&pax(b"20 SCHILY.xattr.a=b\n"), &file("a", &[1; 1300]), &file("b", b"beta")]);
    for cut in (0..whole.len()).step_by(BLOCK).chain([1, 100, 600, 1600, 2561, 4000]) {
        let found = list(&whole[..cut]);
        let kind = found.as_ref().map_err(Error::kind);
        assert_eq!(kind, Err(ErrorKind::Corrupt), "cut at {cut} of {}", whole.len());
    }
    assert!(list(&whole).is_ok(), "the whole archive is sound");
}

#[test]
fn malformed_headers_are_refused_with_their_kind() {
    use ErrorKind::{Corrupt, InvalidArgument, Unsupported};
    let mut broken = block(b"a", b'0', b"", USTAR);
    broken[0] = b'b';
    let lone_zero = [&[0; BLOCK][..], &file("a", b"")].concat();
    let mut negative_uid = block(b"a", b'0', b"", USTAR);
    negative_uid[header::UID].fill(0xff);
    seal(&mut negative_uid);
    let long = "x/".repeat(2500);
    let long_pax = format!("5011 path={long}\n");
    let cases: Vec<(&str, Vec<u8>, ErrorKind)> = vec![
        ("checksum", broken.to_vec(), Corrupt),
        ("not a tar", vec![b'x'; 4096], Corrupt),
        ("octal junk", block(b"a", b'0', b"0x00001", USTAR).to_vec(), Corrupt),
        ("negative size", block(b"a", b'0', &[0xff; 12], USTAR).to_vec(), Corrupt),
        (
            "size over 63 bits",
            block(b"a", b'0', b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", USTAR).to_vec(),
            Corrupt,
        ),
        (
            "giant size",
            block(b"a", b'0', b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", USTAR).to_vec(),
            Corrupt,
        ),
        ("negative uid", negative_uid.to_vec(), Corrupt),
        ("giant pax", block(b"a", b'x', b"00010000001", USTAR).to_vec(), InvalidArgument),
        ("giant long name", block(b"a", b'L', b"77777777777", GNU).to_vec(), InvalidArgument),
        ("pax length", [pax(b"99 path=x\n"), file("a", b"")].concat(), Corrupt),
        ("pax NUL", [pax(b"11 path=a\0\n"), file("a", b"")].concat(), Corrupt),
        ("pax size", [pax(b"11 size=-1\n"), file("a", b"")].concat(), Corrupt),
        ("pax at the end", pax(b"9 path=a\n"), Corrupt),
        ("long path", [pax(long_pax.as_bytes()), file("a", b"")].concat(), InvalidArgument),
        ("lone zero block", lone_zero, Corrupt),
        ("hard link to nothing", block(b"a", b'1', b"", USTAR).to_vec(), Corrupt),
        ("symlink to nothing", block(b"a", b'2', b"", USTAR).to_vec(), Corrupt),
        ("v7 device", block(b"a", b'3', b"", b"").to_vec(), Corrupt),
        ("multi-volume", block(b"a", b'M', b"", GNU).to_vec(), Unsupported),
        ("unknown", block(b"a", b'Z', b"", USTAR).to_vec(), Unsupported),
    ];
    for (name, head, kind) in cases {
        let archive = [&head[..], &END].concat();
        let found = list(&archive);
        assert_eq!(found.as_ref().map_err(Error::kind).err(), Some(kind), "{name}: {found:?}");
    }
}

#[test]
fn limits_are_kept() {
    let component = "c".repeat(256);
    let record = format!("{} path={component}\n", component.len() + 10);
    let archive_of = |records: &[u8]| archive(&[&pax(records), &file("a", b"")]);
    assert_eq!(
        list(&archive_of(record.as_bytes())).map_err(|error| error.kind()).err(),
        Some(ErrorKind::InvalidArgument),
        "component of 256 bytes"
    );
    let three = archive(&[&file("a", b""), &file("b", b""), &file("c", b"")]);
    for (entries, passes) in [(2, false), (3, true)] {
        let limits = Limits { entries, ..Limits::default() };
        let found = list_with(Reader::with_limits(&three[..], limits));
        assert_eq!(found.is_ok(), passes, "three entries of {entries}: {found:?}");
    }
    let limits = Limits { xattr: 3, ..Limits::default() };
    for (record, passes) in
        [("24 SCHILY.xattr.u.a=123\n", true), ("25 SCHILY.xattr.u.a=1234\n", false)]
    {
        let archive = archive_of(record.as_bytes());
        let found = list_with(Reader::with_limits(&archive[..], limits));
        assert_eq!(found.is_ok(), passes, "{record:?}: {found:?}");
    }
}

#[test]
fn old_dialects_are_read() {
    let mut star = block(b"name", b'0', b"", USTAR);
    star[header::PREFIX.start..][..3].copy_from_slice(b"dir");
    star[476..488].copy_from_slice(b"00000000001 ");
    star[508..].copy_from_slice(b"tar\0");
    seal(&mut star);
    let mut gnu = block(b"name", b'0', b"", GNU);
    gnu[header::PREFIX.start..][..11].copy_from_slice(b"15000000000");
    seal(&mut gnu);
    let mut prefixed = block(b"name", b'0', b"", USTAR);
    prefixed[header::PREFIX.start..][..3].copy_from_slice(b"dir");
    seal(&mut prefixed);
    let cases: [(&str, Block, &[u8], EntryKind); 7] = [
        ("v7 file", block(b"a", 0, b"", b""), b"a", EntryKind::File),
        ("v7 directory", block(b"a/", 0, b"", b""), b"a/", EntryKind::Dir),
        ("contiguous", block(b"a", b'7', b"", USTAR), b"a", EntryKind::File),
        ("ustar prefix", prefixed, b"dir/name", EntryKind::File),
        ("star prefix", star, b"dir/name", EntryKind::File),
        ("gnu has no prefix", gnu, b"name", EntryKind::File),
        ("fifo", block(b"p", b'6', b"", USTAR), b"p", EntryKind::Fifo),
    ];
    for (name, head, path, kind) in cases {
        let (listed, _) = list(&archive(&[&head])).unwrap();
        assert_eq!((&listed[0].0.path[..], listed[0].0.kind), (path, kind), "{name}");
    }
}

#[test]
fn a_header_of_a_kind_without_content_has_none_whatever_its_size() {
    let mut link = block(b"l", b'1', b"00000001000", USTAR);
    link[header::LINK.start] = b'a';
    seal(&mut link);
    let directory = block(b"d/", b'5', b"00000001000", USTAR);
    let (listed, _) = list(&archive(&[&link, &directory, &file("a", b"x")])).unwrap();
    let sizes: Vec<_> = listed.iter().map(|(entry, _)| entry.size).collect();
    assert_eq!(sizes, [0, 0, 1]);
}

#[test]
fn pax_size_wins_over_the_header() {
    let head = block(b"a", b'0', b"00000000001", USTAR);
    let data = padded(&[b'd'; 600]);
    let archive = archive(&[&pax(b"12 size=600\n"), &head, &data, &file("b", b"")]);
    let (listed, _) = list(&archive).unwrap();
    let found: Vec<_> = listed.iter().map(|(entry, _)| (&entry.path[..], entry.size)).collect();
    assert_eq!(found, [(&b"a"[..], 600), (&b"b"[..], 0)], "CVE-2026-33055");
}

#[test]
fn global_headers_and_volume_labels_are_passed_over() {
    let comment = b"30 comment=0123456789abcdefgh\n";
    let size = format!("{:011o}", comment.len());
    let global = block(b"pax_global_header", b'g', size.as_bytes(), USTAR);
    let volume = block(b"label", b'V', b"", GNU);
    let archive = archive(&[&global, &padded(comment), &volume, &file("a", b"")]);
    let (listed, _) = list(&archive).unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
}

#[test]
fn gnu_long_names_and_pax_ones() {
    let name = "n/".repeat(90) + "leaf";
    let size = format!("{:011o}", name.len() + 1);
    let long = [&block(b"././@LongLink", b'L', size.as_bytes(), GNU)[..], &padded(name.as_bytes())]
        .concat();
    let link = [&block(b"././@LongLink", b'K', size.as_bytes(), GNU)[..], &padded(name.as_bytes())]
        .concat();
    let (listed, _) = list(&archive(&[&long, &link, &block(b"cut", b'2', b"", GNU)])).unwrap();
    assert_eq!(listed[0].0.path, name.as_bytes(), "path");
    assert_eq!(listed[0].0.link, name.as_bytes(), "link");
    let (listed, _) =
        list(&archive(&[&long, &pax(b"9 path=p\n"), &file("cut", b""), &file("next", b"")]))
            .unwrap();
    let paths: Vec<_> = listed.iter().map(|(entry, _)| entry.path.as_slice()).collect();
    assert_eq!(paths, [&b"p"[..], b"next"], "PAX first, and only for one entry");
}

#[test]
fn a_large_id_needs_pax_or_base_256() {
    let mut head = block(b"a", b'0', b"", GNU);
    head[header::UID].copy_from_slice(b"\x80\0\0\0\x77\x35\x94\0");
    seal(&mut head);
    let (listed, _) = list(&archive(&[&head])).unwrap();
    assert_eq!(listed[0].0.uid, 2_000_000_000, "base-256");
    let records = b"18 uid=3000000000\n";
    let (listed, _) = list(&archive(&[&pax(records), &file("a", b"")])).unwrap();
    assert_eq!(listed[0].0.uid, 3_000_000_000, "PAX");
}

/// Mutates a valid archive in every way that a seed makes: nothing may panic or run away.
#[test]
fn mutated_archives_never_panic() {
    let mut writer = Writer::new(Vec::new());
    for index in 0..4_u32 {
        let entry = Entry {
            path: format!("dir/{}", "f".repeat(90 * index as usize + 1)).into_bytes(),
            size: u64::from(index) * 300,
            mtime: crate::meta::Time { secs: 1_700_000_000, nanos: index },
            xattrs: vec![(b"user.a".to_vec(), vec![index as u8; 20])],
            ..Entry::default()
        };
        writer.entry(&entry).unwrap();
        writer.data(&vec![b'd'; entry.size as usize]).unwrap();
    }
    let (sound, _) = writer.finish().unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut accepted = 0;
    for _ in 0..4000 {
        let mut archive = sound.clone();
        for _ in 0..=next(4) {
            let at = next(archive.len());
            archive[at] = next(256) as u8;
            // Most mutations must get past the checksum to be of any interest.
            let start = at - at % BLOCK;
            if next(4) > 0 {
                let block: &mut Block = (&mut archive[start..start + BLOCK]).try_into().unwrap();
                seal(block);
            }
        }
        accepted += usize::from(list(&archive).is_ok());
    }
    assert!(accepted > 0, "some mutations leave a sound archive");
}
