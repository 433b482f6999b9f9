//! The page about two images, held against `diff`, `du` and the page about one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::archive::{self, Image};
use tests::browser::{self, Browser};
use tests::daemon::{Finish, layerctl};
use tests::host;

use super::{assert_fits, page_of, parse};

fn run(arguments: &[&str]) -> String {
    layerctl().args(arguments).finish().ok()
}

fn facts(arguments: &[&str]) -> Value {
    parse(&layerctl().arg("--json").args(arguments).finish().ok())
}

/// What the comparison has to say as other commands do, and sums that have to come out.
fn assert_agrees(a: &str, b: &str) -> Value {
    let (found, diff) = (facts(&["report", a, b]), facts(&["diff", a, b]));
    for member in ["summary", "changes"] {
        assert_eq!(found[member], diff[member], "{member} of {a} and {b}");
    }
    for (side, what) in [("a", a), ("b", b)] {
        assert_eq!(found[side], facts(&["report", what]), "{what} as by itself");
    }
    let number = |value: &Value| value.as_i64().expect("a number");
    let summary = |member: &str| number(&found["summary"][member]);
    let visible = |side: &str| number(&found[side]["visible"]);
    let (grown, shrunk) = (summary("grown"), summary("shrunk"));
    let net = visible("b") - visible("a");
    assert_eq!(net, grown - shrunk + summary("links"), "what is added and freed is all");
    let changes = found["changes"].as_array().expect("changes");
    let bytes: i64 = changes.iter().map(|change| number(&change["bytes"])).sum();
    assert_eq!(bytes, grown - shrunk, "the sum of all changes");
    let written: i64 = changes.iter().map(|change| number(&change["written"])).sum();
    assert_eq!(written, summary("written"), "the new content of all changes");
    found
}

/// Two archives whose lowest layer is the same.
fn images(dir: &Path) -> [String; 2] {
    let base: archive::Files<'_> = &[("a/", ""), ("a/keep", "1234567890"), ("a/old", "12345")];
    let (one, two): (archive::Files<'_>, archive::Files<'_>) = (
        &[("a/grows", "1"), ("b", "12345678")],
        &[("a/grows", "123"), ("a/.wh.old", ""), ("a/new", "1234")],
    );
    [("one", one, "x"), ("two", two, "y")].map(|(name, top, variable)| {
        let path = dir.join(format!("{name}.tar"));
        let config = json!({"Env": [variable], "User": "same"});
        let names = &["app:1"][..];
        let created = "2024-01-01T00:00:00Z";
        archive::docker(&path, &[Image { names, created, config: &config, layers: &[base, top] }]);
        path.to_str().expect("UTF-8").to_owned()
    })
}

#[test]
fn a_comparison_says_what_diff_says_and_what_both_share() {
    let scratch = TempDir::new().expect("a directory");
    let [a, b] = images(scratch.path());
    let found = assert_agrees(&a, &b);
    let summary = json!({"added": 1, "removed": 2, "changed": 1, "grown": 6, "shrunk": 13, "written": 7, "links": 0});
    assert_eq!(found["summary"], summary, "totals");
    assert_eq!(found["shared"], json!({"layers": 1, "bytes": 15}), "the lowest layer");
    let layers = json!([{"a": 1, "b": 1}, {"a": 2, "b": null}, {"a": null, "b": 2}]);
    assert_eq!(found["layers"], layers, "the stacks side by side");
    let steps = json!([{"a": 1, "b": 1}, {"a": 2, "b": 2}]);
    assert_eq!(found["history"], steps, "the same commands made other layers");
    assert_eq!(found["config"], json!([{"name": "Env", "a": ["x"], "b": ["y"]}]), "settings");
    let waste = |side: &str| found[side]["wasted"].clone();
    assert_eq!((waste("a"), waste("b")), (json!(0), json!(5)), "a/old is hidden in B");

    let page = run(&["report", &a, &b]);
    assert_eq!(page, run(&["report", &a, &b, "-o", "-"]), "the same bytes");
    let same = assert_agrees(&a, &a);
    assert_eq!(same["changes"], json!([]), "nothing differs");
    assert_eq!(same["shared"]["layers"], json!(2), "all layers");
    let page = run(&["report", &a, &a]);
    assert!(page.contains("show the same files") && !page.contains("id=\"map\""), "{page}");
}

/// Two directories that differ in all that a file can differ in.
fn directories(scratch: &Path) -> [PathBuf; 2] {
    let [a, b] = ["a", "b"].map(|name| {
        let dir = scratch.join(name);
        fs::create_dir(&dir).expect("a directory");
        dir
    });
    for (dir, at, mode, content) in [(&a, 0, 0o644, "first"), (&b, 1, 0o4755, "other")] {
        for (name, content) in
            [("mode", "same"), ("owner", "same"), ("content", content), ("xattr", "same")]
        {
            fs::write(dir.join(name), content).expect("a file");
        }
        fs::set_permissions(dir.join("mode"), Permissions::from_mode(mode)).expect("a mode");
        std::os::unix::fs::chown(dir.join("owner"), Some(at), None).expect("an owner");
        let name = format!("user.colour{at}");
        let file = dir.join("xattr");
        let set = Command::new("setfattr").args(["-n", &name, "-v", "blue"]).arg(file).finish();
        assert_eq!(set.code, Some(0), "{set:?}");
        symlink(format!("to-{at}"), dir.join("link")).expect("a link");
        fs::write(dir.join("named"), "1234").expect("a file");
    }
    fs::write(a.join("kind"), "1234567").expect("a file");
    fs::create_dir(b.join("kind")).expect("a directory");
    // One more name of a file that stays, and two of one that is new.
    fs::hard_link(b.join("named"), b.join("again")).expect("a name");
    fs::write(b.join("new"), "123").expect("a file");
    fs::hard_link(b.join("new"), b.join("newer")).expect("a name");
    [a, b]
}

#[test]
fn whatever_differs_in_a_file_is_told() {
    let scratch = TempDir::new().expect("a directory");
    let [a, b] = directories(scratch.path());
    let (a, b) = (a.to_str().expect("UTF-8"), b.to_str().expect("UTF-8"));
    let found = assert_agrees(a, b);
    let changes = found["changes"].as_array().expect("changes");
    let change = |path: &str| changes.iter().find(|change| change["path"] == path).expect(path);
    for (path, what) in [
        ("/mode", "mode"),
        ("/owner", "owner"),
        ("/content", "content"),
        ("/xattr", "xattrs"),
        ("/link", "link"),
        ("/kind", "kind"),
    ] {
        let told = change(path)["what"].as_array().expect("a list").contains(&json!(what));
        assert!(told, "{what}: {}", change(path));
        assert!(found["differences"][what].as_u64() >= Some(1), "{what}: {}", found["differences"]);
    }
    for (path, bytes) in [("/kind", -7), ("/again", 0), ("/new", 3), ("/newer", 0)] {
        assert_eq!(change(path)["bytes"], json!(bytes), "bytes of {path}");
    }
    let texts = facts(&["diff", a, b, "--content"]);
    for (path, text) in [("/again", "+1234"), ("/new", "+123"), ("/newer", "+123")] {
        let mut changes = texts["changes"].as_array().expect("changes").iter();
        let change = changes.find(|change| change["path"] == path).expect(path);
        let told = change["diff"].as_str().is_some_and(|diff| diff.contains(text));
        assert!(told, "each name of a file has its content: {change}");
    }
    let page = run(&["report", a, b]);
    for text in [
        "mode 0644 -&gt; 4755",
        "link to-0 -&gt; to-1",
        "kind file -&gt; dir",
        "xattrs user.colour0 user.colour1",
    ] {
        assert!(page.contains(text), "{text} is not on the page");
    }
}

/// The rows of the table of changes: path, kind of change, and the bytes as they are written.
const ROWS: &str = "[...document.querySelectorAll('#changes .files tbody tr')].map(row => \
    [row.querySelector('.path').textContent, row.querySelector('.change').textContent])";

#[test]
fn a_comparison_is_read_on_every_screen() {
    let mut programs = vec!["mmdebstrap", "buildah", "setcap"];
    programs.extend(browser::PROGRAMS);
    if !host::provides(&programs) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let image = host::debian_image().join("docker.tar");
    let b = image.to_str().expect("UTF-8");
    let a = format!("{b}#1");
    let found = assert_agrees(&a, b);
    let perl = facts(&["tree", b, "/usr/bin/perl"]);
    let links = &found["summary"]["links"];
    assert_eq!(*links, perl[0]["size"], "a name of perl was copied up and is a file by itself");
    assert_eq!(
        found["history"][0],
        json!({"a": 1, "b": 1}),
        "the step of the layer that both have"
    );
    let stat = run(&["diff", &a, b, "--stat"]);
    let totals = stat.lines().last().expect("totals");
    let mut expected: Vec<_> = found["changes"].as_array().expect("changes").iter().collect();
    let number = |change: &Value, member: &str| change[member].as_i64().expect("a number").abs();
    expected.sort_by_key(|change| (-number(change, "bytes"), -number(change, "written")));
    let expected: Vec<_> =
        expected.iter().take(100).map(|change| json!([change["path"], change["change"]])).collect();
    let page = page_of(scratch.path(), &[&a, b]);
    let mut browser = Browser::start();
    for (width, height) in [(1280, 900), (360, 800)] {
        for scripts in [true, false] {
            browser.open(&page, width, height, scripts);
            assert_fits(&mut browser, "at first");
            browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)");
            assert_fits(&mut browser, "with all lists open");
            assert_eq!(browser.evaluate(ROWS), json!(expected), "those with the most bytes");
            let figures = "[...document.querySelectorAll('.figures dd')].slice(1, 3)\
                           .map(dd => dd.firstChild.textContent)";
            let figures = browser.evaluate(figures);
            let text = |at: usize| figures[at].as_str().expect("text").to_owned();
            assert!(totals.ends_with(&format!("+{} -{}", text(0), text(1))), "{totals}: {figures}");
            if scripts {
                assert_zooms(&mut browser);
            }
            assert_eq!(browser.complaints(), [] as [Value; 0], "at a width of {width}");
        }
    }
}

fn assert_zooms(browser: &mut Browser) {
    let sum = "document.querySelector('#crumbs .sum').textContent";
    let all = browser.evaluate(sum);
    assert!(all.as_str().is_some_and(|text| text.contains('−')), "what is freed: {all}");
    let hatched = browser.evaluate("document.querySelectorAll('#canvas .hatch').length > 0");
    assert_eq!(hatched, json!(true), "what is freed is hatched");
    browser.evaluate("document.querySelector('#list button').click()");
    let crumbs = "document.querySelectorAll('#crumbs button').length";
    assert_eq!(browser.evaluate(crumbs), json!(2), "a directory is entered");
    browser.press("Escape");
    assert_eq!(browser.evaluate(crumbs), json!(1), "and left");
    browser.evaluate("document.querySelector('[data-view=written]').click()");
    let written = browser.evaluate(sum);
    assert!(written.as_str().is_some_and(|text| !text.contains('−')), "new content: {written}");
    assert_fits(browser, "with the other map");
}
