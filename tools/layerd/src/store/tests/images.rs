use crate::error::ErrorKind;
use crate::import::ImportOptions;
use crate::store::{NewContainer, PruneScope, Report};
use crate::testing::{Archive, Bench, layer_tar};

fn layers(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| layer_tar(name, name)).collect()
}

const DEBIAN: &str = "docker.io/library/debian:12";

#[test]
fn an_image_is_found_by_every_name_it_has() {
    let bench = Bench::new();
    let store = bench.open();
    let image = bench.import(&store, &Archive::of("debian:12", &layers(&["a"]))).unwrap();
    let id = image[0].image.id;
    store.tag("debian:12", "registry.local:5000/x/y").unwrap();
    store.tag("debian:12", "plain").unwrap();
    let (hex, digest) = (id.hex(), id.to_string());
    let names = [
        "debian:12",
        "library/debian:12",
        DEBIAN,
        "registry.local:5000/x/y",
        "registry.local:5000/x/y:latest",
        "plain",
        "plain:latest",
        &hex,
        &digest,
        &hex[..12],
        &hex[..3],
        &digest[..17],
    ];
    for name in names {
        assert_eq!(store.resolve(name).unwrap().id, id, "{name}");
    }
    let absent = "0".repeat(64);
    for name in ["", "debian", "debian:11", "x/y", "no", "Debian:12", absent.as_str(), "sha256:"] {
        let error = store.resolve(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
    }
}

#[test]
fn an_ambiguous_beginning_is_refused() {
    let bench = Bench::new();
    let store = bench.open();
    let mut hexes = Vec::new();
    // Seventeen ids cannot all begin with different digits.
    for number in 0..17 {
        let archive = Archive::of(&format!("i{number}"), &layers(&[&number.to_string()]));
        hexes.push(bench.import(&store, &archive).unwrap()[0].image.id.hex());
    }
    hexes.sort();
    let pair = hexes.windows(2).find(|pair| pair[0][..1] == pair[1][..1]).unwrap();
    let error = store.resolve(&pair[0][..1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[test]
fn removal_follows_docker() {
    struct Case {
        what: &'static str,
        names: &'static [&'static str],
        /// What of the image: `name`, `id`.
        by: &'static str,
        force: bool,
        container: Option<&'static str>,
        expected: Result<(usize, usize), ErrorKind>,
    }
    let case = |what, names, by, force, container, expected| Case {
        what,
        names,
        by,
        force,
        container,
        expected,
    };
    let (one, two): (&[&str], &[&str]) = (&["debian:12"], &["debian:12", "other"]);
    let cases = [
        case("the only name", one, "name", false, None, Ok((1, 1))),
        case("one of two names", two, "name", false, None, Ok((1, 0))),
        case("the id with one name", one, "id", false, None, Ok((1, 1))),
        case("the id with two names", two, "id", false, None, Err(ErrorKind::FailedPrecondition)),
        case("the id with two names, forced", two, "id", true, None, Ok((2, 1))),
        case("the id without a name", &[], "id", false, None, Ok((0, 1))),
        case("a used image by name", one, "name", false, Some("created"), Err(ErrorKind::InUse)),
        case("a used image by id", one, "id", false, Some("created"), Err(ErrorKind::InUse)),
        case("one of two names of a used image", two, "name", false, Some("running"), Ok((1, 0))),
        case("a used image, forced", one, "name", true, Some("created"), Ok((1, 1))),
        case("a running image, forced", one, "name", true, Some("running"), Err(ErrorKind::InUse)),
    ];
    for Case { what, names, by, force, container, expected } in cases {
        let bench = Bench::new();
        let store = bench.open();
        let archive =
            Archive::default().and(names, serde_json::json!({"Cmd": ["sh"]}), &layers(&["a", "b"]));
        let image = bench.import(&store, &archive).unwrap().remove(0).image;
        if let Some(state) = container {
            let new = NewContainer {
                image: image.id.to_string(),
                name: Some("user".into()),
                ..NewContainer::default()
            };
            store.create_container(&new).unwrap();
            if state == "running" {
                let pid = i32::try_from(std::process::id()).unwrap();
                store.report_container("user", Report::Running { pid }).unwrap();
            }
        }
        let reference = if by == "name" { "debian:12".to_owned() } else { image.id.hex() };
        let got = store.remove_image(&reference, force);
        let counts = got.as_ref().map(|r| (r.untagged.len(), r.deleted.len()));
        assert_eq!(counts.map_err(crate::error::Error::kind), expected, "{what}: {got:?}");
        if let Err(error) = &got {
            if error.kind() == ErrorKind::InUse {
                assert!(error.to_string().contains("user"), "{what}: {error} names no container");
            }
            assert_eq!(store.resolve(&reference).unwrap().id, image.id, "{what}");
        }
        let gone = matches!(expected, Ok((_, 1)));
        let kept =
            usize::from(container.is_some()) + if gone && container.is_none() { 0 } else { 2 };
        assert_eq!(bench.vfs.len(), kept, "{what}: layers in the driver");
        drop(store);
        bench.assert_sound(what);
    }
}

#[test]
fn a_name_moves_and_leaves_the_old_image_dangling() {
    let bench = Bench::new();
    let store = bench.open();
    let old = bench.import(&store, &Archive::of("app", &layers(&["a", "b"]))).unwrap().remove(0);
    let new = bench.import(&store, &Archive::of("app", &layers(&["a", "c"]))).unwrap().remove(0);
    assert_eq!(store.resolve("app").unwrap().id, new.image.id);
    let old = store.resolve(&old.image.id.hex()).unwrap();
    assert!(old.names.is_empty(), "the old image kept {:?}", old.names);
    drop(store);
    bench.assert_sound("after a name has moved");

    let store = bench.open();
    let removed = store.prune(PruneScope::Dangling).unwrap();
    assert_eq!(removed.deleted, [old.id]);
    assert_eq!(removed.layers, [old.layers[1]], "the shared layer stays");
    assert!(removed.bytes > 0, "freed bytes are counted");
    assert_eq!(bench.vfs.len(), 2);
    let new = NewContainer { image: "app".into(), ..NewContainer::default() };
    let container = store.create_container(&new).unwrap();
    assert_eq!(store.prune(PruneScope::Unused).unwrap().deleted, [], "a container uses it");
    store.remove_container(&container.id).unwrap();
    assert_eq!(store.prune(PruneScope::Unused).unwrap().untagged, ["docker.io/library/app:latest"]);
    assert_eq!(bench.vfs.len(), 0);
}

#[test]
fn tags_are_lawful_names_and_survive() {
    let bench = Bench::new();
    let store = bench.open();
    bench.import(&store, &Archive::of("debian:12", &layers(&["a"]))).unwrap();
    for name in ["", "A", "a b", "x:y:z", "sha256:zz@", "../x"] {
        let error = store.tag("debian:12", name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name:?}: {error}");
    }
    let tagged = store.tag("debian:12", "debian:latest").unwrap();
    assert_eq!(tagged.names.len(), 2);
    assert_eq!(store.tag("debian", "debian").unwrap(), tagged, "the same name again");
    assert_eq!(store.tag("nobody", "x").unwrap_err().kind(), ErrorKind::NotFound);
    drop(store);
    let store = bench.open();
    assert_eq!(store.resolve("debian").unwrap(), tagged, "after a restart");
    assert_eq!(store.images().unwrap(), [tagged]);
}

#[test]
fn an_image_may_live_in_two_drivers() {
    let bench = Bench::new();
    let store = bench.open();
    let path = Archive::of("app", &layers(&["a", "b"])).write(&bench.scratch());
    let into = |driver: &str| {
        let options = ImportOptions { driver: Some(driver.into()), ..ImportOptions::default() };
        store.import(&path, &options, &|_| {}).unwrap().remove(0)
    };
    assert_eq!(into("vfs").new_layers, 2);
    let both = into("overlay2");
    assert_eq!(
        (both.new_layers, both.image.drivers.as_slice()),
        (2, ["overlay2", "vfs"].map(str::to_owned).as_slice())
    );
    let make = |driver: Option<&str>| {
        let driver = driver.map(str::to_owned);
        let new = NewContainer { image: "app".into(), driver, ..NewContainer::default() };
        store.create_container(&new).unwrap()
    };
    assert_eq!(make(None).driver, "overlay2", "the driver of the last import");
    assert_eq!(make(Some("vfs")).driver, "vfs");
    for container in store.containers().unwrap() {
        store.remove_container(&container.id).unwrap();
    }
    let removed = store.remove_image("app", false).unwrap();
    assert_eq!((removed.layers.len(), bench.vfs.len(), bench.overlay2.len()), (4, 0, 0));
    drop(store);
    bench.assert_sound("after two drivers");
}

#[test]
fn a_layer_in_use_is_left_for_the_next_collection() {
    let bench = Bench::new();
    let store = bench.open();
    bench.import(&store, &Archive::of("app", &layers(&["a", "b"]))).unwrap();
    bench.vfs.fail("remove", 0, ErrorKind::InUse);
    let removed = store.remove_image("app", false).unwrap();
    assert_eq!(removed.deleted.len(), 1, "the image is gone all the same");
    assert_eq!(bench.vfs.len(), 2, "the top layer was busy, the other one carries it");
    let removed = store.gc().unwrap();
    assert_eq!(bench.vfs.len(), 0, "{removed:?}");
    drop(store);
    bench.assert_sound("after a late collection");
}
