//! Option strings as users and engines write them.

use std::ffi::OsStr;
use std::path::Path;

use super::*;

fn parsed(text: &str) -> Options {
    let mut options = Options::default();
    options.add(OsStr::new(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
    options
}

#[test]
fn layers_are_split_at_colons_that_are_not_escaped() {
    let cases: &[(&str, &[&str])] = &[
        ("lowerdir=/a:/b", &["/a", "/b"]),
        (r"lowerdir=/a\:b:/c", &["/a:b", "/c"]),
        (r"lowerdir=/a\,b,upperdir=/u,workdir=/w", &["/a,b"]),
        (r"lowerdir=/a\\b", &[r"/a\b"]),
        ("lowerdir=/a:", &["/a"]),
        ("lowerdir=/a::/b", &["/a"]),
        (r"lowerdir+=/a:b,lowerdir+=/c\d,datadir+=/e", &["/a:b", r"/c\d"]),
    ];
    for (text, layers) in cases {
        let layers: Vec<_> = layers.iter().map(PathBuf::from).collect();
        assert_eq!(parsed(text).lower, layers, "{text}");
    }
    for text in ["lowerdir=/a:/b::/c::/d", "lowerdir+=/a,lowerdir+=/b,datadir+=/c,datadir+=/d"] {
        let data = parsed(text).data;
        assert_eq!(data, [Path::new("/c"), Path::new("/d")], "{text}: layers for data alone");
    }
    let options = parsed(r"lowerdir=/l,upperdir=/u\,x,workdir=/w\:y");
    assert_eq!(options.upper.as_deref(), Some(Path::new("/u,x")), "a comma in the upper");
    assert_eq!(options.work.as_deref(), Some(Path::new("/w:y")), "a colon in the work directory");
}

#[test]
fn engines_option_strings_are_understood() {
    let podman = "lowerdir=/l/A:/l/B,upperdir=/d/diff,workdir=/d/work,,volatile,\
                  context=\"system_u:object_r:container_file_t:s0:c1\"";
    let options = parsed(podman);
    assert!(options.volatile, "volatile");
    assert_eq!(options.lower.len(), 2, "{:?}", options.lower);
    let rootless = "uidmapping=0:1000:1:1:110000:65536,gidmapping=0:1000:1,1:110000:65536,\
                    squash_to_uid=5,noacl,static_nlink,xino=off,timeout=0.5,threaded=0";
    let options = parsed(rootless);
    assert_eq!(options.ids.keep(110_000, 110_000), (1, 1), "both spellings of a second range");
    assert_eq!(options.ids.show(7, 0), (5, 1000), "a squashed owner");
    assert_eq!(options.threads, Some(1), "threaded=0");
    assert_eq!(options.timeout, Duration::from_millis(500), "a fraction of a second");
    assert!(!options.acl && options.static_nlink && !options.xino, "{options:?}");
}

#[test]
fn what_is_not_known_or_not_sound_is_refused() {
    for text in [
        "transport=pigeon",
        "spin=often",
        "lowerdirr=/a",
        "lowerdir=/a::/b:/c",
        "lowerdir=/a,lowerdir+=/b",
        "lowerdir=/a,datadir+=/b",
        "lowerdir+=/a,datadir+=/b,lowerdir+=/c",
        "timeout=soon",
        "xino=maybe",
        "nfs_export=on",
        "uidmapping=1:2",
    ] {
        assert!(Options::default().add(OsStr::new(text)).is_err(), "{text}");
    }
    let error = Options::default().add(OsStr::new("frobnicate")).expect_err("an unknown option");
    let message = error.to_string();
    assert!(message.contains("frobnicate") && message.contains("lowerdir=A:B"), "{message}");
    assert!(parsed("upperdir=/u,workdir=/w").check().is_err(), "no lower layer");
    assert!(parsed("lowerdir=/l,upperdir=/u").check().is_err(), "no work directory");
    assert!(parsed("lowerdir=/l").check().is_ok(), "a read-only mount");
    for (text, sound) in [("", false), (",redirect_dir=on", true)] {
        let text = format!("lowerdir=/l,redirect_dir=follow,metacopy=on{text}");
        assert!(parsed(&text).check().is_ok(), "{text}: nothing is renamed");
        let text = text + ",upperdir=/u,workdir=/w";
        assert_eq!(parsed(&text).check().is_ok(), sound, "{text}");
    }
}
