//! Scripts on the kernel's overlay: what [`overlay`] finds in the upper directory is what
//! [`trees`](crate::diff::trees) finds between the merged tree and one of the lowers alone.

use super::stack::{Stack, can_mount};
use super::*;

/// Two layers with directories that merge.
fn two_layers(options: &'static str) -> Stack {
    let mut stack = Stack::new(options);
    stack.layer(&["f", "g", "d/a", "d/b", "d/e/x", "d/e/y", "m/low", "m/n/low", "q/r/s/t"]);
    stack.layer(&["d/top", "m/high", "m/n/high", "only/in/top"]);
    stack
}

const ALL: [&str; 3] = ["", "redirect_dir=on,metacopy=on", "userxattr"];

/// A script, and what it changes apart from the times of the directories above. `t` sets a time
/// back.
const SCRIPTS: [(&str, &[&str]); 32] = [
    (":", &[]),
    ("echo new > new", &["A new"]),
    ("echo new > d/new", &["A d/new"]),
    ("echo longer > f; t f", &["M f"]),
    ("printf F > f; t f", &["M f"]),
    ("printf f > f; t f", &[]),
    ("chmod 4711 f", &["M f"]),
    ("chmod 600 f; chmod 644 f; touch -d @5 g; t g", &[]),
    ("chmod 700 d; chmod 755 d", &[]),
    ("touch -d @5 f", &["M f"]),
    ("touch -d @5 d/e", &["M d/e"]),
    ("chown 1:1 d/e/x", &["M d/e/x"]),
    ("setfattr -n trusted.a -v b f; setfattr -n user.a -v b d/e", &["M d/e", "M f"]),
    ("setfattr -n user.a -v b f; setfattr -x user.a f", &[]),
    ("rm f", &["D f"]),
    ("rm -r d; mkdir d", &["D d/a", "D d/b", "D d/e", "D d/top"]),
    ("rm -r d", &["D d"]),
    (
        "rm -r m; mkdir -p m/n; echo x > m/low; echo x > m/n/new",
        &["D m/high", "M m/low", "D m/n/high", "D m/n/low", "A m/n/new"],
    ),
    ("rm f; mkdir f; echo x > f/x", &["M f", "A f/x"]),
    ("rm -r d; echo x > d", &["M d"]),
    ("rm f; ln -s g f", &["M f"]),
    ("ln f h; ln g d/h", &["A d/h", "A h"]),
    ("rm d/e/x; rm -r d; mkdir -p d/e", &["D d/a", "D d/b", "D d/e/x", "D d/e/y", "D d/top"]),
    ("echo x > new; rm new", &[]),
    ("mkdir new; mkdir new/a; rmdir new/a; rmdir new", &[]),
    ("mv f h", &["D f", "A h"]),
    ("mv f d/f; mv d/f f", &[]),
    ("rm f; echo f > h; mv h f; printf f > f; t f", &[]),
    ("mkfifo p; mknod c c 1 3; mknod b b 7 1", &["A b", "A c", "A p"]),
    ("rm g; mkfifo g", &["M g"]),
    ("rm -r q/r; mkdir -p q/r/s/t", &["M q/r/s/t"]),
    ("mkdir -p n/o; mv g n/o/g; mv n q/r/n", &["D g", "A q/r/n", "A q/r/n/o", "A q/r/n/o/g"]),
];

#[test]
fn scripts_give_what_the_double_walk_gives() {
    if !can_mount() {
        return;
    }
    for options in ALL {
        for (script, expected) in SCRIPTS {
            let mut stack = two_layers(options);
            let found = stack.check(&format!("t() {{ touch -d @1000000.5 \"$@\"; }}; {script}"));
            let found: Vec<_> = found.iter().filter(|line| !above(line, expected)).collect();
            assert_eq!(found, expected, "{options:?}: {script}\n{}", stack.tree());
        }
    }
}

/// Whether a line may be the changed time of a directory in which the script did something.
fn above(line: &str, expected: &[&str]) -> bool {
    let dirs = ["M d", "M m", "M m/n", "M d/e", "M q", "M q/r", "M q/r/s"];
    dirs.contains(&line) && !expected.contains(&line)
}

/// Renames of lower directories need `redirect_dir`; without it mv copies and deletes, which must
/// come out the same.
#[test]
fn renamed_directories_are_deleted_here_and_added_there() {
    if !can_mount() {
        return;
    }
    let scripts = [
        "mv d z",
        "mv d z; mv z y",
        "mv d z; mv z d",
        "mv d z; mkdir d; echo x > d/a",
        "mv d/e d/z",
        "mv d/e q/z; mv q p",
        "mv d/e e; mv d q/d; mv e q/d/e",
        "mv m z; rm z/high; echo x > z/n/high; mv z/n z/o",
        "mv m/n n; rm -r m; mkdir m; mv n m/n",
        "mv d z; mv m d; mv z m",
        "mv q/r/s s; mv q/r s/r; mv s q/s",
        "rm -r m; mv d m",
        "rm -r m; mv d/e m; mkdir d/e; mv m/x d/e/x",
        "mv only d/only; mkdir only; mv d/only/in only/in",
        "mv f d/f; ln d/f d/g; chmod 600 d/g; mv d z",
        "chmod 600 f; mv f z; chmod 600 d/e/x; mv d/e/x x; ln x y; mv d d2",
        "mkdir n; mv d n/d; mv n/d/e n/e; rm -r n/d; mv n o",
        "mv m/n/low m/n/high m; rmdir m/n; mv m/high m/n",
    ];
    for options in ALL {
        for script in scripts {
            let mut stack = two_layers(options);
            let first = stack.check(script);
            assert_eq!(first.is_empty(), script == "mv d z; mv z d", "{options:?}: {script}");
            // Once more on top of the layer that this has made, then with a layer above both.
            stack.commit();
            assert_eq!(stack.check(":"), [""; 0], "{options:?}: nothing after {script}");
            stack.check("for i in */; do touch $i/new; chmod 700 $i; mv $i z-$i; done");
            stack.commit();
            stack.check("for i in */*/; do mv $i moved; mv moved $i; rm -rf $i/high; done");
            stack.check("for i in *; do mv $i $i-2; done; chmod 600 */* *; mkdir d m");
        }
    }
}

/// Marks as they are left where devices cannot be made; the kernel only reads them.
#[test]
fn whiteouts_by_attribute() {
    if !can_mount() {
        return;
    }
    for (options, prefix) in [("", "trusted.overlay."), ("userxattr", "user.overlay.")] {
        let mut stack = two_layers(options);
        stack.layer(&["d/a", "d/e/", "d/f", "m/new"]);
        let set = |layer: &Path, path: &str, mark: &str, value: &[u8]| {
            let layer = root(layer);
            let handle = layer.open_file(path).or_else(|_| layer.open_dir(path)).unwrap();
            let attr = format!("{prefix}{mark}");
            crate::xattr::set_at(handle, "".as_ref(), attr.as_ref(), value).unwrap();
        };
        let layer = stack.lowers[0].clone();
        fs::write(layer.join("d/a"), "").unwrap();
        set(&layer, "d", "opaque", b"x");
        set(&layer, "d/a", "whiteout", b"y");
        assert_eq!(stack.check(":"), [""; 0], "{options:?}: a whiteout in a lower layer");
        let found = stack.check("echo x > d/a; rm d/b; touch -d @1000000.5 d");
        assert_eq!(found, ["A d/a", "D d/b"], "{options:?}: above a whiteout in a lower layer");

        // As our own tools would write an upper directory.
        stack.commit();
        let upper = stack.upper();
        make(&upper, &["d/f", "m/"]);
        fs::write(upper.join("d/f"), "").unwrap();
        set(&upper, "d/f", "whiteout", b"");
        set(&upper, "d", "opaque", b"x");
        set(&upper, "m", "opaque", b"y");
        settle(&upper);
        let found = lines(&stack.found().unwrap());
        assert_eq!(found, ["D d/f", "D m/high", "D m/low", "D m/n", "D m/new"], "{options:?}");
    }
}

#[test]
fn damaged_marks_are_errors() {
    if !can_mount() {
        return;
    }
    let mark = |path: &str, attr: &str, value: &[u8]| {
        let stack = two_layers("");
        make(&stack.upper(), &["d/", "new/", "lost"]);
        let upper = root(stack.upper());
        crate::xattr::set_at(&upper, path.as_ref(), attr.as_ref(), value).unwrap();
        stack.found()
    };
    for value in ["../../etc", "/d/../..", "/", ""] {
        let found = mark("new", "trusted.overlay.redirect", value.as_bytes());
        assert!(found.is_err(), "redirect to {value:?}: {found:?}");
    }
    let error = mark("lost", "trusted.overlay.metacopy", b"").expect_err("a file without data");
    assert_eq!(error.kind(), crate::ErrorKind::Corrupt, "{error}");
    let found = mark("new", "trusted.overlay.redirect", b"/not/there").unwrap();
    assert!(lines(&found).contains(&"A new".to_owned()), "a redirect to nothing");
}
