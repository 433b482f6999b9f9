use std::path::PathBuf;

use ratatui::crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::*;
use crate::explore::testing::{Explorer, LAYERS};

fn explorer() -> Explorer {
    Explorer::new(LAYERS, 100, 30)
}

#[test]
fn the_topmost_layer_comes_first_and_keys_lead_to_others() {
    let mut explorer = explorer();
    assert_eq!(explorer.app.shown(), Show::Changes(2));
    for (keys, show) in [
        ("k", Show::Changes(1)),
        ("t", Show::Tree(1)),
        ("[", Show::Tree(0)),
        ("[", Show::Tree(0)),
        ("Tab ]", Show::Tree(1)),
        ("c", Show::Compare(1, 1)),
        ("j", Show::Compare(1, 2)),
        ("Esc", Show::Tree(2)),
        ("t c g", Show::Compare(2, 0)),
        ("c", Show::Changes(0)),
    ] {
        explorer.keys(keys);
        assert_eq!(explorer.app.shown(), show, "after {keys}");
        let made = explorer.app.tree.view().expect("a view").spec.show;
        assert_eq!(made, show, "the view after {keys}");
    }
}

#[test]
fn directories_are_opened_and_closed() {
    let mut explorer = explorer();
    let all = [".>/ 4", ". /etc 0", "D /etc/motd 5", "= /srv 4", "D /srv/big 32"];
    explorer.keys("Tab");
    assert_eq!(explorer.rows()[..5], all, "few rows are all open");
    for (keys, expected) in [
        ("-", &[".>/ 4", ". /etc 0", "= /srv 4"][..]),
        ("j Enter", &[". / 4", ".>/etc 0", "D /etc/motd 5", "= /srv 4"]),
        ("j", &[". / 4", ". /etc 0", "D>/etc/motd 5", "= /srv 4"]),
        ("Left", &[". / 4", ".>/etc 0", "D /etc/motd 5", "= /srv 4"]),
        ("Left", &[". / 4", ".>/etc 0", "= /srv 4"]),
        ("Right j", &[". / 4", ". /etc 0", "D>/etc/motd 5", "= /srv 4"]),
        ("g Space", &[".>/ 4"]),
        ("Space G", &[". / 4", ". /etc 0", "D /etc/motd 5", "=>/srv 4"]),
    ] {
        explorer.keys(keys);
        assert_eq!(explorer.rows(), expected, "after {keys}");
    }
    explorer.keys("+");
    assert_eq!(explorer.rows().len(), 8, "all open: {:?}", explorer.rows());
}

#[test]
fn the_selected_path_stays_selected_in_other_views() {
    let mut explorer = explorer();
    explorer.keys("t Tab / p a s s w d Enter");
    explorer.keys("G");
    assert_eq!(explorer.rows()[2], ".>/etc/passwd 13", "{:?}", explorer.rows());
    explorer.keys("Esc");
    let selected = explorer.rows().into_iter().find(|row| row.contains('>'));
    assert_eq!(selected.as_deref(), Some(".>/etc/passwd 13"), "without the filter");
    explorer.keys("t");
    let selected = explorer.rows().into_iter().find(|row| row.contains('>'));
    assert_eq!(selected.as_deref(), Some(".>/etc 0"), "where it is not: the directory around it");
}

#[test]
fn a_filter_is_live_and_a_bad_one_changes_nothing() {
    let mut explorer = explorer();
    explorer.keys("t / ~ p a s s");
    let found = [".>/ 13", ". /etc 13", ". /etc/passwd 13"];
    assert_eq!(explorer.rows(), found, "before Enter");
    explorer.keys("(");
    assert_eq!(explorer.rows(), found, "while the pattern makes no sense");
    let error = match &explorer.app.prompt {
        Some(Prompt::Filter { error, .. }) => error.clone(),
        _ => None,
    };
    assert!(error.is_some(), "the prompt says why");
    explorer.keys("Enter");
    assert!(explorer.app.prompt.is_some(), "it cannot be taken");
    explorer.keys("Esc");
    assert!(explorer.app.prompt.is_none() && explorer.app.filter.is_empty(), "all as before");
    explorer.event(Event::Paste("never asked for".to_owned()));
    assert!(explorer.app.filter.is_empty(), "there is nothing to paste into");
    explorer.keys("/");
    explorer.event(Event::Paste("motd\nmore".to_owned()));
    assert_eq!(explorer.app.filter, "motd", "one line");
}

#[test]
fn kinds_and_order_are_switched() {
    let mut explorer = explorer();
    explorer.keys("1 4");
    let expected = [".>/ 0", ". /etc 0", "D /etc/motd 5", "= /srv 0", "D /srv/big 32"];
    assert_eq!(explorer.rows(), expected, "only what is gone");
    explorer.keys("1 4 s");
    let names: Vec<_> = explorer.rows().iter().map(|row| row[2..].to_owned()).collect();
    assert_eq!(names[..2], ["/ 4", "/srv 4"], "the largest first: {names:?}");
}

#[test]
fn a_files_content_is_asked_for_and_shown() {
    let mut explorer = explorer();
    explorer.keys("Tab / n e w Enter G Enter");
    let number = match &explorer.effects[..] {
        [Effect::Read(number, (layer, _), path, size)] => {
            assert_eq!((*layer, path.as_str(), *size), (2, "/srv/new", 3));
            *number
        }
        other => panic!("{other:?}"),
    };
    let pager = |text: &str| Pager::new("/srv/new".into(), 3, text.into());
    explorer.event(Event::Content(number + 1, Ok(pager("bad"))));
    assert!(explorer.app.overlay.is_none(), "an answer to another question");
    explorer.event(Event::Content(number, Ok(pager("xyz"))));
    assert!(matches!(&explorer.app.overlay, Some(Overlay::Pager(p)) if p.line(0) == "xyz"));
    explorer.keys("x PgDn h q");
    assert!(explorer.app.overlay.is_none() && explorer.app.end.is_none(), "only that is closed");
    explorer.keys("v");
    let number = explorer.app.asked.content.expect("asked again");
    explorer.event(Event::Content(number, Err("no such blob".into())));
    assert!(explorer.app.note.as_ref().is_some_and(|note| note.bad), "what went wrong is told");
}

#[test]
fn text_is_found_in_a_files_content() {
    let mut explorer = explorer();
    explorer.keys("Tab / n e w Enter G v");
    let number = explorer.app.asked.content.expect("a question");
    let text: String = (0..200).map(|line| format!("line {line:4}\n")).collect();
    let pager = Pager::new("/srv/new".into(), text.len() as u64, text.into_bytes());
    explorer.event(Event::Content(number, Ok(pager)));
    let top = |explorer: &Explorer| match &explorer.app.overlay {
        Some(Overlay::Pager(pager)) => (pager.top, pager.found.pattern.clone()),
        other => panic!("{other:?}"),
    };
    explorer.keys("/ 1 5 0");
    assert_eq!(top(&explorer), (142, "150".to_owned()), "the screen follows what is typed");
    explorer.keys("Esc");
    assert_eq!(top(&explorer), (0, String::new()), "Esc leads back");
    for (keys, expected, note) in [
        ("/ 4 9 Enter", 41, None),
        ("n", 141, None),
        ("n", 41, Some("from the beginning again")),
        ("N", 141, Some("from the end again")),
        ("g / Enter", 41, None),
        ("/ q Enter", 41, Some("not found: q")),
        ("n", 41, Some("not found: q")),
    ] {
        explorer.keys(keys);
        assert_eq!(top(&explorer).0, expected, "after {keys}");
        let said = explorer.app.note.as_ref().map(|note| note.text.as_str());
        assert_eq!(said, note, "after {keys}");
    }
    explorer.keys("/ ~ (");
    let error = match &explorer.app.prompt {
        Some(Prompt::Find { error, .. }) => error.clone(),
        other => panic!("{other:?}"),
    };
    assert!(error.is_some(), "nonsense is told while it is typed");
    explorer.keys("Esc q");
    assert!(explorer.app.overlay.is_none() && explorer.app.end.is_none(), "only that is closed");
}

#[test]
fn links_and_directories_have_no_content() {
    let mut explorer = explorer();
    explorer.keys("g t Tab / d a s h Enter G v");
    assert!(explorer.effects.is_empty(), "{:?}", explorer.effects);
    let note = explorer.app.note.as_ref().map(|note| note.text.as_str());
    assert_eq!(note, Some("a link to sh"));
}

#[test]
fn extraction_asks_where_to_and_before_it_replaces() {
    let mut explorer = explorer();
    explorer.keys("Tab / b i g Enter G e");
    let Some(Prompt::Extract { line, layers, path }) = &explorer.app.prompt else {
        panic!("no prompt: {:?}", explorer.app.prompt)
    };
    assert_eq!((line.text().as_str(), *layers, &path[..]), ("./big", 2, &b"srv/big"[..]));
    explorer.keys("2 Enter");
    let Some(Effect::Extract(extraction)) = explorer.effects.pop() else { panic!("no effect") };
    let expected =
        Extraction { layers: 2, path: b"srv/big".into(), to: "./big2".into(), replace: false };
    assert_eq!(extraction, expected);
    explorer.keys("e q");
    assert!(explorer.app.prompt.is_none() && explorer.app.end.is_none(), "it is still extracting");
    let there = Extraction { to: PathBuf::from("x/big"), ..extraction };
    explorer.event(Event::Extracted(Extracted::Exists(there.clone())));
    explorer.keys("n");
    assert!(explorer.effects.is_empty(), "not without a yes");
    explorer.event(Event::Extracted(Extracted::Exists(there.clone())));
    explorer.keys("y");
    let Some(Effect::Extract(extraction)) = explorer.effects.pop() else { panic!("no effect") };
    assert_eq!(extraction, Extraction { replace: true, ..there });
    explorer.event(Event::Extracted(Extracted::Done("done".into())));
    explorer.keys("q");
    assert!(matches!(explorer.app.end, Some(Ok(()))), "now it ends");
}

#[test]
fn blame_tells_who_gave_what_and_who_deleted() {
    let explorer = explorer();
    let image = explorer.app.image.as_ref().expect("an image");
    let id = (0..image.forest.len()).find(|id| image.forest.path(*id) == b"etc/motd");
    let lines = explorer.app.history(id.expect("the path"), 60);
    let text: Vec<_> = lines.iter().map(|(_, line)| line.as_str()).collect();
    let expected = [
        "/etc/motd",
        "",
        "layer 1 gave it content, mode, owner, xattrs, time",
        "    RUN step 1 && with some words more than fit",
        "layer 3 deleted it",
        "    RUN step 3 && with some words more than fit",
        "",
        "What the layers did to it, the lowest first:",
        "layer 1    A  added",
        "layer 2    =  again, without a change",
        "layer 3    D  deleted",
    ];
    assert_eq!(text, expected);
}

#[test]
fn a_wasted_file_is_gone_to_whatever_was_shown_before() {
    let mut explorer = explorer();
    explorer.keys("t / n o t h i n g Enter 1 w Enter");
    assert_eq!(explorer.app.shown(), Show::Changes(1), "the layer that stores it");
    let selected = explorer.rows().into_iter().find(|row| row.contains('>'));
    assert_eq!(selected.as_deref(), Some("A>/srv/big 32"), "the largest");
}

#[test]
fn the_mouse_selects_opens_and_scrolls() {
    let mut explorer = explorer();
    let tree = explorer.app.areas().tree;
    let mouse = |kind, column, row| {
        Event::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    explorer.event(mouse(click, tree.x + 5, tree.y + 3));
    assert_eq!(explorer.rows()[1], ".>/etc 0", "selected");
    explorer.event(mouse(click, tree.x + 5, tree.y + 3));
    assert_eq!(explorer.rows()[2], "= /srv 4", "closed by a second click");
    explorer.event(mouse(click, tree.x + 5, tree.y + 29));
    explorer.event(mouse(click, 5, 3));
    assert_eq!(explorer.app.shown(), Show::Changes(0), "a click on a layer");
    explorer.keys("?");
    explorer.event(mouse(MouseEventKind::ScrollDown, 50, 10));
    explorer.event(mouse(click, 0, 0));
    assert!(explorer.app.overlay.is_none(), "a click beside an overlay closes it");
    explorer.keys("m");
    assert!(matches!(explorer.effects[..], [Effect::Mouse(false)]), "{:?}", explorer.effects);
}

#[test]
fn it_can_be_quit_while_it_opens_and_is_ended_by_what_fails() {
    for (keys, what) in [("q", "q"), ("^c", "Ctrl-C")] {
        let app = App::new(Size { width: 80, height: 24 }, true);
        let mut explorer = Explorer { app, effects: Vec::new() };
        explorer.keys("j Tab Enter v e b w / x Esc s c t 1 + - [ ]");
        assert!(explorer.app.end.is_none(), "nothing to do, and nothing broken");
        explorer.keys(keys);
        assert!(matches!(explorer.app.end, Some(Ok(()))), "{what}");
    }
    let mut explorer = explorer();
    explorer.event(Event::Failed(anyhow::anyhow!("no such file")));
    assert!(matches!(explorer.app.end, Some(Err(_))));
}

#[test]
fn many_rows_begin_closed() {
    let names: Vec<_> = (0..300).map(|file| format!("dir-{}/file-{file}=x", file % 3)).collect();
    let layer: Vec<_> = names.iter().map(String::as_str).collect();
    let mut explorer = Explorer::new(&[&layer], 80, 24);
    let closed = ["A>/ 300", "A /dir-0 100", "A /dir-1 100", "A /dir-2 100"];
    assert_eq!(explorer.rows(), closed, "only the top is open");
    explorer.keys("Tab j Right");
    assert_eq!(explorer.rows().len(), 104, "one is opened");
    explorer.keys("/ f i l e - 2 9 Enter");
    assert_eq!(explorer.rows().len(), 1 + 3 + 11, "what is found is open: {:?}", explorer.rows());
    explorer.keys("Esc");
    assert_eq!(explorer.rows().len(), 104, "as it was before");
}

#[test]
fn an_archive_whose_contents_cannot_be_read_is_explored_without() {
    let mut explorer = explorer();
    let mut image = crate::explore::testing::image(LAYERS);
    image.compared = false;
    explorer.event(Event::Loaded(Arc::new(image)));
    assert!(explorer.app.is_loading(), "contents are still compared");
    explorer.event(Event::Uncompared("layer 2 is damaged".into()));
    assert!(!explorer.app.is_loading() && explorer.app.end.is_none(), "it goes on");
    let note = explorer.app.note.as_ref().map(|note| note.text.as_str());
    assert_eq!(note, Some("contents are not compared: layer 2 is damaged"));
}

#[test]
fn every_size_of_the_terminal_is_borne() {
    let mut explorer = explorer();
    for keys in ["Tab", "Tab", "?", "Esc w", "Esc Tab j b", "Esc / a", "Esc > > > >", "< < < <"] {
        explorer.keys(keys);
        for size in [(1, 1), (10, 3), (40, 10), (63, 15), (64, 16), (80, 24), (300, 100), (0, 0)] {
            explorer.event(Event::Resize(Size { width: size.0, height: size.1 }));
            let area = ratatui::layout::Rect::new(0, 0, size.0, size.1);
            let mut buffer = ratatui::buffer::Buffer::empty(area);
            let theme = crate::explore::draw::Theme::new(true);
            crate::explore::draw::draw(&explorer.app, theme, &mut buffer);
        }
    }
}
