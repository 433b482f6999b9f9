//! The page about an image, held against other commands and read by a real browser.

#![allow(clippy::expect_used, clippy::panic)]

mod comparison;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tests::archive::{self, Image};
use tests::browser::{self, Browser};
use tests::daemon::{Daemon, Finish, layerctl};
use tests::host;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A docker-archive of one image whose config the caller completes.
fn archive_of(path: &Path, layer: &[u8], config: &mut Value) {
    let hex = |bytes: &[u8]| -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    config["rootfs"] = json!({"type": "layers", "diff_ids": [format!("sha256:{}", hex(layer))]});
    let config = serde_json::to_vec(config).expect("JSON");
    let name = format!("{}.json", hex(&config));
    let manifest = json!([{"Config": name, "RepoTags": ["hostile:1"], "Layers": ["l.tar"]}]);
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    let mut tar = tar::Builder::new(fs::File::create(path).expect("create the archive"));
    for (name, content) in
        [("manifest.json", &manifest[..]), (name.as_str(), &config[..]), ("l.tar", layer)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).expect("write the archive");
    }
    tar.finish().expect("write the archive");
}

/// Names that would be markup, script, or not what they look like, and how they are to be read.
const HOSTILE: &[(&[u8], &str)] = &[
    (b"<img src=x onerror=hacked=1>", "<img src=x onerror=hacked=1>"),
    (b"<script>hacked=1<", "<script>hacked=1<"),
    (b"<!--<script", "<!--<script"),
    (b"\"'><svg onload=hacked=1>", "\"'><svg onload=hacked=1>"),
    (b"]]>&lt;&#x3c;", "]]>&lt;&#x3c;"),
    (b"\\u003cscript", "\\u003cscript"),
    (b"${hacked=1}`", "${hacked=1}`"),
    (b"__proto__", "__proto__"),
    (b"line\nend\x1b[2J\x01", "line\\nend\\u{1b}[2J\\u{1}"),
    ("gpj.\u{202e}exe".as_bytes(), "gpj.\\u{202e}exe"),
    ("sep\u{2028}\u{200b}".as_bytes(), "sep\\u{2028}\\u{200b}"),
    (b"bad\xff\xfe", "bad\\xff\\xfe"),
];

fn hostile_image(dir: &Path) -> PathBuf {
    let mut tar = tar::Builder::new(Vec::new());
    for (at, (name, _)) in HOSTILE.iter().enumerate() {
        // Two of each content, so that they are duplicates too.
        for twin in ["", "2"] {
            let content = vec![u8::try_from(at).expect("a few"); 60_000];
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            let path = [*name, twin.as_bytes()].concat();
            header.as_mut_bytes()[..path.len()].copy_from_slice(&path);
            header.set_cksum();
            tar.append(&header, &content[..]).expect("a good entry");
        }
    }
    let layer = tar.into_inner().expect("writing to memory");
    let bad = "</script><script>hacked=1</script>\u{202e}";
    let mut config = json!({
        "architecture": format!("amd64{bad}"), "os": "linux", "created": bad,
        "history": [{"created_by": format!("RUN {bad}"), "comment": bad}],
    });
    let path = dir.join("hostile.tar");
    archive_of(&path, &layer, &mut config);
    path
}

fn page_of(dir: &Path, images: &[&str]) -> PathBuf {
    let page = dir.join("page.html");
    layerctl().arg("report").args(images).args(["--force", "-o"]).arg(&page).finish().ok();
    page
}

#[test]
fn hostile_names_are_text_and_nothing_else() {
    let scratch = TempDir::new().expect("a directory");
    let image = hostile_image(scratch.path());
    let empty = TempDir::new().expect("a directory");
    let (image, empty) = (image.to_str().expect("UTF-8"), empty.path().to_str().expect("UTF-8"));
    for images in [&[image][..], &[empty, image], &[image, empty]] {
        let page = page_of(scratch.path(), images);
        let text = fs::read_to_string(&page).expect("UTF-8");
        for c in ['\u{202e}', '\u{2028}', '\u{200b}', '\u{1b}', '\u{1}'] {
            assert!(!text.contains(c), "{c:?} is on the page about {images:?}");
        }
        for markup in ["<img", "<svg onload", "hacked=1</script>", "<script>hacked"] {
            assert!(!text.contains(markup), "{markup} is on the page about {images:?}");
        }
        if host::provides(&browser::PROGRAMS) {
            assert_harmless(&page);
        }
    }
}

/// A browser shows hostile names as they are to be read, and runs none of them.
fn assert_harmless(page: &Path) {
    let mut browser = Browser::start();
    for scripts in [true, false] {
        browser.open(page, 1280, 900, scripts);
        assert_eq!(browser.complaints(), [] as [Value; 0], "scripts: {scripts}");
        let ran = browser.evaluate("typeof hacked !== 'undefined' || document.images.length > 0");
        assert_eq!(ran, json!(false), "a name is no markup");
        // The list and the tables, or the pictures, have them all.
        let shown = browser.evaluate("document.body.textContent");
        let shown = shown.as_str().expect("text");
        for (_, name) in HOSTILE {
            assert!(shown.contains(name), "{name:?} is not shown with scripts: {scripts}");
        }
    }
}

#[test]
fn a_page_is_the_same_each_time_and_says_what_other_commands_say() {
    let scratch = TempDir::new().expect("a directory");
    let path = scratch.path().join("image.tar");
    let path = path.to_str().expect("UTF-8");
    let config = json!({});
    archive::docker(
        Path::new(path),
        &[Image {
            names: &["app:1"],
            created: "2024-01-01T00:00:00Z",
            config: &config,
            layers: &[
                &[("a/", ""), ("a/one.txt", "1234567890"), ("a/two.TXT", "12345"), ("b", "12345")],
                &[("a/.wh.one.txt", ""), ("a/two.TXT", "changed"), ("c", "12345")],
            ],
        }],
    );
    let report = |arguments: &[&str]| layerctl().arg("report").args(arguments).finish();
    let page = report(&[path]).ok();
    assert_eq!(page, report(&[path, "-o", "-"]).ok(), "the same bytes");
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{}", &page[..60]);

    let facts = parse(&report(&[path, "--json"]).ok());
    let space = parse(&layerctl().args(["--json", "du", path]).finish().ok());
    for member in ["stored", "visible", "wasted", "duplicate", "wasted_files", "duplicates"] {
        assert_eq!(facts[member], space[member], "{member}");
    }
    let layer = |at: usize, member: &str| facts["layers"][at][member].clone();
    for (at, counts) in [(0, [3, 0, 0, 0]), (1, [1, 1, 0, 1])] {
        for (member, expected) in ["added", "changed", "repeated", "deleted"].iter().zip(counts) {
            assert_eq!(layer(at, member), json!(expected), "{member} by layer {}", at + 1);
        }
    }
    let txt = json!([{"extension": "", "files": 2, "bytes": 10}, {"extension": "txt", "files": 1, "bytes": 7}]);
    assert_eq!(facts["types"], txt, "the types of files");

    let daemon = Daemon::start();
    daemon.layerctl(["import", path]).ok();
    let stored = daemon.layerctl(["--json", "report", "app:1"]).ok();
    let (mut stored, mut facts) = (parse(&stored), facts);
    for side in [&mut stored, &mut facts] {
        side["name"].take();
    }
    assert_eq!(stored, facts, "the store says what the archive says");
}

#[test]
fn a_file_is_replaced_only_if_asked_for() {
    let scratch = TempDir::new().expect("a directory");
    let dir = scratch.path().join("dir");
    fs::create_dir(&dir).expect("a directory");
    fs::write(dir.join("f"), "content").expect("a file");
    let page = scratch.path().join("page.html");
    fs::write(&page, "mine").expect("a file");
    let run = |force: &[&str]| {
        layerctl().arg("report").arg(&dir).arg("-o").arg(&page).args(force).finish()
    };
    let refused = run(&[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("page.html"), "it says which: {refused:?}");
    assert_eq!(fs::read_to_string(&page).expect("the file"), "mine", "untouched");
    run(&["--force"]).ok();
    assert!(fs::read_to_string(&page).expect("the page").contains("</html>"), "a whole page");
    let names = fs::read_dir(scratch.path()).expect("a listing").count();
    assert_eq!(names, 2, "nothing else is left");
}

#[test]
fn a_page_about_many_files_is_small() {
    let scratch = TempDir::new().expect("a directory");
    let names: Vec<String> =
        (0..20_000).map(|at| format!("dir-{}/sub-{}/file-{at}.data", at % 50, at % 700)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "content of a file")).collect();
    let path = scratch.path().join("rootfs.tar");
    archive::rootfs(&path, &files);
    let page = page_of(scratch.path(), &[path.to_str().expect("UTF-8")]);
    let size = fs::metadata(&page).expect("the page").len();
    assert!(size < 1 << 20, "{size} bytes");
}

/// Nothing sticks out to the side.
fn assert_fits(browser: &mut Browser, what: &str) {
    let widths = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]");
    let width = |at: usize| widths[at].as_u64().expect("a number");
    assert!(width(0) <= width(1), "{what}: {} wide in a window of {}", width(0), width(1));
}

#[test]
fn the_map_zooms_by_pointer_and_keyboard_on_every_screen() {
    let mut programs = vec!["mmdebstrap", "buildah", "setcap"];
    programs.extend(browser::PROGRAMS);
    if !host::provides(&programs) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let image = host::debian_image().join("docker.tar");
    let page = page_of(scratch.path(), &[image.to_str().expect("UTF-8")]);
    let mut browser = Browser::start();
    for (width, height) in [(1280, 900), (360, 800)] {
        browser.open(&page, width, height, true);
        assert_fits(&mut browser, "at first");
        let place = |browser: &mut Browser| {
            let crumbs = "[...document.querySelectorAll('#crumbs button')].map(b => b.textContent)";
            browser.evaluate(&format!("{crumbs}.join('|')"))
        };
        assert_eq!(place(&mut browser), "/", "the whole image");
        browser.evaluate("document.querySelector('#list button').click()");
        assert_eq!(place(&mut browser), "/|usr", "the largest directory, by the list");
        browser.press("Escape");
        assert_eq!(place(&mut browser), "/", "back by Escape");
        let click = "document.querySelector('#canvas g.zoom').dispatchEvent(\
                     new MouseEvent('click', {bubbles: true}))";
        browser.evaluate(click);
        assert_eq!(place(&mut browser), "/|usr", "by a click in the map");
        browser.evaluate("document.querySelector('#canvas g[tabindex=\"0\"]').focus()");
        browser.press("Enter");
        assert_eq!(place(&mut browser), "/|usr|lib", "by Enter in the map");
        browser.press("ArrowRight");
        let second = "[...document.querySelectorAll('#canvas g[tabindex]')]\
                      .indexOf(document.activeElement)";
        assert_eq!(browser.evaluate(second), json!(1), "arrows go to the next");
        assert_fits(&mut browser, "in a directory");

        browser.evaluate("document.querySelector('[data-view=layers]').click()");
        let layers = browser.evaluate("document.querySelectorAll('#list li').length");
        assert_eq!(layers, json!(4), "the layers");
        let hatched = browser.evaluate("document.querySelectorAll('#canvas .hatch').length > 0");
        assert_eq!(hatched, json!(true), "what is wasted is marked");
        browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)");
        assert_fits(&mut browser, "with all lists open");
        assert_eq!(browser.complaints(), [] as [Value; 0], "at a width of {width}");

        browser.open(&page, width, height, false);
        let pictures = "[...document.querySelectorAll('#pictures svg')]\
                        .map(svg => svg.getBoundingClientRect().height > 100)";
        assert_eq!(browser.evaluate(pictures), json!([true, true]), "maps without scripts");
        assert_fits(&mut browser, "without scripts");
        assert_eq!(browser.complaints(), [] as [Value; 0], "without scripts");
    }
}

/// The nodes and edges that graphviz reads in a file, sorted.
fn read_by_graphviz(file: &Path) -> (Vec<String>, Vec<(String, String)>) {
    let drawn = Command::new("dot").args(["-Tjson0"]).arg(file).finish();
    assert_eq!(drawn.code, Some(0), "graphviz reads it: {drawn:?}");
    let graph = parse(&drawn.stdout);
    let names: Vec<String> = graph["objects"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| node["name"].as_str().expect("a name").to_owned())
        .collect();
    let end = |edge: &Value, end: &str| {
        names[usize::try_from(edge[end].as_u64().expect("a node")).expect("a number")].clone()
    };
    let edges = graph["edges"].as_array().expect("edges").iter();
    let mut edges: Vec<_> = edges.map(|edge| (end(edge, "tail"), end(edge, "head"))).collect();
    edges.sort();
    let mut names = names.clone();
    names.sort();
    (names, edges)
}

/// What [`read_by_graphviz`] is to find, by the JSON of the same graph.
fn expected_nodes(graph: &Value) -> (Vec<String>, Vec<(String, String)>) {
    let list = |key: &str| graph[key].as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (mut names, mut edges) = (Vec::new(), Vec::new());
    for layer in list("layers") {
        let id = text(&layer["chain_id"]).expect("an id");
        edges.extend(text(&layer["parent"]).map(|parent| (parent, id.clone())));
        names.push(id);
    }
    for image in list("images") {
        let id = format!("image {}", text(&image["id"]).expect("an id"));
        edges.extend(text(&image["top"]).map(|top| (top, id.clone())));
        names.push(id);
    }
    for container in list("containers") {
        let id = format!("container {}", text(&container["id"]).expect("an id"));
        edges.push((format!("image {}", text(&container["image"]).expect("an id")), id.clone()));
        names.push(id);
    }
    names.sort();
    edges.sort();
    (names, edges)
}

#[test]
fn a_graph_shows_which_images_share_layers() {
    if !host::provides(&["dot"]) {
        return;
    }
    let scratch = TempDir::new().expect("a directory");
    let path = scratch.path().join("images.tar");
    let config = json!({});
    let base: archive::Files<'_> = &[("base", "base")];
    let (one, two): (archive::Files<'_>, archive::Files<'_>) = (&[("1", "1")], &[("2", "2")]);
    let image =
        |names, layers| Image { names, layers, created: "2024-01-01T00:00:00Z", config: &config };
    archive::docker(&path, &[image(&["one:1"], &[base, one]), image(&["two:1"], &[base, two])]);
    let daemon = Daemon::start();
    daemon.layerctl(["import", path.to_str().expect("UTF-8")]).ok();
    let graph = parse(&daemon.layerctl(["--json", "graph"]).ok());
    let users: Vec<_> =
        graph["layers"].as_array().expect("layers").iter().map(|l| &l["users"]).collect();
    assert_eq!(users, [&json!(2), &json!(1), &json!(1)], "the base and what stands on it: {graph}");
    let some = parse(&daemon.layerctl(["--json", "graph", "one:1"]).ok());
    assert_eq!(some["layers"][0]["users"], json!(2), "the whole store's users: {some}");
    assert_eq!(some["layers"].as_array().map(Vec::len), Some(2), "its own layers alone: {some}");

    let svg = daemon.layerctl(["graph"]).ok();
    assert_eq!(svg, daemon.layerctl(["graph", "-o", "-"]).ok(), "the same bytes");
    let drawn = |text: &str| (text.contains("one:1"), text.contains("two:1"));
    assert_eq!((svg.starts_with("<svg "), drawn(&svg)), (true, (true, true)), "{svg}");
    let file = scratch.path().join("graph.dot");
    daemon.layerctl(["graph", "-o", file.to_str().expect("UTF-8")]).ok();
    let dot = fs::read_to_string(&file).expect("the file");
    assert_eq!((dot.starts_with("digraph "), drawn(&dot)), (true, (true, true)), "{dot}");
    let (nodes, edges) = read_by_graphviz(&file);
    assert_eq!((nodes.len(), edges.len()), (5, 4), "three layers, two images: {dot}");
    assert_eq!((nodes, edges), expected_nodes(&graph), "{dot}");
}
