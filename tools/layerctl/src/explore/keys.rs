//! What each key does, and the page that says so.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{App, Columns, Effect, Focus};
use super::layout::{left_width, lines};
use super::list::Move;
use super::overlay::Overlay;
use super::text::{fit, wrap};
use super::view::Sort;

/// How far a pane's edge moves at a time, in columns.
const EDGE: u16 = 4;

/// The columns of the page of keys.
pub(super) const HELP_WIDTH: u16 = 74;
/// The columns of the keys in it.
pub(super) const KEYS_WIDTH: usize = 21;

/// Keys and what they do; an empty line where there is no key.
const HELP: &[(&str, &str)] = &[
    ("↑ ↓  k j", "line up, down"),
    ("PgUp PgDn  ^U ^D", "a screen up, down"),
    ("Home End  g G", "first, last"),
    ("Tab", "between layers and tree"),
    ("[ ]", "layer below, above, from either pane"),
    ("", ""),
    ("Enter", "open or close a directory, show a file"),
    ("Space", "open or close a directory"),
    ("→ ←  l h", "open, close or go to the directory around"),
    ("+ -", "open, close all directories"),
    ("t", "what the layer did / the whole tree as of the layer"),
    ("c", "compare: mark this layer, then choose another; c again or Esc ends"),
    ("", ""),
    ("/", "look for names: part of one, *.glob, ~regex; with a / whole paths; Esc ends"),
    ("1 2 3 4", "show or hide added, changed, removed, unchanged"),
    ("s", "sort by size / by name"),
    ("o", "columns: as many as fit, all, sizes only"),
    ("", ""),
    ("v", "content of a file; there / finds text or ~regex, n N go on, x: hexadecimal"),
    ("b", "blame: which layer gave a file content, mode, owner; who deleted it"),
    ("e", "extract a file or directory"),
    ("w", "wasted files, the largest first; Enter goes to one"),
    ("", ""),
    ("< >", "move the edge between the panes"),
    ("m", "mouse on, off (off: the terminal selects text)"),
    ("^L  ^Z", "draw anew, suspend"),
    ("?  q", "this page, quit"),
    ("", ""),
    ("A C D", "added, changed, deleted"),
    ("= ·", "stored again without a change; something in the directory is A, C or D"),
];

/// The page of keys in so many columns.
pub(super) fn help(width: u16) -> Vec<String> {
    let width = usize::from(width.min(HELP_WIDTH));
    let mut lines = Vec::new();
    for (keys, what) in HELP {
        let room = width.saturating_sub(KEYS_WIDTH);
        for (at, part) in wrap(what, room).into_iter().enumerate() {
            let keys = if at == 0 { keys } else { "" };
            lines.push(format!("{}{part}", fit(keys, KEYS_WIDTH)));
        }
    }
    lines
}

/// The movement that a key stands for in every list.
pub(super) fn movement(key: KeyEvent) -> Option<Move> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match (key.code, control) {
        (KeyCode::Up, _) | (KeyCode::Char('k'), false) | (KeyCode::Char('p'), true) => {
            Move::Lines(-1)
        }
        (KeyCode::Down, _) | (KeyCode::Char('j'), false) | (KeyCode::Char('n'), true) => {
            Move::Lines(1)
        }
        (KeyCode::PageUp, _) | (KeyCode::Char('u' | 'b'), true) => Move::Pages(-1),
        (KeyCode::PageDown, _) | (KeyCode::Char('d' | 'f'), true) => Move::Pages(1),
        (KeyCode::Home, _) | (KeyCode::Char('g'), false) => Move::First,
        (KeyCode::End, _) | (KeyCode::Char('G'), false) => Move::Last,
        _ => return None,
    })
}

impl App {
    /// Takes a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, control) {
            (KeyCode::Char('z'), true) => return vec![Effect::Suspend],
            (KeyCode::Char('l'), true) => return vec![Effect::Redraw],
            _ => {}
        }
        if self.prompt.is_some() {
            return self.prompt_key(key);
        }
        if self.overlay.is_some() {
            return self.overlay_key(key);
        }
        if let Some(step) = movement(key) {
            return self.go(step);
        }
        match (key.code, control) {
            (KeyCode::Char('c'), true) => {
                self.end = Some(Ok(()));
                Vec::new()
            }
            (KeyCode::Char(c), false) => self.letter(c),
            (code, false) => self.special(code),
            _ => Vec::new(),
        }
    }

    fn special(&mut self, code: KeyCode) -> Vec<Effect> {
        match code {
            KeyCode::Tab | KeyCode::BackTab => {
                self.focus = match self.focus {
                    Focus::Layers => Focus::Tree,
                    Focus::Tree => Focus::Layers,
                };
                self.reveal();
            }
            KeyCode::Esc if !self.filter.is_empty() => return self.filter_by(String::new()),
            KeyCode::Esc if self.marked.is_some() => return self.compare_with(None),
            KeyCode::Enter if self.focus == Focus::Layers => {
                self.focus = Focus::Tree;
                self.reveal();
            }
            KeyCode::Enter => return self.enter(),
            KeyCode::Right => self.open(true),
            KeyCode::Left => self.open(false),
            _ => {}
        }
        Vec::new()
    }

    fn letter(&mut self, letter: char) -> Vec<Effect> {
        match letter {
            'q' => return self.quit(),
            '?' => self.overlay = Some(Overlay::Help(0)),
            '/' => self.ask_filter(),
            '[' => return self.layer(Move::Lines(-1)),
            ']' => return self.layer(Move::Lines(1)),
            'h' => self.open(false),
            'l' => self.open(true),
            ' ' => self.fold(),
            '+' | '=' => self.fold_all(true),
            '-' => self.fold_all(false),
            'v' => return self.read(),
            'b' => self.blame(),
            'e' => self.ask_extract(),
            'w' => self.waste(),
            '<' => self.move_edge(false),
            '>' => self.move_edge(true),
            'm' => {
                self.mouse = !self.mouse;
                self.say(if self.mouse { "mouse on" } else { "mouse off" });
                return vec![Effect::Mouse(self.mouse)];
            }
            'o' => {
                self.columns = match self.columns {
                    Columns::Fitting => Columns::All,
                    Columns::All => Columns::Few,
                    Columns::Few => Columns::Fitting,
                }
            }
            _ => return self.view_letter(letter),
        }
        Vec::new()
    }

    /// Letters that lead to another view.
    fn view_letter(&mut self, letter: char) -> Vec<Effect> {
        let selected = self.layers.selected;
        match letter {
            'c' if self.image.is_some() => {
                return self.compare_with(self.marked.is_none().then_some(selected));
            }
            't' if self.marked.is_some() => return self.compare_with(None),
            't' => self.whole = !self.whole,
            's' => {
                self.sort = match self.sort {
                    Sort::Name => Sort::Size,
                    Sort::Size => Sort::Name,
                }
            }
            '1' => self.kinds.added = !self.kinds.added,
            '2' => self.kinds.changed = !self.kinds.changed,
            '3' => self.kinds.removed = !self.kinds.removed,
            '4' => self.kinds.unchanged = !self.kinds.unchanged,
            _ => return Vec::new(),
        }
        self.build()
    }

    fn quit(&mut self) -> Vec<Effect> {
        if self.asked.extraction {
            self.say("still extracting; Ctrl-C leaves it unfinished");
        } else {
            self.end = Some(Ok(()));
        }
        Vec::new()
    }

    /// Moves in the pane that keys are for.
    pub(super) fn go(&mut self, step: Move) -> Vec<Effect> {
        match self.focus {
            Focus::Layers => self.layer(step),
            Focus::Tree => {
                let height = lines(self.areas().tree);
                self.tree.list.go(step, self.tree.len(), height);
                Vec::new()
            }
        }
    }

    /// Moves to another layer.
    fn layer(&mut self, step: Move) -> Vec<Effect> {
        let before = self.layers.selected;
        let height = lines(self.areas().layers);
        self.layers.go(step, self.layer_count(), height);
        if self.layers.selected == before { Vec::new() } else { self.build() }
    }

    /// Compares with a layer, or ends that.
    fn compare_with(&mut self, layer: Option<usize>) -> Vec<Effect> {
        self.marked = layer;
        if layer.is_some() {
            self.focus = Focus::Layers;
            self.say("choose another layer: the tree shows how the two differ");
        }
        self.reveal();
        self.build()
    }

    fn enter(&mut self) -> Vec<Effect> {
        if self.tree.selected().is_some_and(|row| row.is_dir) {
            self.fold();
            return Vec::new();
        }
        self.read()
    }

    /// Opens or closes the selected directory.
    pub(super) fn fold(&mut self) {
        if let Some(image) = &self.image {
            self.tree.toggle(&image.forest);
        }
        self.reveal();
    }

    fn fold_all(&mut self, open: bool) {
        if let Some(image) = &self.image {
            self.tree.set_all_open(&image.forest, open);
        }
        self.reveal();
    }

    /// Opens the selected directory, or closes it or goes to the one around it.
    fn open(&mut self, open: bool) {
        if self.focus == Focus::Layers {
            if open {
                self.focus = Focus::Tree;
            }
            return self.reveal();
        }
        if let Some(image) = &self.image
            && !self.tree.set_open(&image.forest, open)
            && !open
        {
            self.tree.select_parent(&image.forest);
        }
        self.reveal();
    }

    /// Asks for the content of the selected file.
    fn read(&mut self) -> Vec<Effect> {
        let (Some(image), Some(row)) = (&self.image, self.tree.selected()) else {
            return Vec::new();
        };
        let Some(facts) = image.forest.facts(row.place) else { return Vec::new() };
        if !facts.is_file() {
            let kind = crate::inspect::kind_name(facts.kind());
            self.say(match facts.link() {
                b"" => format!("a {kind} has no content to show"),
                link => format!("a link to {}", super::text::shown(link)),
            });
            return Vec::new();
        }
        let place = image.forest.stack().stored(row.place);
        let path = format!("/{}", super::text::shown(image.forest.path(row.id)));
        let size = facts.size();
        let number = self.asked.next();
        self.asked.content = Some(number);
        self.say(format!("reading {path}"));
        vec![Effect::Read(number, (place.layer(), place.row()), path, size)]
    }

    fn move_edge(&mut self, right: bool) {
        let now = left_width(self.size.width, self.split);
        let to = if right { now + EDGE } else { now.saturating_sub(EDGE) };
        self.split = Some(left_width(self.size.width, Some(to)));
    }
}
