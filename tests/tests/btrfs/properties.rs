//! Compression.

use std::fs;

use crate::bench::{Bench, here, id};

#[test]
fn compression_saves_space_and_is_no_part_of_a_layer() {
    if !here() {
        return;
    }
    let bench = Bench::new("compression", &["btrfs.compression=zstd"]);
    let text = "a line of a text that can be compressed\n".repeat(20_000);
    bench.create("1", None);
    let base = bench.mount("1");
    fs::create_dir(base.join("dir")).unwrap();
    fs::write(base.join("dir/text"), &text).unwrap();
    bench.unmount("1");
    bench.commit("1");
    let usage = bench.driver().usage(&id("1")).unwrap();
    assert_eq!(usage.content, text.len() as u64, "what it would measure elsewhere");
    assert!(usage.bytes < usage.content / 4, "it is compressed: {usage:?}");

    bench.create("2", Some("1"));
    fs::write(bench.mount("2").join("dir/more"), &text).unwrap();
    bench.unmount("2");
    let mut tar = Vec::new();
    bench.driver().diff(&id("1"), None, &mut tar).unwrap();
    let property = tar.windows(17).any(|window| window == b"btrfs.compression");
    assert!(!property, "the property is in the tar");
    assert_eq!(bench.changes("2", None), ["Modified /dir", "Added /dir/more"]);
    bench.commit("2");
    let usage = bench.driver().usage(&id("2")).unwrap();
    assert!(usage.bytes < usage.content / 4, "it is inherited: {usage:?}");
}
