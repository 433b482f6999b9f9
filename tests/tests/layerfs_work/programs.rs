//! Real programs at work in the union and on the plain file system: they must say the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::daemon::Finish as _;
use tests::host;

use crate::stage::{Stage, provides, run};

/// Runs a script in both places and compares what it printed, which must not tell the places apart.
fn same_in_both(stage: &Stage, script: &str, more: &[(&str, &str)]) {
    let plain = run(script, &stage.plain(), more);
    assert_eq!(plain.code, Some(0), "on the plain file system: {plain:?}");
    let merged = run(script, &stage.merged(), more);
    assert_eq!(merged.code, Some(0), "in the union: {merged:?}");
    assert_eq!(merged.stdout, plain.stdout, "the two places do not agree");
}

const GIT: [(&str, &str); 7] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_AUTHOR_NAME", "a"),
    ("GIT_AUTHOR_EMAIL", "a@localhost"),
    ("GIT_AUTHOR_DATE", "1700000000 +0000"),
    ("GIT_COMMITTER_NAME", "c"),
    ("GIT_COMMITTER_EMAIL", "c@localhost"),
    ("GIT_COMMITTER_DATE", "1700000001 +0000"),
];

#[test]
fn git_clones_commits_and_finds_its_repository_sound() {
    if !provides(&["git"]) {
        return;
    }
    let stage = Stage::new("git", |bottom, top| {
        let make = "git init -q -b main repository; cd repository; mkdir d; \
                    for n in $(seq 200); do echo $n >d/$n; done; git add .; git commit -qm one; \
                    for n in $(seq 1 2 200); do echo changed >>d/$n; done; git commit -qam two";
        run(make, bottom, &GIT).ok();
        fs::write(top.join("note"), "of the top layer").expect("a file");
    });
    let script = "git clone -q repository clone; cd clone; git status --porcelain; \
                  git fsck --full --strict 2>&1; git mv d moved; rm moved/7; echo new >moved/8; \
                  git commit -qam three; git gc -q; git fsck --full --strict 2>&1; \
                  git status --porcelain; git log --format=%H; git push -q origin HEAD:other; \
                  cd ../repository; git status --porcelain; git fsck --full --strict 2>&1; \
                  git merge -q other; git gc -q --prune=now; git log --format=%H; ls | sort; \
                  git ls-files -s | sha256sum";
    same_in_both(&stage, script, &GIT);
}

#[test]
fn cargo_builds_and_builds_again() {
    if !provides(&["cc"]) {
        return;
    }
    let cargo = Path::new(env!("CARGO"));
    let stage = Stage::new("cargo", |bottom, top| {
        fs::create_dir_all(bottom.join("small/src")).expect("a directory");
        fs::create_dir_all(top.join("small/src")).expect("a directory");
        let manifest = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
                        [workspace]\n";
        fs::write(bottom.join("small/Cargo.toml"), manifest).expect("a manifest");
        let main = "fn main() { println!(\"{}\", small::answer()); }\n";
        fs::write(bottom.join("small/src/main.rs"), main).expect("a source");
        let library = "pub fn answer() -> u32 { 41 }\n#[test] fn is_odd() { assert!(true) }\n";
        fs::write(top.join("small/src/lib.rs"), library).expect("a source");
    });
    let script = "cd small; \"$CARGO\" build -q --offline; target/debug/small; \
                  sed -i s/41/42/ src/lib.rs; \
                  \"$CARGO\" build -q --offline; target/debug/small; \
                  \"$CARGO\" build --offline 2>&1 | grep -c Compiling || true; \
                  \"$CARGO\" test -q --offline --lib >/dev/null; \"$CARGO\" clean -q; ls | sort";
    let rustc = cargo.with_file_name("rustc");
    let (cargo, rustc) = (cargo.to_str().expect("UTF-8"), rustc.to_str().expect("UTF-8"));
    same_in_both(&stage, script, &[("CARGO", cargo), ("RUSTC", rustc)]);
}

/// A Debian package with a configuration file and scripts, built on the spot.
fn build_package(dir: &Path) {
    let script = "mkdir -p p/DEBIAN p/usr/share/greeting/deep p/etc; \
                  printf 'Package: greeting\nVersion: 1\nArchitecture: all\nMaintainer: n <n@localhost>\n\
                  Description: greets\n' >p/DEBIAN/control; echo /etc/greeting >p/DEBIAN/conffiles; \
                  printf '#!/bin/sh\nset -e\necho made >/usr/share/greeting/made\n' >p/DEBIAN/postinst; \
                  printf '#!/bin/sh\nset -e\nrm -f /usr/share/greeting/made\n' >p/DEBIAN/prerm; \
                  chmod 755 p/DEBIAN/postinst p/DEBIAN/prerm; echo hello >p/etc/greeting; \
                  for n in $(seq 300); do echo $n >p/usr/share/greeting/deep/$n; done; \
                  ln p/usr/share/greeting/deep/1 p/usr/share/greeting/linked; \
                  dpkg-deb --build --root-owner-group p greeting.deb >/dev/null; rm -r p";
    run(script, dir, &[]).ok();
}

#[test]
fn dpkg_installs_and_purges_in_a_debian_root() {
    if !provides(&["dpkg-deb", "mmdebstrap", "buildah", "chroot"]) {
        return;
    }
    let archive = host::debian_image().join("rootfs.tar");
    let stage = Stage::new("dpkg", |bottom, top| {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(bottom).args(["--xattrs", "--xattrs-include=*", "-xpf"]).arg(&archive);
        tar.finish().ok();
        build_package(top);
    });
    let script = "chroot . dpkg -i /greeting.deb 2>&1; chroot . dpkg -s greeting; \
                  chroot . dpkg -V greeting; cat usr/share/greeting/made; \
                  cat usr/share/greeting/deep/* | sha256sum; stat -c %h usr/share/greeting/linked; \
                  sha256sum var/lib/dpkg/status; echo mine >etc/greeting; \
                  chroot . dpkg -i /greeting.deb 2>&1; cat etc/greeting; \
                  chroot . dpkg -P greeting 2>&1; ls usr/share | sha256sum; ls etc | sha256sum; \
                  sha256sum var/lib/dpkg/status; ls var/lib/dpkg/info | sha256sum; \
                  chroot . dpkg --audit";
    same_in_both(&stage, script, &[("DEBIAN_FRONTEND", "noninteractive")]);
}

const WRITERS: &str = r#"
import multiprocessing, sqlite3
def write(writer):
    db = sqlite3.connect("db", timeout=120)
    db.execute("pragma synchronous = normal")
    for number in range(40):
        with db:
            db.execute("insert into t values (?, ?)", (writer, number))
            db.execute("update t set number = number + 0 where writer = -1")
for mode in ("delete", "wal"):
    db = sqlite3.connect("db")
    print(db.execute("pragma journal_mode = " + mode).fetchone())
    db.close()
    writers = [multiprocessing.Process(target=write, args=(n,)) for n in (0, 1)]
    for writer in writers: writer.start()
    for writer in writers: writer.join()
    print([writer.exitcode for writer in writers])
    db = sqlite3.connect("db")
    print(db.execute("select writer, count(*), sum(number) from t group by writer").fetchall())
    print(db.execute("pragma integrity_check").fetchall())
    db.close()
"#;

#[test]
fn sqlite_stays_sound_under_two_writers() {
    if !provides(&["python3"]) {
        return;
    }
    let stage = Stage::new("sqlite", |bottom, top| {
        let make = "import sqlite3; db = sqlite3.connect('db'); \
                    db.execute('create table t (writer, number)'); \
                    db.executemany('insert into t values (-1, ?)', ((n,) for n in range(5000))); \
                    db.commit()";
        Command::new("python3").args(["-c", make]).current_dir(bottom).finish().ok();
        fs::write(top.join("writers.py"), WRITERS).expect("a script");
    });
    same_in_both(&stage, "python3 writers.py; ls | sort", &[]);
}
