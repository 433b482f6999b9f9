//! Directories and files of the host in the container.

use std::fs;

use layerd_api::types::ContainerSpec;

use crate::harness::{Machine, can_run, command};

#[test]
fn volumes_are_shared_with_the_host() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let (dir, file, missing) = (machine.path("d"), machine.path("f"), machine.path("m/n"));
    fs::create_dir(&dir).expect("a directory");
    fs::write(dir.join("from-host"), "host").expect("a file");
    fs::write(&file, "single").expect("a file");
    let volumes = vec![
        format!("{}:/data/deep", dir.display()),
        format!("{}:/data:ro", machine.image().join("etc").display()),
        format!("{}:/one:ro", file.display()),
        format!("{}:/new", missing.display()),
    ];
    fs::create_dir(machine.image().join("etc/deep")).expect("a place for the deeper one");
    let spec = ContainerSpec { volumes, ..ContainerSpec::default() };
    let script = "cat /data/deep/from-host /one; echo; echo in > /data/deep/from-container; \
                  (echo x > /one) 2>/dev/null || echo refused; \
                  (echo x > /data/x) 2>/dev/null || echo refused; echo n > /new/n";
    assert_eq!(machine.shell_with(script, spec), "hostsingle\nrefused\nrefused\n", "{script}");
    let read = |path| fs::read_to_string(path).expect("a file of the container");
    assert_eq!(read(dir.join("from-container")), "in\n", "the host sees it");
    assert_eq!(read(missing.join("n")), "n\n", "a missing source is made");
    machine.assert_clean("after volumes");
}

#[test]
fn malformed_volumes_are_refused_before_anything_is_made() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let source = machine.path("never");
    for volume in [format!("{}:/proc/x", source.display()), "name:/x".to_owned()] {
        let spec = ContainerSpec { volumes: vec![volume.clone()], ..command(&["true"]) };
        let outcome = machine.run(&spec);
        assert_eq!(outcome.code, Some(125), "{volume}: {outcome:?}");
        assert!(outcome.err.contains("container volume"), "{volume}: {}", outcome.err);
    }
    assert!(!source.exists(), "the source is not made");
    machine.assert_clean("after malformed volumes");
}
