//! Layers made from tars, written here by hand.

use drivers::ErrorKind;
use tests::ops::Op::*;

use crate::bench::{each, id, kind};

/// A small tar, entry by entry.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(
        mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        owner: (u64, u64),
        data: &str,
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_000_000_000);
        if kind == tar::EntryType::Link {
            header.set_size(0);
            self.0.append_link(&mut header, path, data).unwrap();
        } else {
            header.set_size(data.len() as u64);
            self.0.append_data(&mut header, path, data.as_bytes()).unwrap();
        }
        self
    }

    pub(crate) fn dir(self, path: &str, mode: u32, owner: (u64, u64)) -> Self {
        self.add(path, tar::EntryType::Directory, mode, owner, "")
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.add(path, tar::EntryType::Regular, 0o644, (0, 0), content)
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.add(path, tar::EntryType::Link, 0o644, (0, 0), target)
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    each("whiteouts", |bench| {
        bench.layer(
            "1",
            None,
            &[
                Dir("d", 0o755),
                File("d/a", "1"),
                File("d/b", "1"),
                File("gone", "1"),
                Dir("dir", 0o755),
                File("dir/x", "1"),
            ],
        );
        bench.create("2", Some("1"));
        let tar = Tar::new()
            .file("d/new", "2")
            .file("d/.wh..wh..opq", "")
            .file(".wh.gone", "")
            .file(".wh.never", "")
            .file("dir", "a file now")
            .end();
        let applied = bench.apply("2", &tar);
        assert_eq!(applied.tar_size, tar.len() as u64, "{}", bench.label);
        assert_eq!(applied.entries, 5, "{}", bench.label);
        bench.commit("2");
        let shown: Vec<_> = bench.portrait("2").into_keys().collect();
        let expected = ["", "d", "d/new", "dir"].map(std::path::PathBuf::from);
        assert_eq!(shown, expected, "{}", bench.label);
    });
}

#[test]
fn whiteouts_at_the_bottom_are_not_seen() {
    each("bottom", |bench| {
        bench.create("1", None);
        let tar = Tar::new().file("f", "1").file(".wh.x", "").file("d/.wh..wh..opq", "").end();
        bench.apply("1", &tar);
        bench.commit("1");
        let shown: Vec<_> = bench.portrait("1").into_keys().collect();
        assert!(!shown.contains(&"x".into()), "{}: {shown:?}", bench.label);
        bench.layer("2", Some("1"), &[]);
        bench.same("on it", &bench.portrait("2"), &bench.portrait("1"));
    });
}

#[test]
fn a_cut_tar_is_corrupt_and_the_layer_can_be_removed() {
    each("cut", |bench| {
        let tar = Tar::new().file("f", &"x".repeat(5000)).end();
        bench.create("1", None);
        let got = kind(bench.driver().apply(&id("1"), &mut &tar[..3000]));
        assert_eq!(got, Some(ErrorKind::Corrupt), "{}", bench.label);
        bench.remove("1");
        for name in ["nobody", "1"] {
            let got = kind(bench.driver().apply(&id(name), &mut &tar[..]));
            assert_eq!(got, Some(ErrorKind::NotFound), "{}: {name}", bench.label);
        }
    });
}

#[test]
fn a_tar_is_not_applied_to_what_is_in_use_or_not_active() {
    each("refused", |bench| {
        let tar = Tar::new().file("f", "x").end();
        bench.layer("1", None, &[]);
        bench.view("view", Some("1"));
        bench.create("mounted", Some("1"));
        bench.mount("mounted");
        for (name, expected) in [
            ("1", ErrorKind::FailedPrecondition),
            ("view", ErrorKind::FailedPrecondition),
            ("mounted", ErrorKind::InUse),
        ] {
            let got = kind(bench.driver().apply(&id(name), &mut &tar[..]));
            assert_eq!(got, Some(expected), "{}: {name}", bench.label);
        }
        bench.unmount("mounted");
    });
}

#[test]
fn a_directory_made_on_the_way_takes_after_the_lower_one() {
    each("implicit", |bench| {
        bench.layer(
            "1",
            None,
            &[
                Dir("opt", 0o711),
                Chown("opt", 7, 8),
                Dir("opt/sub", 0o1770),
                Xattr("opt/sub", "user.a", b"1"),
                Symlink("link", "opt/sub"),
                Mtime("opt", 5, 5),
            ],
        );
        bench.create("2", Some("1"));
        let tar = Tar::new().file("opt/sub/f", "x").file("link/g", "y").end();
        bench.apply("2", &tar);
        bench.commit("2");
        let (below, shown) = (bench.portrait("1"), bench.portrait("2"));
        for path in ["opt", "link"] {
            assert_eq!(
                shown.get(path.as_ref() as &std::path::Path),
                below.get(std::path::Path::new(path)),
                "{}: {path}",
                bench.label
            );
        }
        for path in ["opt/sub/f", "opt/sub/g"] {
            assert!(shown.contains_key(std::path::Path::new(path)), "{}: {shown:?}", bench.label);
        }
    });
}
