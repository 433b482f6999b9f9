use layerd_api::types::ContainerSpec;
use oci_spec::runtime::Capability;

use super::*;

fn container(spec: ContainerSpec) -> Container {
    Container {
        id: "0123456789abcdef".repeat(4),
        name: "n".into(),
        image: "sha256:1".into(),
        image_name: "debian:12".into(),
        state: "created".into(),
        exit_code: None,
        pid: None,
        created: "2026-01-01T00:00:00Z".into(),
        started: None,
        finished: None,
        auto_remove: false,
        spec,
        mounts: Vec::new(),
        snapshot: "s".into(),
        driver: "vfs".into(),
        driver_data: std::collections::BTreeMap::new(),
    }
}

fn facts() -> Facts {
    let identity = Identity { uid: 7, gid: 8, groups: vec![8, 9], home: "/home/u".into() };
    Facts {
        rootfs: "/run/x/rootfs".into(),
        identity,
        files: vec![("/run/x/hosts".into(), "/etc/hosts".into())],
        cgroups: CgroupView::Nothing,
        guards_devices: true,
        cgroup_namespace: true,
    }
}

fn command(args: &[&str]) -> ContainerSpec {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    ContainerSpec { args, ..ContainerSpec::default() }
}

fn built(spec: ContainerSpec) -> Spec {
    build(&container(spec), &facts()).expect("a description")
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn environment_is_merged_over_the_defaults() {
    let path = format!("PATH={DEFAULT_PATH}");
    for (env, terminal, expected) in [
        (&[][..], false, vec![path.as_str(), "HOSTNAME=0123456789ab", "HOME=/home/u"]),
        (&["A=1", "A=2"], false, vec![&path, "HOSTNAME=0123456789ab", "A=2", "HOME=/home/u"]),
        (&["PATH=/x"], false, vec!["PATH=/x", "HOSTNAME=0123456789ab", "HOME=/home/u"]),
        (&["HOME=/me"], false, vec![&path, "HOSTNAME=0123456789ab", "HOME=/me"]),
        (&["HOME="], false, vec![&path, "HOSTNAME=0123456789ab", "HOME=/home/u"]),
        (
            &["X=", "Y=a=b"],
            false,
            vec![&path, "HOSTNAME=0123456789ab", "X=", "Y=a=b", "HOME=/home/u"],
        ),
        (&["=x", "bare"], false, vec![&path, "HOSTNAME=0123456789ab", "HOME=/home/u"]),
        (&[], true, vec![&path, "HOSTNAME=0123456789ab", "TERM=xterm", "HOME=/home/u"]),
        (&["TERM=vt100"], true, vec![&path, "HOSTNAME=0123456789ab", "TERM=vt100", "HOME=/home/u"]),
    ] {
        let spec = ContainerSpec { env: strings(env), terminal, ..command(&["x"]) };
        let spec = built(spec);
        let process = spec.process().as_ref().expect("a process");
        assert_eq!(process.env().as_deref(), Some(&strings(&expected)[..]), "{env:?} {terminal}");
    }
}

#[test]
fn identity_and_limits_of_the_process_are_set() {
    let spec = built(ContainerSpec { cwd: "/w".into(), ..command(&["a", "b"]) });
    let process = spec.process().as_ref().expect("a process");
    assert_eq!(process.args().as_deref(), Some(&strings(&["a", "b"])[..]), "arguments");
    assert_eq!((process.user().uid(), process.user().gid()), (7, 8), "user and group");
    assert_eq!(process.user().additional_gids().as_deref(), Some(&[8, 9][..]), "groups");
    assert_eq!(process.cwd(), Path::new("/w"), "working directory");
    assert_eq!(process.no_new_privileges(), Some(true), "no new privileges");
    assert!(process.rlimits().is_none(), "rlimits are inherited");
}

#[test]
fn capabilities_are_dockers_and_mknod_needs_a_guard() {
    let set = |guards_devices| {
        let facts = Facts { guards_devices, ..facts() };
        let spec = build(&container(command(&["x"])), &facts).expect("a description");
        let all = spec.process().as_ref().and_then(|p| p.capabilities().clone()).expect("some");
        let (bounding, effective) = (all.bounding().clone(), all.effective().clone());
        assert_eq!(bounding, effective, "bounding and effective");
        assert_eq!(all.permitted(), &effective, "permitted and effective");
        assert!(all.inheritable().as_ref().is_none_or(|set| set.is_empty()), "inheritable");
        assert!(all.ambient().as_ref().is_none_or(|set| set.is_empty()), "ambient");
        effective.expect("a set")
    };
    assert_eq!(set(true).len(), 14, "Docker's fourteen");
    let unguarded = set(false);
    assert_eq!(unguarded.len(), 13, "all but one");
    assert!(!unguarded.contains(&Capability::Mknod), "no device nodes without a guard");
}

#[test]
fn mounts_come_in_an_order_that_hides_nothing() {
    let volumes = strings(&["/a:/data/deep/er", "/b:/data:ro", "/c:/dev/thing"]);
    let spec = built(ContainerSpec { volumes, ..command(&["x"]) });
    let mounts = spec.mounts().as_ref().expect("mounts");
    let places: Vec<_> = mounts.iter().map(|m| m.destination().display().to_string()).collect();
    assert_eq!(
        places,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/sys",
            "/dev/mqueue",
            "/dev/shm",
            "/data",
            "/etc/hosts",
            "/dev/thing",
            "/data/deep/er",
        ],
        "order"
    );
    for (index, mount) in mounts.iter().enumerate() {
        for later in &mounts[index + 1..] {
            let hidden = mount.destination().starts_with(later.destination());
            assert!(!hidden, "{:?} hides {:?}", later.destination(), mount.destination());
        }
    }
    let data = mounts.iter().find(|m| m.destination() == Path::new("/data")).expect("a volume");
    let options = data.options().as_ref().expect("options");
    assert!(
        options.contains(&"ro".to_owned()) && options.contains(&"rro".to_owned()),
        "{options:?}"
    );
}

#[test]
fn read_only_roots_get_read_only_files() {
    let spec = built(ContainerSpec { read_only: true, ..command(&["x"]) });
    assert_eq!(spec.root().as_ref().and_then(|root| root.readonly()), Some(true), "the root");
    let mounts = spec.mounts().as_ref().expect("mounts");
    let hosts = mounts.iter().find(|m| m.destination() == Path::new("/etc/hosts")).expect("hosts");
    assert!(hosts.options().as_ref().expect("options").contains(&"ro".to_owned()), "and its files");
}

#[test]
fn control_groups_are_shown_as_they_are() {
    let shown = |cgroups| {
        let facts = Facts { cgroups, ..facts() };
        let spec = build(&container(command(&["x"])), &facts).expect("a description");
        let mounts = spec.mounts().clone().unwrap_or_default();
        let below = mounts.into_iter().filter(|m| m.destination().starts_with("/sys/fs"));
        below
            .map(|m| {
                format!("{} {}", m.typ().clone().unwrap_or_default(), m.destination().display())
            })
            .collect::<Vec<_>>()
    };
    assert!(shown(CgroupView::Nothing).is_empty(), "none");
    assert_eq!(shown(CgroupView::Unified), ["cgroup2 /sys/fs/cgroup"], "v2");
    let view = View { source: "/run/x/cgroup/0".into(), names: strings(&["cpu,cpuacct", "cpu"]) };
    assert_eq!(
        shown(CgroupView::Bound(vec![view])),
        ["tmpfs /sys/fs/cgroup", "bind /sys/fs/cgroup/cpu,cpuacct", "bind /sys/fs/cgroup/cpu"],
        "v1, by every name"
    );
}

#[test]
fn confinement_is_complete() {
    let spec = built(command(&["x"]));
    let linux = spec.linux().as_ref().expect("linux");
    let types: Vec<_> = linux.namespaces().iter().flatten().map(|n| n.typ().to_string()).collect();
    assert_eq!(types, ["pid", "mnt", "ipc", "uts", "cgroup"], "namespaces");
    assert!(linux.resources().is_none(), "limits are not the library's: it would need controllers");
    let masked = linux.masked_paths().as_ref().expect("masked paths");
    assert!(masked.contains(&"/proc/kcore".to_owned()), "kernel memory is masked");
    let read_only = linux.readonly_paths().as_ref().expect("read-only paths");
    assert!(read_only.contains(&"/proc/sys".to_owned()), "sysctls are read-only");
    let cgroup = linux.cgroups_path().as_ref().expect("a path");
    assert!(cgroup.starts_with("/layerd/"), "{cgroup:?}");
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let cases: [(ContainerSpec, &str); 6] = [
        (command(&[]), "no command specified"),
        (command(&[""]), "no command specified"),
        (command(&["a\0b"]), "NUL"),
        (ContainerSpec { cwd: "rel".into(), ..command(&["x"]) }, "absolute"),
        (ContainerSpec { volumes: strings(&["x"]), ..command(&["x"]) }, "SRC:DST"),
        (ContainerSpec { volumes: strings(&["/a:/proc"]), ..command(&["x"]) }, "/proc"),
    ];
    for (spec, reason) in cases {
        let error = build(&container(spec), &facts()).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error} says {reason}");
    }
    for (network, fine) in [("", true), ("none", true), ("host", true), ("bridge", false)] {
        let spec = ContainerSpec { network: network.into(), ..command(&["x"]) };
        assert_eq!(Network::of(&container(spec)).is_ok(), fine, "network {network:?}");
    }
}

#[test]
fn host_name_is_the_containers_or_its_short_id() {
    let named = ContainerSpec { hostname: "box".into(), ..command(&["x"]) };
    assert_eq!(hostname(&container(named)), "box", "its own");
    assert_eq!(hostname(&container(command(&["x"]))), "0123456789ab", "short id");
}
