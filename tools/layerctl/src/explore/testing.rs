//! A small image and an explorer of it, with the background done at once.

use std::sync::Arc;

use cow::digest::Digest;
use cow::index::{Builder, Content};
use cow::stack::Stack;
use cow::tar::{Entry, EntryKind};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Size;

use super::app::{App, Effect, Event};
use super::image::{Header, Image, LayerFacts};
use super::view::View;

/// Entries of a layer in the order of its tar: `path=content`, `dir/`, `link -> text`,
/// `name => first name`; whiteouts as a tar spells them.
pub(super) type Layer<'a> = &'a [&'a str];

/// Three layers with one of everything.
pub(super) const LAYERS: &[Layer<'_>] = &[
    &[
        "etc/",
        "etc/passwd=root",
        "etc/motd=hello",
        "usr/",
        "usr/bin/",
        "usr/bin/sh=0123456789",
        "usr/bin/bash => usr/bin/sh",
        "usr/bin/dash -> sh",
    ],
    &[
        "etc/",
        "etc/passwd=root and more",
        "srv/",
        "srv/big=0123456789abcdef0123456789abcdef",
        "etc/motd=hello",
    ],
    &["srv/", "srv/.wh.big", "srv/new=xyz", "etc/.wh.motd", "srv/漢字=1", "srv/e\x1b[m="],
];

pub(super) fn stack(layers: &[Layer<'_>]) -> Stack {
    let index = |entries: &Layer<'_>| {
        let mut builder = Builder::new();
        for line in *entries {
            let (entry, content) = entry(line);
            builder.push(&entry, content).expect("a good entry");
        }
        Arc::new(builder.finish().expect("an index"))
    };
    Stack::new(layers.iter().map(index).collect()).expect("a stack")
}

fn entry(line: &str) -> (Entry, Content) {
    let (path, kind, rest) = if let Some((path, text)) = line.split_once(" -> ") {
        (path, EntryKind::Symlink, text)
    } else if let Some((path, first)) = line.split_once(" => ") {
        (path, EntryKind::HardLink, first)
    } else if let Some((path, content)) = line.split_once('=') {
        (path, EntryKind::File, content)
    } else if line.ends_with('/') {
        (line, EntryKind::Dir, "")
    } else {
        (line, EntryKind::File, "")
    };
    let is_file = kind == EntryKind::File;
    let entry = Entry {
        path: path.into(),
        kind,
        mode: if kind == EntryKind::Dir { 0o755 } else { 0o644 },
        size: if is_file { rest.len() as u64 } else { 0 },
        link: if is_file { Vec::new() } else { rest.into() },
        ..Entry::default()
    };
    let digest = is_file.then(|| Digest::of(rest.as_bytes()));
    (entry, Content { digest, offset: None })
}

pub(super) fn image(layers: &[Layer<'_>]) -> Image {
    let facts = |at| LayerFacts {
        diff_id: Some(format!("sha256:{}", format!("{at}").repeat(64))),
        step: format!("RUN step {at} && with some words more than fit"),
        ..LayerFacts::default()
    };
    Image::new(&stack(layers), (1..=layers.len()).map(facts).collect(), true)
}

/// An explorer of an image.
pub(super) struct Explorer {
    pub(super) app: App,
    /// Effects for the terminal and the reader.
    pub(super) effects: Vec<Effect>,
}

impl Explorer {
    pub(super) fn new(layers: &[Layer<'_>], width: u16, height: u16) -> Self {
        let image = image(layers);
        let app = App::new(Size { width, height }, true);
        let mut explorer = Self { app, effects: Vec::new() };
        let layers = image.layers.clone();
        explorer.event(Event::Opened(Header { name: "test:1".into(), kind: "image", layers }));
        explorer.event(Event::Loaded(Arc::new(image)));
        explorer
    }

    pub(super) fn event(&mut self, event: Event) {
        for effect in self.app.update(event) {
            match effect {
                Effect::Build(number, spec, image) => {
                    let view = View::make(&image.forest, &spec, || true).expect("a wanted view");
                    self.event(Event::Built(number, view));
                }
                other => self.effects.push(other),
            }
        }
    }

    /// Presses keys: words that name them, or their letters; `^x` is Ctrl-X.
    pub(super) fn keys(&mut self, keys: &str) {
        for word in keys.split(' ') {
            let mut letters = word.chars();
            let (code, modifiers) = match (word, letters.next(), letters.next()) {
                ("Enter", ..) => (KeyCode::Enter, KeyModifiers::NONE),
                ("Esc", ..) => (KeyCode::Esc, KeyModifiers::NONE),
                ("Tab", ..) => (KeyCode::Tab, KeyModifiers::NONE),
                ("Space", ..) => (KeyCode::Char(' '), KeyModifiers::NONE),
                ("Left", ..) => (KeyCode::Left, KeyModifiers::NONE),
                ("Right", ..) => (KeyCode::Right, KeyModifiers::NONE),
                ("PgDn", ..) => (KeyCode::PageDown, KeyModifiers::NONE),
                (_, Some('^'), Some(letter)) => (KeyCode::Char(letter), KeyModifiers::CONTROL),
                (_, Some(letter), None) => (KeyCode::Char(letter), KeyModifiers::NONE),
                _ => panic!("no such key: {word}"),
            };
            self.event(Event::Key(KeyEvent::new(code, modifiers)));
        }
    }

    /// The rows to be seen, the selected one with a mark: `A>/etc/passwd 13`.
    pub(super) fn rows(&self) -> Vec<String> {
        let image = self.app.image.as_ref().expect("an image");
        let rows = self.app.tree.rows(0).enumerate().map(|(at, row)| {
            let mark = if at == self.app.tree.list.selected { '>' } else { ' ' };
            let path = super::text::shown(image.forest.path(row.id));
            format!("{}{mark}/{path} {}", letter(row.change), row.bytes)
        });
        rows.collect()
    }
}

pub(super) fn letter(change: super::view::Change) -> char {
    use super::view::Change;
    match change {
        Change::Added => 'A',
        Change::Changed => 'C',
        Change::Removed => 'D',
        Change::Repeated => '=',
        Change::Same => '.',
    }
}
