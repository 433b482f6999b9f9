use std::collections::BTreeMap;

use super::*;
use crate::driver::{LayerRecord, State, Usage};
use crate::home::check::Required;
use crate::home::commit::{Flush, Manner};

const MANNER: Manner = Manner { rebase: true, flush: Flush::FileSystem };
const DATA: Required = Required { name: "data", data: true };

fn id(text: &str) -> LayerId {
    text.parse().unwrap()
}

fn open(dir: &Path) -> Home {
    Home::open("test", dir, &["known"]).unwrap()
}

fn make(home: &Home, name: &str, parent: Option<&str>) -> Result<()> {
    let id = id(name);
    let meta = Meta::new(id.clone(), parent.map(self::id), State::Active);
    let call = home.call("create", &id);
    home.create(call, meta, |dir, _| {
        fs::make_dir(dir, "data", 0o755).map(drop).map_err(|error| call.failed(error))
    })
}

fn commit(home: &Home, batch: &[(&str, Option<&str>)]) -> Result<()> {
    let record = |parent: &Option<&str>| LayerRecord {
        parent: parent.map(id),
        labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        ..LayerRecord::default()
    };
    let batch: Vec<_> = batch.iter().map(|(name, parent)| (id(name), record(parent))).collect();
    home.commit(&batch, MANNER, |_| Ok(Usage { bytes: 1, inodes: 1, content: 1 })).map(drop)
}

fn kind(result: Result<()>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn check(home: &Home) -> Vec<(PathBuf, bool)> {
    let findings = home.check(|_| vec![DATA]).unwrap();
    findings.into_iter().map(|found| (found.path, found.repairable)).collect()
}

fn stack_ids(home: &Home, top: &str) -> Vec<String> {
    let top = id(top);
    let stack = home.stack(home.call("test", &top), &top).unwrap();
    stack.iter().map(|layer| layer.id.to_string()).collect()
}

#[test]
fn layers_are_found_again_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    make(&home, "1", None).unwrap();
    commit(&home, &[("1", None)]).unwrap();
    make(&home, "2", Some("1")).unwrap();
    drop(home);
    let home = open(dir.path());
    assert_eq!(stack_ids(&home, "2"), ["2", "1"]);
    let (one, two) = (id("1"), id("2"));
    let one = home.layer(home.call("info", &one)).unwrap().meta().info();
    assert_eq!(one.state, State::Committed);
    assert_eq!(one.usage, Some(Usage { bytes: 1, inodes: 1, content: 1 }));
    assert_eq!(one.record.labels["k"], "v");
    assert_eq!(home.layer(home.call("info", &two)).unwrap().state(), State::Active);
    assert_eq!(kind(home.remove(home.call("remove", &id("1")))), Some(ErrorKind::InUse));
    assert_eq!(check(&home), []);
}

#[test]
fn a_home_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    let second = Home::open("test", dir.path(), &[]).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::InUse, "{second}");
    drop(home);
    open(dir.path());
    let other = Home::open("other", dir.path(), &[]).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Unsupported, "{other}");
}

#[test]
fn features_are_noted_for_programs_that_do_not_know_them() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    home.add_feature("known").unwrap();
    drop(home);
    assert!(open(dir.path()).has_feature("known"));
    let error = Home::open("test", dir.path(), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("known"), "{error}");
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    let name = id("1");
    let call = home.call("create", &name);
    let meta = Meta::new(name.clone(), None, State::Active);
    let result = home.create(call, meta, |dir, _| {
        fs::make_dir(dir, "data", 0o755).map_err(|error| call.failed(error))?;
        Err(call.refused(ErrorKind::NoSpace, "full"))
    });
    assert_eq!(kind(result), Some(ErrorKind::NoSpace));
    assert_eq!(fs::names(&home.tmp).unwrap().len(), 0, "the half-made layer stays");
    make(&home, "1", None).unwrap();
}

#[test]
fn commit_refuses_what_the_contract_says() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    for name in ["base", "twice", "other", "free", "loose"] {
        make(&home, name, None).unwrap();
    }
    commit(&home, &[("base", None), ("other", None), ("twice", None)]).unwrap();
    make(&home, "child", Some("base")).unwrap();
    let view = id("view");
    let meta = Meta::new(view.clone(), Some(id("base")), State::View);
    home.create(home.call("create", &view), meta, |_, _| Ok(())).unwrap();

    use ErrorKind::{FailedPrecondition, InvalidArgument, NotFound};
    let cases = [
        ("nobody", None, NotFound),
        ("twice", None, FailedPrecondition),
        ("view", None, FailedPrecondition),
        ("child", Some("other"), InvalidArgument),
        ("free", Some("nobody"), NotFound),
        ("free", Some("loose"), FailedPrecondition),
        ("free", Some("free"), InvalidArgument),
    ];
    for (name, parent, expected) in cases {
        let got = kind(commit(&home, &[(name, parent)]));
        assert_eq!(got, Some(expected), "commit {name} on {parent:?}");
    }
    commit(&home, &[("child", Some("base")), ("free", Some("other"))]).unwrap();
    assert_eq!(stack_ids(&home, "free"), ["free", "other"]);
    assert_eq!(kind(home.remove(home.call("remove", &id("other")))), Some(ErrorKind::InUse));
}

#[test]
fn a_batch_is_stacked_while_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    for name in ["1", "2", "3"] {
        make(&home, name, None).unwrap();
    }
    let batch = [("1", None), ("2", Some("1")), ("3", Some("2"))];
    let batch: Vec<_> = batch
        .iter()
        .map(|(name, parent)| {
            (id(name), LayerRecord { parent: parent.map(id), ..LayerRecord::default() })
        })
        .collect();
    let mut seen = Vec::new();
    home.commit(&batch, MANNER, |sealing| {
        seen.push(sealing.lowers.iter().map(|layer| layer.id.to_string()).collect::<Vec<_>>());
        Ok(Usage::default())
    })
    .unwrap();
    assert_eq!(seen, [vec![], vec!["1".to_owned()], vec!["2".to_owned(), "1".to_owned()]]);
    assert_eq!(stack_ids(&home, "3"), ["3", "2", "1"]);
    let again =
        home.commit(&[batch[0].clone(), batch[0].clone()], MANNER, |_| Ok(Usage::default()));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidArgument, "the same layer twice");
}

#[test]
fn a_batch_that_fails_leaves_all_layers_active() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    make(&home, "1", None).unwrap();
    make(&home, "2", None).unwrap();
    assert_eq!(
        kind(commit(&home, &[("1", None), ("2", Some("nobody"))])),
        Some(ErrorKind::NotFound)
    );
    for name in ["1", "2"] {
        let name = id(name);
        assert_eq!(home.layer(home.call("info", &name)).unwrap().state(), State::Active, "{name}");
        home.remove(home.call("remove", &name)).unwrap();
    }
}

#[test]
fn crash_leftovers_are_found_and_mended() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    for name in ["good", "cut", "lost", "gone", "empty"] {
        make(&home, name, None).unwrap();
    }
    commit(&home, &[("good", None), ("gone", None)]).unwrap();
    make(&home, "orphan", Some("gone")).unwrap();
    drop(home);
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(at("tmp/9.0/data/deep")).unwrap();
    std::fs::create_dir_all(at("trash/8.0/data")).unwrap();
    std::fs::create_dir(at("layers/Not A Layer")).unwrap();
    std::fs::write(at("layers/cut/layer.json"), "{\"version\"").unwrap();
    std::fs::write(at("layers/empty/layer.json"), "").unwrap();
    std::fs::remove_dir(at("layers/lost/data")).unwrap();
    std::fs::remove_dir_all(at("layers/gone")).unwrap();

    let home = open(dir.path());
    let mut found = check(&home);
    found.sort();
    let expected = [
        ("layers/Not A Layer", true),
        ("layers/cut", true),
        ("layers/empty", true),
        ("layers/lost", true),
        ("layers/orphan", false),
        ("tmp/9.0", true),
        ("trash/8.0", true),
    ];
    assert_eq!(found, expected.map(|(path, mend)| (PathBuf::from(path), mend)));
    let done = home.repair(|_| vec![DATA]).unwrap();
    assert_eq!(done.len(), 6, "{done:?}");
    assert_eq!(check(&home), [(PathBuf::from("layers/orphan"), false)]);
    assert!(at("quarantine/cut.0/data").exists(), "unreadable layers are kept aside");
    assert!(at("layers/good/data").exists(), "a sound layer was touched");
    make(&home, "cut", Some("good")).unwrap();
}

#[test]
fn circles_and_open_parents_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    for name in ["a", "b", "c", "d"] {
        make(&home, name, None).unwrap();
    }
    commit(&home, &[("a", None), ("b", None)]).unwrap();
    drop(home);
    for (name, parent) in [("a", "b"), ("b", "a"), ("c", "d")] {
        let file = dir.path().join("layers").join(name).join("layer.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.replacen(",\"state\"", &format!(",\"parent\":\"{parent}\",\"state\""), 1);
        std::fs::write(&file, text).unwrap();
    }
    let home = open(dir.path());
    let problems: BTreeMap<_, _> = home
        .check(|_| vec![DATA])
        .unwrap()
        .into_iter()
        .map(|found| (found.layer.unwrap().to_string(), found.problem))
        .collect();
    assert!(problems["a"].contains("circle") && problems["b"].contains("circle"), "{problems:?}");
    assert!(problems["c"].contains("not committed"), "{problems:?}");
    let top = id("a");
    let error = home.stack(home.call("test", &top), &top).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn work_in_progress_is_no_leftover() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    let name = id("1");
    let call = home.call("create", &name);
    home.create(call, Meta::new(name.clone(), None, State::Active), |_, _| {
        assert_eq!(check(&home), [], "a creation under way is taken for a leftover");
        home.repair(|_| vec![DATA]).map(drop)
    })
    .unwrap();
}

#[test]
fn many_threads_make_and_remove_layers() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    make(&home, "base", None).unwrap();
    commit(&home, &[("base", None)]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let home = &home;
            scope.spawn(move || {
                for round in 0..20 {
                    let name = format!("t{thread}-{}", round % 3);
                    make(home, &name, Some("base")).unwrap();
                    // Everybody fights for this one; exactly one of them makes it.
                    if make(home, "common", Some("base")).is_ok() {
                        home.remove(home.call("remove", &id("common"))).unwrap();
                    }
                    home.remove(home.call("remove", &id(&name))).unwrap();
                }
            });
        }
    });
    assert_eq!(home.layers().len(), 1, "layers are left over");
    home.remove(home.call("remove", &id("base"))).unwrap();
    assert_eq!(check(&home), []);
}
