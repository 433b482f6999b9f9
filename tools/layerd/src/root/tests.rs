use super::*;

fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    drop(Root::open(dir.path(), Access::Serve).unwrap());
    dir
}

#[test]
fn a_second_process_is_refused_and_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let _held = Root::open(dir.path(), Access::Serve).unwrap();
    for access in [Access::Serve, Access::Mend, Access::Look] {
        let error = Root::open(dir.path(), access).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse, "{access:?}: {error}");
        let pid = std::process::id().to_string();
        assert!(error.to_string().contains(&pid), "{access:?}: {error} does not say pid {pid}");
    }
}

#[test]
fn formats_are_admitted_by_their_features() {
    let cases = [
        (r#"{"version":1}"#, Some(()), Some(())),
        (r#"{"version":1,"compatible":["x"]}"#, Some(()), Some(())),
        (r#"{"version":1,"read-only-compatible":["x"]}"#, None, Some(())),
        (r#"{"version":1,"incompatible":["x"]}"#, None, None),
        (r#"{"version":2}"#, None, None),
        ("{", None, None),
    ];
    for (text, serve, look) in cases {
        let dir = store();
        std::fs::write(dir.path().join(FORMAT), text).unwrap();
        let got = Root::open(dir.path(), Access::Serve).map(drop);
        assert_eq!(got.as_ref().ok(), serve.as_ref(), "serve {text}: {got:?}");
        let got = Root::open(dir.path(), Access::Look).map(drop);
        assert_eq!(got.as_ref().ok(), look.as_ref(), "look {text}: {got:?}");
    }
}

#[test]
fn a_lost_format_is_not_guessed_when_serving() {
    let dir = store();
    std::fs::remove_file(dir.path().join(FORMAT)).unwrap();
    let error = Root::open(dir.path(), Access::Serve).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(Root::open(dir.path(), Access::Look).unwrap().lost_format());
    drop(Root::open(dir.path(), Access::Mend).unwrap());
    drop(Root::open(dir.path(), Access::Serve).unwrap());
}

#[test]
fn only_serving_makes_a_store() {
    let dir = tempfile::tempdir().unwrap();
    for access in [Access::Mend, Access::Look] {
        let error = Root::open(dir.path(), access).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{access:?}: {error}");
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "{access:?} left something behind");
    }
}

#[test]
fn the_default_driver_is_remembered_and_tmp_is_emptied() {
    let dir = store();
    std::fs::create_dir_all(dir.path().join("tmp/a/b")).unwrap();
    std::fs::write(dir.path().join("tmp/a/b/c"), "x").unwrap();
    std::os::unix::fs::symlink("/", dir.path().join("tmp/link")).unwrap();
    let root = Root::open(dir.path(), Access::Serve).unwrap();
    root.remember_driver("vfs").unwrap();
    drop(root);
    let root = Root::open(dir.path(), Access::Look).unwrap();
    assert_eq!(root.format().default_driver.as_deref(), Some("vfs"));
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "tmp is not empty");
    assert!(std::path::Path::new("/tmp").exists(), "a link was followed");
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let dir = store();
    let root = Root::open(dir.path(), Access::Serve).unwrap();
    write_whole(&root, "x", b"one").unwrap();
    write_whole(&root, "x", b"two").unwrap();
    assert_eq!(read_opt(&root, "x").unwrap().unwrap(), b"two");
    assert_eq!(read_opt(&root, "y").unwrap(), None);
    std::fs::create_dir(dir.path().join("d")).unwrap();
    assert!(write_whole(&root, "d", b"three").is_err(), "a directory was replaced");
    assert!(!exists(&root, ".d.new").unwrap(), "the temporary file was left");
}
