//! What the container's process is: program, exit code, environment, user, directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use layerd_api::types::ContainerSpec;

use crate::harness::{Machine, can_run, command, words};

#[test]
fn exit_codes_are_the_programs_own() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    for (script, code) in [("true", 0), ("exit 3", 3), ("exit 255", 255), ("false", 1)] {
        let outcome = machine.run(&command(&["sh", "-c", script]));
        assert_eq!(outcome.code, Some(code), "{script}: {outcome:?}");
        assert_eq!(outcome.err, "", "{script} says nothing");
    }
    machine.assert_clean("after ends of all kinds");
}

#[test]
fn programs_that_cannot_be_executed_have_dockers_codes() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let plain = |name: &str, text: &str, mode: u32| {
        let path = machine.image().join(name);
        fs::write(&path, text).expect("a file of the image");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    };
    plain("data", "text", 0o644);
    plain("orphan", "#!/no/such/interpreter\n", 0o755);
    plain("noformat", "\u{7f}no format", 0o755);
    for (args, code, message) in [
        (&["foo"][..], 127, "exec: \"foo\": executable file not found in $PATH"),
        (&["/no/such"], 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        (&["/data"], 126, "exec: \"/data\": permission denied"),
        (&["/bin"], 126, "exec: \"/bin\": is a directory"),
        (&["/orphan"], 127, "exec: \"/orphan\": no such file or directory"),
        (&["/noformat"], 126, "exec: \"/noformat\": exec format error"),
        (&[], 125, "no command specified"),
    ] {
        let outcome = machine.run(&command(args));
        assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:?}");
        assert!(outcome.err.contains(message), "{args:?} says {message}: {}", outcome.err);
        assert_eq!(outcome.out, "", "{args:?} prints nothing");
        machine.assert_clean(&format!("after {args:?}"));
    }
}

#[test]
fn environment_and_arguments_arrive_unharmed() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let env = words(&["A=one two", "B=x=y", "EMPTY=", "PATH=/bin"]);
    let printed = machine.run(&ContainerSpec { env, ..command(&["env"]) });
    let mut got: Vec<_> = printed.out.lines().collect();
    got.sort_unstable();
    let host = format!("HOSTNAME={}", &machine.id[..12]);
    assert_eq!(got, ["A=one two", "B=x=y", "EMPTY=", "HOME=/root", &host, "PATH=/bin"], "env");
    let odd = ["echo", "a b", "", "$HOME", "*", "-n", "ü"];
    assert_eq!(machine.run(&command(&odd)).out, "a b  $HOME * -n ü\n", "arguments");
}

#[test]
fn users_are_looked_up_in_the_container() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    for (user, expected) in [
        ("", "uid=0(root) gid=0(root) groups=0(root) /root"),
        ("app", "uid=1000(app) gid=1001(app) groups=29(audio),1001(app) /home/app"),
        ("app:audio", "uid=1000(app) gid=29(audio) groups=29(audio) /home/app"),
        ("4242", "uid=4242 gid=0(root) groups=0(root) /"),
        ("1000:55", "uid=1000(app) gid=55 groups=55 /home/app"),
    ] {
        let spec = ContainerSpec { user: user.into(), ..ContainerSpec::default() };
        let got = machine.shell_with("echo $(id) $HOME", spec);
        assert_eq!(got.trim(), expected, "user {user:?}");
    }
    let outcome = machine.run(&ContainerSpec { user: "ghost".into(), ..command(&["true"]) });
    assert_eq!(outcome.code, Some(125), "{outcome:?}");
    let message = "unable to find user ghost: no matching entries in passwd file";
    assert!(outcome.err.contains(message), "{}", outcome.err);
    machine.assert_clean("after an unknown user");
}

#[test]
fn working_directory_is_made_and_host_name_set() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let spec = ContainerSpec {
        cwd: "/made/for/me".into(),
        hostname: "box".into(),
        ..ContainerSpec::default()
    };
    let script = "pwd; hostname; cat /etc/hostname; grep -c localhost /etc/hosts";
    assert_eq!(machine.shell_with(script, spec), "/made/for/me\nbox\nbox\n2\n", "{script}");
    assert!(machine.changes().join("made/for/me").is_dir(), "it is one of the changes");
}

#[test]
fn standard_input_is_passed_on_only_when_asked_for() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    for (stdin, expected) in [(true, "hello"), (false, "")] {
        let mut child = machine
            .command(&ContainerSpec { stdin, ..command(&["cat"]) })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("layerun starts");
        let mut input = child.stdin.take().expect("a pipe");
        // Nobody may be reading it.
        let _ = input.write_all(b"hello");
        drop(input);
        let output = child.wait_with_output().expect("an end");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "stdin {stdin}");
    }
}

#[test]
fn another_user_may_open_its_standard_output_by_name() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    let spec = ContainerSpec { user: "app".into(), ..ContainerSpec::default() };
    assert_eq!(machine.shell_with("echo hi > /dev/stdout", spec), "hi\n", "/dev/stdout");
}

#[test]
fn changes_are_the_containers_own_only() {
    if !can_run() {
        return;
    }
    let machine = Machine::new();
    for dir in ["proc", "sys", "dev"] {
        fs::remove_dir(machine.image().join(dir)).expect("an image without mount points");
    }
    let listed = machine.shell("ls -d /proc/self /dev/null /sys/kernel; echo new > /new");
    assert_eq!(listed, "/dev/null\n/proc/self\n/sys/kernel\n", "everything is mounted");
    let changes: Vec<_> = fs::read_dir(machine.changes())
        .expect("the changes")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(changes, ["new"], "mount points and files of the runtime are not among them");
}
