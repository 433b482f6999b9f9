//! The explorer in a real terminal.

#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tests::archive::{self, Files, Image};
use tests::daemon::{Daemon, Finish, layerctl};
use tests::host;
use tests::programs;
use tests::terminal::Terminal;

const BASE: Files<'_> = &[
    ("etc/", ""),
    ("etc/config", "key = one\n"),
    ("etc/motd", "welcome\n"),
    ("srv/", ""),
    ("srv/large", "this is quite a large file here\n"),
];
const MIDDLE: Files<'_> = &[
    ("etc/", ""),
    ("etc/config", "key = two\nlonger = yes\n"),
    ("srv/", ""),
    ("srv/data", "\0\u{1}\u{2}binary"),
];
const TOP: Files<'_> = &[
    ("etc/.wh.motd", ""),
    ("srv/.wh.large", ""),
    ("srv/漢字かな", "wide\n"),
    ("srv/new\u{1b}[2J", "tricky\n"),
];

/// A docker-archive of three layers.
fn write_archive(dir: &Path) -> PathBuf {
    let path = dir.join("image.tar");
    let config = json!({});
    let layers = &[BASE, MIDDLE, TOP];
    archive::docker(
        &path,
        &[Image { names: &["shop:1"], layers, created: "2024-01-01T00:00:00Z", config: &config }],
    );
    path
}

/// Starts the explorer once the test may run here.
fn explore(size: (u16, u16), arguments: &[&str]) -> Terminal {
    let program = programs::path("layerctl");
    Terminal::start(size, &program, &[&["explore"], arguments].concat())
}

/// Waits for the end of the explorer, and for the terminal to be as it was before.
fn ended(terminal: &Terminal, code: i32) {
    let code = format!("exit code {code}");
    let screen = terminal.wait_for(&["before", &code, "settings restored"]);
    assert!(!screen.contains("Layers"), "nothing of the explorer is left:\n{screen}");
    for (variable, expected) in
        [("alternate_on", "0"), ("mouse_any_flag", "0"), ("cursor_flag", "1")]
    {
        assert_eq!(terminal.variable(variable), expected, "{variable}");
    }
}

/// Looks for a name and selects it.
fn find(terminal: &Terminal, name: &str) {
    terminal.keys(&["/"]);
    terminal.keys(&["C-u"]);
    terminal.text(name);
    terminal.wait_for(&[&format!("/{name} · 1 name")]);
    terminal.keys(&["Enter", "G"]);
}

#[test]
fn an_archive_is_explored() {
    if !host::provides(&["tmux"]) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let archive = write_archive(scratch.path());
    let terminal = explore((80, 24), &[archive.to_str().expect("UTF-8")]);
    let screen = terminal.wait_for(&["shop:1", "Changes of layer 3", "A 2 D 2"]);
    assert!(screen.contains("new\\u{1b}[2J"), "escaped:\n{screen}");
    let ends = screen.lines().skip(1).filter(|line| line.ends_with(['│', '┐', '┘']));
    assert_eq!(ends.count(), 22, "the frame is straight, beside wide characters too:\n{screen}");

    // To the layer below and back, from the list and from the tree.
    terminal.keys(&["k"]);
    terminal.wait_for(&["Changes of layer 2", "C -rw-r--r--", "config", "A 1 C 1"]);
    terminal.keys(&["Tab", "]"]);
    terminal.wait_for(&["Changes of layer 3"]);
    terminal.keys(&["t"]);
    terminal.wait_for(&["Tree as of layer 3", "unchanged"]);

    find(&terminal, "config");
    terminal.keys(&["v"]);
    terminal.wait_for(&["/etc/config · 23B", "key = two", "longer = yes", "lines 1-2 of 2"]);
    terminal.keys(&["x"]);
    terminal.wait_for(&["000000  6b 65 79 20 3d 20 74 77", "|key = two.longer|"]);
    terminal.keys(&["q", "b"]);
    terminal.wait_for(&["Blame", "layer 2 gave it content", "A  added", "C  changed: size"]);
    terminal.keys(&["Escape"]);
    terminal.wait_until("no blame", |screen| !screen.contains("Blame"));

    find(&terminal, "data");
    terminal.keys(&["Enter"]);
    terminal.wait_for(&["/srv/data", "00 01 02 62 69 6e 61 72  79", "|...binary|"]);
    terminal.keys(&["q", "Escape"]);

    // The waste leads to the layer that has it.
    terminal.keys(&["w"]);
    terminal.wait_for(&["Wasted: 50B in 3 files", "deleted in layer 3", "/srv/large"]);
    terminal.keys(&["Enter"]);
    terminal.wait_for(&["Changes of layer 1", "A -rw-r--r--    32B        large"]);

    // From the first layer to the last.
    terminal.keys(&["c"]);
    terminal.wait_for(&["choose another layer"]);
    terminal.keys(&["G"]);
    terminal.wait_for(&["From layer 1 to 3", "C -rw-r--r--    23B        config", "A 3 C 1 D 2"]);
    terminal.keys(&["Escape"]);
    terminal.wait_for(&["Changes of layer 3"]);

    terminal.resize((130, 40));
    terminal.wait_for(&["MODE       OWNER", "0:0"]);
    terminal.resize((30, 8));
    terminal.wait_for(&["too small", "40 x 10"]);
    terminal.resize((80, 24));
    terminal.wait_until("the size", |screen| !screen.contains("too small"));
    terminal.keys(&["?"]);
    terminal.wait_for(&["Keys", "between layers and tree"]);
    terminal.keys(&["q", "q"]);
    ended(&terminal, 0);
}

#[test]
fn files_are_extracted_and_nothing_is_overwritten_unasked() {
    if !host::provides(&["tmux"]) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let archive = write_archive(scratch.path());
    let terminal = explore((100, 24), &["--no-mouse", archive.to_str().expect("UTF-8")]);
    terminal.wait_for(&["Changes of layer 3"]);
    let read = |name: &str| fs::read(terminal.dir().join(name));
    terminal.keys(&["t", "Tab"]);
    terminal.wait_for(&["Tree as of layer 3"]);
    find(&terminal, "config");

    terminal.keys(&["e"]);
    terminal.wait_for(&["Extract to: ./config"]);
    terminal.keys(&["Enter"]);
    terminal.wait_for(&["extracted to ./config"]);
    assert_eq!(read("config").expect("the file"), b"key = two\nlonger = yes\n");

    fs::write(terminal.dir().join("config"), "mine").expect("a file");
    for (answer, told, content) in
        [("n", "left as it is", &b"mine"[..]), ("y", "extracted to", b"key = two\nlonger = yes\n")]
    {
        terminal.keys(&["e", "Enter"]);
        terminal.wait_for(&["./config is there already: replace it?"]);
        terminal.keys(&[answer]);
        terminal.wait_for(&[told]);
        assert_eq!(read("config").expect("the file"), content, "after {answer}");
    }

    // A layer below has what was deleted; a directory goes with all that is in it.
    terminal.keys(&["Escape"]);
    terminal.wait_until("no filter", |screen| !screen.contains("1 name"));
    terminal.keys(&["["]);
    terminal.wait_for(&["Tree as of layer 2"]);
    find(&terminal, "large");
    terminal.keys(&["e", "C-u"]);
    terminal.text("old-one");
    terminal.keys(&["Enter"]);
    terminal.wait_for(&["extracted to old-one"]);
    assert_eq!(read("old-one").expect("the file"), b"this is quite a large file here\n");
    terminal.keys(&["Escape"]);
    find(&terminal, "srv");
    terminal.keys(&["e", "Enter"]);
    terminal.wait_for(&["extracted to ./srv"]);
    assert_eq!(read("srv/data").expect("the file"), b"\0\x01\x02binary");
    terminal.keys(&["e", "Enter"]);
    terminal.wait_for(&["./srv/srv"]);
    terminal.keys(&["e", "Enter"]);
    terminal.wait_for(&["./srv/srv is there already: choose another name"]);
    terminal.keys(&["e", "C-u"]);
    terminal.text("no/such/place");
    terminal.keys(&["Enter"]);
    terminal.wait_for(&["make no/such/place: No such file or directory"]);
    terminal.keys(&["q"]);
    ended(&terminal, 0);
}

#[test]
fn everything_that_can_be_looked_at_can_be_explored() {
    if !host::provides(&["tmux"]) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let archive = write_archive(scratch.path());
    let archive = archive.to_str().expect("UTF-8");
    let layout = scratch.path().join("layout");
    fs::create_dir(&layout).expect("a directory");
    let tars = [archive::layer(BASE), archive::layer(TOP)];
    archive::layout_of_tars(&layout, &tars, &json!({}));
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("sub")).expect("directories");
    fs::write(tree.join("sub/file"), "here").expect("a file");
    let daemon = Daemon::start();
    assert_eq!(daemon.layerctl(["import", archive]).code, Some(0), "the import");
    let socket = daemon.socket();
    let socket = socket.to_str().expect("UTF-8");
    let layer = format!("{archive}#2");
    let (layout, tree) = (layout.to_str().expect("UTF-8"), tree.to_str().expect("UTF-8"));
    for (what, arguments, expected, content) in [
        ("a layer of an archive", &[&*layer][..], &["Changes of layer 2"][..], "|...binary|"),
        ("a layout", &[layout], &["Changes of layer 2", "D 2"], "wide"),
        ("a directory", &[tree], &["Changes of layer 1", "sub", "4B"], "here"),
        ("the store", &["--socket", socket, "shop:1"], &["Changes of layer 3", "vfs"], "wide"),
    ] {
        let terminal = explore((80, 24), arguments);
        let screen = terminal.wait_for(&[expected, &["efficiency"]].concat());
        assert!(screen.contains("Layers"), "{what}:\n{screen}");
        terminal.keys(&["Tab", "G", "v"]);
        terminal.wait_for(&[content]);
        terminal.keys(&["q", "q"]);
        ended(&terminal, 0);
    }
}

#[test]
fn a_damaged_archive_is_explored_nevertheless() {
    if !host::provides(&["tmux"]) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let archive = write_archive(scratch.path());
    let mut bytes = fs::read(&archive).expect("the archive");
    let content = b"longer = yes";
    let at = bytes.windows(content.len()).position(|part| part == content).expect("the content");
    bytes[at] = b'L';
    fs::write(&archive, bytes).expect("the archive");
    let terminal = explore((80, 24), &[archive.to_str().expect("UTF-8")]);
    terminal.wait_for(&["contents are not compared", "layer 2", "Changes of layer 3"]);
    terminal.keys(&["k"]);
    terminal.wait_for(&["Changes of layer 2", "C -rw-r--r--"]);
    terminal.keys(&["q"]);
    ended(&terminal, 0);
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    if !host::provides(&["tmux"]) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let archive = write_archive(scratch.path());
    let archive = archive.to_str().expect("UTF-8");
    for end in ["Ctrl-C", "SIGTERM", "SIGHUP"] {
        let terminal = explore((80, 24), &[archive]);
        terminal.wait_for(&["Changes of layer 3"]);
        assert_eq!(terminal.variable("alternate_on"), "1", "it has a screen of its own");
        match end {
            "Ctrl-C" => terminal.keys(&["C-c"]),
            "SIGTERM" => signal(&terminal, Signal::TERM),
            _ => signal(&terminal, Signal::HUP),
        }
        ended(&terminal, 0);
    }
    // A daemon that never answers.
    let socket = scratch.path().join("socket");
    let silent = UnixListener::bind(&socket).expect("a socket");
    let terminal = explore((80, 24), &["--socket", socket.to_str().expect("UTF-8"), "shop:1"]);
    terminal.wait_for(&["opening the image"]);
    terminal.keys(&["?"]);
    terminal.wait_for(&["Keys"]);
    terminal.keys(&["q"]);
    terminal.wait_until("no help", |screen| !screen.contains("Keys"));
    terminal.keys(&["q"]);
    ended(&terminal, 0);
    drop(silent);
    let terminal = explore((80, 24), &["./nothing.tar"]);
    terminal.wait_for(&["layerctl: ", "./nothing.tar", "No such file or directory"]);
    ended(&terminal, 1);
}

/// Sends a signal to the program in a terminal.
fn signal(terminal: &Terminal, signal: Signal) {
    let shell = terminal.variable("pane_pid");
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
    let children = children.expect("the children of the shell");
    let child = children.trim().parse().ok().and_then(Pid::from_raw).expect("one child");
    kill_process(child, signal).expect("it lives");
}

#[test]
fn it_can_be_suspended() {
    if !host::provides(&["tmux"]) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let archive = write_archive(scratch.path());
    let terminal = explore_in_bash(&archive);
    terminal.wait_for(&["Changes of layer 3"]);
    terminal.keys(&["C-z"]);
    terminal
        .wait_until("the shell", |screen| screen.contains("Stopped") && !screen.contains("Layers"));
    assert_eq!(terminal.variable("alternate_on"), "0", "the shell has its screen");
    terminal.text("fg; echo ended $?\n");
    terminal.wait_for(&["Changes of layer 3"]);
    terminal.keys(&["Tab", "t"]);
    terminal.wait_for(&["Tree as of layer 3"]);
    terminal.keys(&["q"]);
    terminal
        .wait_until("the end", |screen| screen.contains("ended 0") && !screen.contains("Layers"));
}

/// A shell with job control that has started the explorer.
fn explore_in_bash(archive: &Path) -> Terminal {
    let terminal = Terminal::start((80, 24), Path::new("bash"), &["--norc", "-i"]);
    let layerctl = programs::path("layerctl");
    terminal.text(&format!("{} explore {}\n", layerctl.display(), archive.display()));
    terminal
}

#[test]
fn without_a_terminal_it_names_what_works_there() {
    for (arguments, code, told) in [
        (&["explore", "x.tar"][..], 1, "needs a terminal"),
        (&["explore", "--json", "x.tar"], 2, "--json"),
        (&["explore"], 2, "IMAGE"),
    ] {
        let finished = layerctl().args(arguments).finish();
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(told), "{arguments:?}: {finished:?}");
        assert!(code != 1 || finished.stderr.contains("tree"), "{arguments:?}: {finished:?}");
    }
}
