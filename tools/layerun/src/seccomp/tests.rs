use std::collections::BTreeSet;

use super::*;

#[test]
fn names_are_sorted_unique_and_plausible() {
    let key = |name: &str| name.trim_start_matches('_').to_owned();
    for list in [ALLOWED, ALLOWED_X86, ALLOWED_ARM64] {
        for pair in list.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{} before {}", pair[0], pair[1]);
        }
        for name in list {
            let fine =
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            assert!(fine, "{name} is no system call");
        }
    }
}

#[test]
fn what_docker_refuses_is_not_allowed() {
    for name in [
        "acct",
        "add_key",
        "bpf",
        "clock_settime",
        "clone3",
        "create_module",
        "delete_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "finit_module",
        "init_module",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mbind",
        "mount",
        "mount_setattr",
        "move_mount",
        "move_pages",
        "nfsservctl",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "process_madvise",
        "quotactl",
        "reboot",
        "request_key",
        "set_mempolicy",
        "setdomainname",
        "sethostname",
        "setns",
        "settimeofday",
        "stime",
        "swapoff",
        "swapon",
        "syslog",
        "sysfs",
        "umount",
        "umount2",
        "unshare",
        "uselib",
        "userfaultfd",
        "ustat",
        "vhangup",
    ] {
        assert!(!ALLOWED.contains(&name), "{name} must not be allowed without condition");
    }
}

#[test]
fn conditional_calls_are_not_in_the_unconditional_list() {
    // An unconditional rule would win over every condition.
    for name in ["clone", "clone3", "personality", "socket"] {
        assert!(!ALLOWED.contains(&name), "{name} has conditions");
    }
}

#[test]
fn profile_denies_by_default_and_masks_namespaces() {
    let profile = default_profile().expect("a profile");
    assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno, "default");
    assert_eq!(profile.default_errno_ret(), Some(1), "default error");
    let calls = profile.syscalls().as_ref().expect("calls");
    let of = |name: &str| -> Vec<&LinuxSyscall> {
        calls.iter().filter(|call| call.names().iter().any(|n| n == name)).collect()
    };
    assert_eq!(of("personality").len(), PERSONALITIES.len(), "one rule a personality");
    let clone = of("clone");
    assert_eq!(clone.len(), 1, "one rule for clone");
    let argument = clone[0].args().as_ref().expect("a condition")[0];
    assert_eq!(argument.op(), LinuxSeccompOperator::ScmpCmpMaskedEq, "clone is masked");
    assert_eq!((argument.value(), argument.value_two()), (0x7e02_0000, Some(0)), "with its flags");
    let clone3 = of("clone3");
    assert_eq!(clone3[0].action(), LinuxSeccompAction::ScmpActErrno, "clone3 is refused");
    assert_eq!(clone3[0].errno_ret(), Some(38), "so that libc falls back");
    assert!(of("read")[0].args().is_none(), "no condition is none, not an empty list");
}

#[test]
fn profile_holds_what_every_program_needs() {
    let allowed: BTreeSet<_> = ALLOWED.iter().collect();
    for name in ["execve", "read", "write", "openat", "mmap", "exit_group", "wait4", "futex"] {
        assert!(allowed.contains(&name), "{name} is needed");
    }
    assert!(ALLOWED.len() > 350, "{} calls: something is lost", ALLOWED.len());
}

/// What the compiled program answers to a call, by the rules of the kernel's classic BPF machine.
fn answer(arch: u32, number: u32, argument: u64) -> u32 {
    let program = program();
    let mut data = [0_u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    data[16..24].copy_from_slice(&argument.to_ne_bytes());
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let instruction = &program[at];
        let k = instruction.k;
        at += 1;
        let jump = |taken: bool| usize::from(if taken { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => {
                let field = &data[k as usize..k as usize + 4];
                accumulator = u32::from_ne_bytes(field.try_into().expect("a word"));
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return k,
            other => panic!("instruction {at}: code {other:#x} is not in this machine"),
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;
const REFUSE: u32 = 0x0005_0001;
const NOT_THERE: u32 = 0x0005_0026;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

#[cfg(target_arch = "x86_64")]
#[test]
fn compiled_program_answers_as_the_table_says() {
    let namespaces =
        [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    let fork = 0x0120_0011;
    let mut cases = vec![
        ("read", X86_64, 0, 0, ALLOW),
        ("execve", X86_64, 59, 0, ALLOW),
        ("openat2", X86_64, 437, 0, ALLOW),
        ("arch_prctl", X86_64, 158, 0, ALLOW),
        ("mount", X86_64, 165, 0, REFUSE),
        ("unshare", X86_64, 272, 0, REFUSE),
        ("bpf", X86_64, 321, 0, REFUSE),
        ("io_uring_setup", X86_64, 425, 0, REFUSE),
        ("keyctl", X86_64, 250, 0, REFUSE),
        ("a call of the future", X86_64, 5000, 0, REFUSE),
        ("clone to fork", X86_64, 56, fork, ALLOW),
        ("clone3", X86_64, 435, 0, NOT_THERE),
        ("socket(AF_INET)", X86_64, 41, 2, ALLOW),
        ("socket(AF_VSOCK)", X86_64, 41, 40, REFUSE),
        ("personality(PER_LINUX)", X86_64, 135, 0, ALLOW),
        ("personality(ADDR_NO_RANDOMIZE)", X86_64, 135, 0x004_0000, REFUSE),
        ("read of i386", I386, 3, 0, ALLOW),
        ("mount of i386", I386, 21, 0, REFUSE),
        ("read of x32", X86_64, 0x4000_0000, 0, ALLOW),
    ];
    cases.extend(namespaces.map(|flag| ("clone of a namespace", X86_64, 56, fork | flag, REFUSE)));
    for (name, arch, number, argument, expected) in cases {
        let got = answer(arch, number, argument);
        assert_eq!(got, expected, "{name} ({argument:#x}): got {got:#x}, not {expected:#x}");
    }
    assert_eq!(answer(0xc000_00b7, 0, 0), 0, "a foreign architecture is killed");
}

#[test]
fn compiled_program_fits_the_kernel() {
    let program = program();
    assert_eq!(PROGRAM.len() % 8, 0, "whole instructions");
    assert!(!program.is_empty() && program.len() <= 4096, "{} instructions", program.len());
}
