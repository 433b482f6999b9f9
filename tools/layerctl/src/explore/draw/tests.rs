use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use super::*;
use crate::explore::app::{Event, Reading};
use crate::explore::image::Header;
use crate::explore::pager::Pager;
use crate::explore::testing::{Explorer, LAYERS};

fn paint(app: &App, colour: bool) -> (Buffer, Option<(u16, u16)>) {
    let mut buffer = Buffer::empty(Rect::new(0, 0, app.size.width, app.size.height));
    let cursor = draw(app, Theme::new(colour), &mut buffer);
    (buffer, cursor)
}

/// The screen as text; the second half of a wide character is left out.
fn screen(explorer: &Explorer) -> Vec<String> {
    let (buffer, _) = paint(&explorer.app, true);
    let line = |y: u16| {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(crate::explore::text::width(symbol).max(1)).expect("a width");
        }
        line.trim_end().to_owned()
    };
    (0..buffer.area.height).map(line).collect()
}

#[test]
fn the_first_screen() {
    let explorer = Explorer::new(LAYERS, 80, 20);
    let expected = [
        " test:1                          3 layers · 73B · 46B wasted · efficiency 36.9%",
        "┏ Layers ━━━━━━━━━━━━━━━━━━━━━━┓┌ Changes of layer 3 ───────────── A 3 D 2 = 1 ┐",
        "┃  #   SIZE WASTED  STEP       ┃│  MODE         SIZE  NAME                     │",
        "┃  1    19B     9B  RUN step 1…┃│· drwxr-xr-x     4B  ▾ /                      │",
        "┃  2    50B    37B  RUN step 2…┃│· drwxr-xr-x      -    ▾ etc                  │",
        "┃› 3     4B      -  RUN step 3…┃│D -rw-r--r--     5B        motd               │",
        "┗━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛│· drwxr-xr-x     4B    ▾ srv                  │",
        "┌ Layer 3 ─────────────────────┐│D -rw-r--r--    32B        big                │",
        "│ Size       4B                ││A -rw-r--r--     0B        e\\u{1b}[m          │",
        "│ Wasted     nothing           ││A -rw-r--r--     3B        new                │",
        "│ Efficiency 100%              ││A -rw-r--r--     1B        漢字               │",
        "│ Files      3 files, 1        ││                                              │",
        "│            directory, 2      ││                                              │",
        "│            deletions         ││                                              │",
        "│ Step       RUN step 3 &&     ││                                              │",
        "│            with some words   ││                                              │",
        "│            more than fit     ││                                              │",
        "│ DiffID     sha256:333333333… ││                                              │",
        "└──────────────────────────────┘└──────────────────────────────────────────────┘",
        " ? keys  q quit  Tab tree  t changes / all  c compare  / find  w wasted",
    ];
    assert_eq!(screen(&explorer), expected);
}

#[test]
fn a_narrow_terminal_shows_one_pane() {
    let mut explorer = Explorer::new(LAYERS, 44, 11);
    explorer.keys("k t Tab");
    let expected = [
        " test:1 73B · 46B wasted · efficiency 36.9%",
        "┏ Tree as of layer 2 ━ A 2 C 1 unchanged 8 ┓",
        "┃  MODE         SIZE  NAME                 ┃",
        "┃· drwxr-xr-x    60B  ▾ /                  █",
        "┃· drwxr-xr-x    18B    ▾ etc              █",
        "┃= -rw-r--r--     5B        motd           █",
        "┃C -rw-r--r--    13B        passwd  (size,…┃",
        "┃A drwxr-xr-x    32B    ▾ srv              ┃",
        "┃A -rw-r--r--    32B        big            ┃",
        "┗━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛",
        " ? keys  q quit  Enter open  / find  b blame",
    ];
    assert_eq!(screen(&explorer), expected);
}

#[test]
fn overlays_cover_no_more_than_they_need() {
    let mut explorer = Explorer::new(LAYERS, 70, 16);
    explorer.keys("w");
    let expected = [
        " test:1                3 layers · 73B · 46B wasted · efficiency 36.9%",
        "┌ Layers ──────────────────┐┌ Changes of layer 3 ─────── A 3 D 2 = 1 ┐",
        "│  #   SIZE WASTED  STEP   ││  MODE         SIZE  NAME               │",
        "│  1    19B     9B  RUN st…││· drwxr-xr-x     4B  ▾ /                │",
        "┏ Wasted: 46B in 4 files ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓",
        "┃   BYTES  LAYER  WHY                    FILE                        ┃",
        "┃     32B  2      deleted in layer 3     /srv/big                    ┃",
        "┃      5B  1      overwritten in layer 2 /etc/motd                   ┃",
        "┃      5B  2      deleted in layer 3     /etc/motd                   ┃",
        "┃      4B  1      overwritten in layer 2 /etc/passwd                 ┃",
        "┗━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛",
        "│ Files      3 files, 1    ││                                        │",
        "│            directory, 2  ││                                        │",
        "│            deletions     ││                                        │",
        "└──────────────────────────┘└────────────────────────────────────────┘",
        " Enter go to the file  ↑↓ move  Esc close",
    ];
    assert_eq!(screen(&explorer), expected);
    explorer.keys("Esc Tab j b");
    let expected = [
        " test:1                3 layers · 73B · 46B wasted · efficiency 36.9%",
        "┌ Layers ──────────────────┐┌ Changes of layer 3 ─────── A 3 D 2 = 1 ┐",
        "│  #   SIZE WASTED  STEP   ││  MODE         SIZE  NAME               │",
        "┏ Blame ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓",
        "┃ /etc                                                               ┃",
        "┃                                                                    ┃",
        "┃ layer 1 gave it content, mode, owner, xattrs, time                 ┃",
        "┃     RUN step 1 && with some words more than fit                    ┃",
        "┃                                                                    ┃",
        "┃ What the layers did to it, the lowest first:                       ┃",
        "┃ layer 1    A  added                                                ┃",
        "┃ layer 2    =  again, without a change                              ┃",
        "┗━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛",
        "│            deletions     ││                                        │",
        "└──────────────────────────┘└────────────────────────────────────────┘",
        " ↑↓ scroll  Esc close",
    ];
    assert_eq!(screen(&explorer), expected);
}

#[test]
fn a_cut_file_says_so() {
    let mut explorer = Explorer::new(LAYERS, 64, 10);
    explorer.keys("Tab G v");
    let number = explorer.app.asked.content.expect("a question");
    let pager = Pager::new("/srv/漢字".into(), 5_000_000, b"one\ntwo\tthree\n".into());
    explorer.event(Event::Content(number, Ok(pager)));
    let lines = screen(&explorer);
    assert_eq!(lines[1].trim_matches(['┏', '━', '┓', ' ']), "/srv/漢字 · the first 14B of 5MB");
    assert_eq!(lines[3].trim_matches(['┃', ' ']), "two     three");
    let end = "cut here: the file goes on · lines 1-2 of 2";
    assert!(lines[8].contains(end), "{:?}", lines[8]);
}

#[test]
fn what_is_found_in_a_file_is_marked_and_counted() {
    let mut explorer = Explorer::new(LAYERS, 64, 10);
    explorer.keys("Tab G v");
    let number = explorer.app.asked.content.expect("a question");
    let pager = Pager::new("/srv/file".into(), 14, b"one\n\ttwo one\n".into());
    explorer.event(Event::Content(number, Ok(pager)));
    explorer.keys("/ o n e");
    for (keys, marked, count) in [("Enter", (2, 2), "1 of 2"), ("n", (14, 3), "2 of 2")] {
        explorer.keys(keys);
        for colour in [true, false] {
            let (buffer, _) = paint(&explorer.app, colour);
            let cells = (1..9).flat_map(|y| (1..62).map(move |x| (x, y)));
            let reversed: Vec<_> = cells
                .filter(|place| buffer[*place].modifier.contains(Modifier::REVERSED))
                .collect();
            let expected: Vec<_> = (marked.0..marked.0 + 3).map(|x| (x, marked.1)).collect();
            assert_eq!(reversed, expected, "the place that {keys} led to");
        }
        let lines = screen(&explorer);
        assert!(lines[8].contains(&format!("/one: {count}")), "{:?}", lines[8]);
    }
}

#[test]
fn what_is_typed_is_shown_with_the_cursor_behind_it() {
    let mut explorer = Explorer::new(LAYERS, 60, 10);
    explorer.keys("/ ~ x (");
    let (_, cursor) = paint(&explorer.app, true);
    assert_eq!(cursor, Some((4, 9)), "behind /~x(");
    let line = screen(&explorer).pop().expect("a line");
    assert!(line.starts_with("/~x( ") && line.contains("unclosed group"), "{line}");
    explorer.event(Event::Paste("漢".repeat(100)));
    let (_, cursor) = paint(&explorer.app, true);
    assert!(cursor.is_some_and(|(x, y)| x < 60 && y == 9), "the end is seen: {cursor:?}");
}

#[test]
fn every_change_is_told_by_a_letter_and_without_colour() {
    let mut explorer = Explorer::new(LAYERS, 90, 24);
    explorer.keys("t [ Tab");
    for colour in [true, false] {
        let (buffer, _) = paint(&explorer.app, colour);
        let colours = buffer
            .content
            .iter()
            .filter(|cell| !matches!((cell.fg, cell.bg), (Color::Reset, Color::Reset)));
        assert_eq!(colours.count() > 0, colour, "colours");
        let reversed =
            buffer.content.iter().filter(|cell| cell.modifier.contains(Modifier::REVERSED));
        assert!(reversed.count() > 90, "the selected line is seen");
    }
    let lines = screen(&explorer).join("\n");
    for (letter, name) in [("C", "passwd"), ("=", "motd"), ("A", "big")] {
        let line = lines.lines().find(|line| line.contains(name)).expect(name);
        assert!(line.contains(&format!("┃{letter} -rw-r--r--")), "{line}");
    }
}

#[test]
fn reading_shows_how_far_it_has_come() {
    let app = App::new(Size { width: 80, height: 16 }, true);
    let mut explorer = Explorer { app, effects: Vec::new() };
    assert!(screen(&explorer).join("\n").contains("opening the image"), "before it is found");
    let layers = vec![Default::default(); 4];
    explorer.event(Event::Opened(Header { name: "big:1".into(), kind: "image", layers }));
    let reading = Reading { layer: 1, read: 500_000_000, total: Some(2_000_000_000) };
    explorer.event(Event::Reading(reading));
    let lines = screen(&explorer).join("\n");
    for text in ["big:1", "reading layer 2 of 4, 25%", "500MB of 2GB", "██████████░"]
    {
        assert!(lines.contains(text), "{text}: {lines}");
    }
}

#[test]
fn a_terminal_that_is_too_small_is_told_politely() {
    let explorer = Explorer::new(LAYERS, 30, 5);
    let lines = screen(&explorer).join("\n");
    assert!(lines.contains("too small") && lines.contains("40 x 10"), "{lines}");
}

#[test]
fn a_frame_of_another_size_than_the_states_is_left_empty() {
    let explorer = Explorer::new(LAYERS, 80, 24);
    let mut buffer = Buffer::empty(Rect::new(0, 0, 40, 12));
    assert_eq!(draw(&explorer.app, Theme::new(true), &mut buffer), None);
    assert_eq!(buffer, Buffer::empty(buffer.area), "the next frame has the right size");
}
