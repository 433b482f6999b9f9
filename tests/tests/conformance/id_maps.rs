//! Layers that are shown with other owners than they have on the disk.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use drivers::{Access, CreateOptions, ErrorKind, IdMaps, State};
use tests::ops::Op::*;

use crate::bench::{Bench, each, id, kind};

/// The container's root is 100000 on the host, its groups begin at 200000.
fn mapped(state: State) -> CreateOptions {
    let map = |text: &str| text.parse().expect("a map");
    let id_map = Some(IdMaps { uids: map("0:100000:2000"), gids: map("0:200000:2000") });
    CreateOptions { state, id_map, ..CreateOptions::active() }
}

fn owner(root: &Path, name: &str) -> (u32, u32) {
    let meta = fs::symlink_metadata(root.join(name)).expect(name);
    (meta.uid(), meta.gid())
}

fn create(bench: &Bench, name: &str, parent: Option<&str>, options: &CreateOptions) {
    let parent = parent.map(id);
    bench.ok("create", bench.driver().create(&id(name), parent.as_ref(), options));
}

fn base(bench: &Bench) {
    let steps = [File("root", "1"), File("user", "2"), Chown("user", 1000, 50), File("gone", "3")];
    bench.layer("lower", None, &steps);
    bench.layer("base", Some("lower"), &[File("upper", "4"), Chown("upper", 7, 7)]);
}

fn able(bench: &Bench) -> bool {
    bench.driver().capabilities().id_map
}

/// The owners that a layer's own tar tells.
fn owners_in_tar(bench: &Bench, name: &str) -> Vec<(String, u64, u64)> {
    let mut tar = Vec::new();
    bench.ok("diff", bench.driver().diff(&id(name), None, &mut tar));
    let mut tar = tar::Archive::new(tar.as_slice());
    let entries = tar.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        std::io::copy(&mut entry.by_ref().take(0), &mut std::io::sink()).expect("nothing");
        let name = entry.path().expect("a name").display().to_string();
        let header = entry.header();
        (name, header.uid().expect("a user"), header.gid().expect("a group"))
    });
    entries.collect()
}

#[test]
fn mapped_layers_show_the_hosts_ids_and_keep_the_containers() {
    each("id maps", |bench| {
        if !able(bench) {
            let in_guest = bench.backend.driver == "devicemapper";
            assert!(!in_guest, "{}: the guest's kernel maps ids of both file systems", bench.label);
            return;
        }
        base(bench);
        create(bench, "active", Some("base"), &mapped(State::Active));
        create(bench, "view", Some("base"), &mapped(State::View));
        create(bench, "bottom", None, &mapped(State::Active));
        let result = bench.driver().mounts(&id("active"), Access::Default);
        assert_eq!(kind(result), Some(ErrorKind::Unsupported), "{}", bench.label);

        for reopened in [false, true] {
            for name in ["active", "view"] {
                let shown = bench.mount(name);
                let owners = ["", "root", "user", "upper"].map(|file| owner(&shown, file));
                let expected = [(100_000, 200_000); 2];
                assert_eq!(owners[..2], expected, "{}: {name}, {reopened}", bench.label);
                let expected = [(101_000, 200_050), (100_007, 200_007)];
                assert_eq!(owners[2..], expected, "{}: {name}, {reopened}", bench.label);
                bench.unmount(name);
            }
            bench.reopen();
        }
        let steps = [File("new", "5"), Chown("new", 100_003, 200_004), Remove("gone")];
        bench.work("active", &steps);
        bench.work("active", &[File("left", "6"), Append("user", "more")]);
        let told = owners_in_tar(bench, "active");
        for (name, uid, gid) in [("new", 3, 4), ("user", 1000, 50)] {
            let found = told.contains(&(name.to_owned(), uid, gid));
            assert!(found, "{}: {name} is {uid}:{gid} on the disk: {told:?}", bench.label);
        }
        // What the host's root made and kept is nobody's in the container.
        assert!(told.contains(&("left".to_owned(), 2000, 2000)), "{}: {told:?}", bench.label);
        bench.work("bottom", &[File("f", ""), Chown("f", 100_000, 200_000)]);
        assert!(
            owners_in_tar(bench, "bottom").contains(&("f".to_owned(), 0, 0)),
            "{}: a layer without parent",
            bench.label
        );

        // What is committed lies below containers of any map.
        bench.commit("active");
        create(bench, "plain", Some("active"), &CreateOptions::active());
        let shown = bench.mount("plain");
        assert_eq!(owner(&shown, "new"), (3, 4), "{}: without maps", bench.label);
        bench.unmount("plain");
    });
}

#[test]
fn what_cannot_or_need_not_be_mapped() {
    each("no id maps", |bench| {
        base(bench);
        bench.layer("shifted", Some("base"), &[Chown(".", 100_000, 200_000)]);
        create(bench, "on-shifted", Some("shifted"), &mapped(State::Active));
        let shown = bench.mount("on-shifted");
        assert_eq!(owner(&shown, "user"), (1000, 50), "{}: shifted before", bench.label);
        bench.unmount("on-shifted");

        let result = bench.driver().create(&id("new"), Some(&id("base")), &mapped(State::Active));
        let expected = (!able(bench)).then_some(ErrorKind::Unsupported);
        assert_eq!(kind(result), expected, "{}: as the driver says", bench.label);
    });
}
