//! The layouts, against bytes written out by hand.

use std::ffi::OsStr;
use std::time::Duration;

use rustix::io::Errno;

use super::*;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[test]
fn a_header_is_forty_bytes() {
    let mut bytes = words(&[41, op::LOOKUP]);
    bytes.extend(7_u64.to_ne_bytes());
    bytes.extend(1_u64.to_ne_bytes());
    bytes.extend(words(&[1000, 100, 42, 0]));
    assert_eq!(bytes.len(), IN_HEADER, "the header's size");
    bytes.extend(b"x\0");
    let mut args = Args::new(&bytes);
    let header = args.header().expect("a whole header");
    assert_eq!((header.unique, header.node), (7, 1), "{header:?}");
    assert_eq!((header.uid, header.gid, header.pid), (1000, 100, 42), "{header:?}");
    assert_eq!(args.name(), Ok(OsStr::new("x")), "the name after it");
}

#[test]
fn names_that_are_no_names_are_refused() {
    let long = [b"a".repeat(256), vec![0]].concat();
    let cases: &[(&[u8], Errno)] = &[
        (b"\0", Errno::INVAL),
        (b".\0", Errno::INVAL),
        (b"..\0", Errno::INVAL),
        (b"a/b\0", Errno::INVAL),
        (b"without an end", Errno::INVAL),
        (&long, Errno::NAMETOOLONG),
    ];
    for (bytes, error) in cases {
        assert_eq!(Args::new(bytes).name(), Err(*error), "{bytes:?}");
    }
}

#[test]
fn every_cut_of_a_request_is_refused_and_not_read_past() {
    let whole = [0; 88];
    for length in 0..whole.len() {
        let answer = SetAttr::parse(&mut Args::new(&whole[..length]));
        assert_eq!(answer.is_ok(), length >= 84, "{length} bytes of setattr");
    }
}

#[test]
fn replies_have_the_protocols_sizes() {
    let mut out = Out::default();
    out.attr(&Attr::default());
    assert_eq!(out.len(), 88, "fuse_attr");
    out.clear();
    out.attr_out(&Attr::default(), Duration::ZERO);
    assert_eq!(out.len(), 104, "fuse_attr_out");
    out.clear();
    out.entry(&EntryOut::default());
    assert_eq!(out.len(), 128, "fuse_entry_out");
    out.clear();
    out.open(0, 0, 0);
    assert_eq!(out.len(), 16, "fuse_open_out");
    out.clear();
    let init = InitOut {
        taken: Capabilities(0),
        max_readahead: 0,
        max_write: 1 << 20,
        max_stack_depth: 1,
    };
    init.lay_out(&mut out);
    assert_eq!(out.len(), 64, "fuse_init_out");
}

#[test]
fn a_listing_stops_before_its_limit() {
    let mut out = Out::default();
    let name = OsStr::new("12345678");
    assert!(out.dirent(64, 5, 1, 8, name), "the first of 32 bytes");
    assert!(out.dirent(64, 6, 2, 8, name), "the second");
    assert!(!out.dirent(64, 7, 3, 8, name), "the third does not fit");
    assert_eq!(out.len(), 64, "whole entries only");
    assert!(!out.fits_plus(64 + 128, name), "an entry with its node does not fit either");
}

#[test]
fn what_is_left_for_later_outlives_the_reply() {
    let what = std::sync::Arc::new(());
    let mut out = Out::default();
    out.later(std::sync::Arc::clone(&what));
    out.clear();
    assert_eq!(
        (out.left(), std::sync::Arc::strong_count(&what)),
        (1, 2),
        "kept for the next reply"
    );
    out.let_go();
    assert_eq!((out.left(), std::sync::Arc::strong_count(&what)), (0, 1), "dropped");
}

#[test]
fn the_high_capabilities_are_read_only_where_the_kernel_has_them() {
    let low = words(&[7, 40, 65536, 1]);
    let offer = InitIn::parse(&mut Args::new(&low)).expect("an old kernel's request");
    assert_eq!(offer.offered, Capabilities(1), "without the second word");
    let extended = u32::try_from(Capabilities::INIT_EXT).expect("a low bit");
    let high = words(&[7, 40, 65536, extended, 1 << 5]);
    let offer = InitIn::parse(&mut Args::new(&high)).expect("a new kernel's request");
    assert!(offer.offered.has(Capabilities::PASSTHROUGH), "{offer:?}");
}
