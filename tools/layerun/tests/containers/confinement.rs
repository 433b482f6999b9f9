//! What a container cannot do and cannot see.

use std::fs;

use layerd_api::types::ContainerSpec;

use crate::harness::{Machine, can_run, command, guards_devices};

#[test]
fn capabilities_are_dockers_and_the_filter_is_on() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let status = |user: &str| {
        // No shell: it has dispositions of its own.
        let lines = "^(Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn)";
        let grep = command(&["grep", "-E", lines, "/proc/self/status"]);
        machine.run(&ContainerSpec { user: user.into(), ..grep }).out.replace('\t', " ")
    };
    // What the test's own process ignores is not the container's, above all not SIGPIPE. The C
    // library keeps two signals to itself.
    let ignored = |mask: &str| u64::from_str_radix(mask, 16).expect("a mask") & !0x1_8000_0000;
    let set = if guards_devices() { "00000000a80425fb" } else { "00000000a00425fb" };
    let none = "0000000000000000";
    for (user, effective) in [("", set), ("app", none)] {
        let expected = format!(
            "SigBlk: {none}\nCapInh: {none}\nCapPrm: {effective}\n\
             CapEff: {effective}\nCapBnd: {set}\nCapAmb: {none}\nNoNewPrivs: 1\nSeccomp: 2\n"
        );
        let status = status(user);
        let (ignores, rest): (Vec<_>, Vec<_>) =
            status.split_inclusive('\n').partition(|line| line.starts_with("SigIgn"));
        assert_eq!(rest.concat(), expected, "user {user:?}");
        let mask = ignores[0].trim_start_matches("SigIgn:").trim();
        assert_eq!(ignored(mask), 0, "user {user:?} ignores no signal: {mask}");
    }
}

#[test]
fn the_host_is_out_of_reach() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    for (script, expected) in [
        ("head -c 1 /proc/kcore | wc -c", "0"),
        ("ls /sys/firmware | wc -l", "0"),
        ("echo x > /proc/sys/kernel/hostname || echo refused", "refused"),
        ("echo b > /proc/sysrq-trigger || echo refused", "refused"),
        ("mount -t tmpfs none /tmp || echo refused", "refused"),
        ("umount /proc || echo refused", "refused"),
        ("unshare -m true || echo refused", "refused"),
        ("unshare -U true || echo refused", "refused"),
        ("touch /sys/x || echo refused", "refused"),
        ("[ $(ls /proc | grep -c '^[0-9]') -lt 10 ] && echo few", "few"),
        ("echo $$", "1"),
    ] {
        let printed = machine.shell(&format!("({script}) 2>/dev/null"));
        assert_eq!(printed.trim(), expected, "{script}");
    }
}

#[test]
fn foreign_devices_cannot_be_opened() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    // Device 1:11 is the kernel's log: it is on every machine, and reading it is harmless.
    let script = "mknod /tmp/kmsg c 1 11 2>/dev/null; \
                  head -c 1 /tmp/kmsg >/dev/null 2>&1 && echo opened || echo refused; \
                  head -c 3 /dev/zero | wc -c; echo x > /dev/null && echo fine";
    assert_eq!(machine.shell(script), "refused\n3\nfine\n", "its own devices work");
}

#[test]
fn read_only_roots_cannot_be_written() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let spec = ContainerSpec { read_only: true, ..ContainerSpec::default() };
    let script = "(echo x > /x) 2>/dev/null || echo refused; echo y > /dev/shm/y && cat /dev/shm/y; \
                  (echo z > /etc/hosts) 2>/dev/null || echo refused";
    assert_eq!(machine.shell_with(script, spec), "refused\ny\nrefused\n", "{script}");
}

#[test]
fn no_network_is_loopback_and_the_hosts_is_the_hosts() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    for network in ["", "none"] {
        let spec = ContainerSpec { network: network.into(), ..ContainerSpec::default() };
        let script = "ls /sys/class/net; cat /sys/class/net/lo/flags";
        assert_eq!(machine.shell_with(script, spec), "lo\n0x9\n", "{network:?}: lo, and it is up");
    }
    let names = |text: &str| {
        let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        names.collect::<Vec<_>>()
    };
    let spec = ContainerSpec { network: "host".into(), ..ContainerSpec::default() };
    let inside = machine.shell_with("cat /proc/net/dev", spec);
    let outside = fs::read_to_string("/proc/self/net/dev").expect("the host's interfaces");
    assert_eq!(names(&inside), names(&outside), "the host's interfaces");
}

#[test]
fn links_of_the_image_do_not_lead_out() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let secret = machine.path("secret");
    fs::write(&secret, "evil:x:4711:4711::/:\n").expect("a file of the host");
    let passwd = machine.image().join("etc/passwd");
    fs::remove_file(&passwd).expect("no passwd");
    std::os::unix::fs::symlink(format!("../../../../../../../..{}", secret.display()), &passwd)
        .expect("a link out of the image");
    let spec = ContainerSpec { user: "evil".into(), ..command(&["true"]) };
    let outcome = machine.run(&spec);
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    assert!(outcome.err.contains("unable to find user evil"), "{}", outcome.err);
}
