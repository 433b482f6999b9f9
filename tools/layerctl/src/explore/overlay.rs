//! What covers the panes: help, a file's content, its history, wasted files.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Size;

use super::app::{App, Effect, Focus};
use super::forest::Id;
use super::keys;
use super::layout;
use super::list::{List, Move, moved};
use super::pager::Pager;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) enum Overlay {
    /// The keys; the first line on the screen.
    Help(usize),
    /// The content of a file.
    Pager(Pager),
    /// The history of a path; the first line on the screen.
    Blame(Id, usize),
    /// Files that nobody sees.
    Waste(List),
}

impl App {
    /// Opens the history of the selected path.
    pub(super) fn blame(&mut self) {
        self.overlay = self.tree.selected().map(|row| Overlay::Blame(row.id, 0));
    }

    /// Opens the list of wasted files.
    pub(super) fn waste(&mut self) {
        match &self.image {
            Some(image) if image.wasted_files.is_empty() => self.say("nothing is wasted"),
            Some(_) => self.overlay = Some(Overlay::Waste(List::default())),
            None => {}
        }
    }

    fn wasted_files(&self) -> usize {
        self.image.as_ref().map_or(0, |image| image.wasted_files.len())
    }

    /// Where the overlay is.
    pub(super) fn overlay_area(&self) -> ratatui::layout::Rect {
        let middle = self.areas().middle;
        let wide = middle.width.saturating_sub(4);
        let needed = |lines: usize, width: u16| Size {
            width: width.min(wide),
            height: u16::try_from(lines).unwrap_or(u16::MAX),
        };
        let needed = match &self.overlay {
            Some(Overlay::Help(_)) => Some(needed(keys::help(wide).len(), keys::HELP_WIDTH)),
            Some(Overlay::Blame(id, _)) => {
                let width = wide.min(100);
                Some(needed(self.history(*id, width.into()).len(), width))
            }
            Some(Overlay::Waste(_)) => Some(needed(self.wasted_files() + 1, wide)),
            _ => None,
        };
        layout::overlay(middle, needed)
    }

    /// How many lines of the overlay are on the screen.
    pub(super) fn overlay_height(&self) -> usize {
        let frame = if matches!(self.overlay, Some(Overlay::Waste(_))) { 3 } else { 2 };
        self.overlay_area().height.saturating_sub(frame).into()
    }

    /// How many lines the overlay has.
    fn overlay_len(&self) -> usize {
        let width = self.overlay_area().width.saturating_sub(4);
        match &self.overlay {
            Some(Overlay::Help(_)) => keys::help(width).len(),
            Some(Overlay::Pager(pager)) => pager.len(),
            Some(Overlay::Blame(id, _)) => self.history(*id, width.into()).len(),
            Some(Overlay::Waste(_)) => self.wasted_files(),
            None => 0,
        }
    }

    /// Takes a key for the overlay.
    pub(super) fn overlay_key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match (key.code, &mut self.overlay) {
            (KeyCode::Esc | KeyCode::Char('q'), _) => self.overlay = None,
            (KeyCode::Char('?'), Some(Overlay::Help(_)))
            | (KeyCode::Char('b'), Some(Overlay::Blame(..)))
            | (KeyCode::Char('w'), Some(Overlay::Waste(_)))
            | (KeyCode::Char('v'), Some(Overlay::Pager(_))) => self.overlay = None,
            (KeyCode::Char('x'), Some(Overlay::Pager(pager))) => pager.switch(),
            (KeyCode::Left | KeyCode::Char('h'), Some(Overlay::Pager(pager))) => pager.side(false),
            (KeyCode::Right | KeyCode::Char('l'), Some(Overlay::Pager(pager))) => pager.side(true),
            (KeyCode::Char('/'), Some(Overlay::Pager(_))) => self.ask_find(),
            (KeyCode::Char('n'), Some(Overlay::Pager(_))) if !control => self.find_again(true),
            (KeyCode::Char('N'), Some(Overlay::Pager(_))) => self.find_again(false),
            (KeyCode::Enter, Some(Overlay::Waste(list))) => {
                let at = list.selected;
                return self.go_to_wasted(at);
            }
            (KeyCode::Char('c'), _) if control => self.end = Some(Ok(())),
            (KeyCode::Char(' '), _) => self.overlay_go(Move::Pages(1)),
            _ => {
                if let Some(step) = keys::movement(key) {
                    self.overlay_go(step);
                }
            }
        }
        Vec::new()
    }

    /// Goes to the next place of what was found in a file, or to the one before.
    fn find_again(&mut self, forward: bool) {
        let height = self.overlay_height();
        let Some(Overlay::Pager(pager)) = &mut self.overlay else { return };
        if pager.found.pattern.is_empty() {
            return self.ask_find();
        }
        let around = pager.find_again(forward, height);
        let text = match (pager.found.len(), around, forward) {
            (0, ..) => format!("not found: {}", super::text::shown(pager.found.pattern.as_bytes())),
            (1, ..) => "there is no other".to_owned(),
            (_, true, true) => "from the beginning again".to_owned(),
            (_, true, false) => "from the end again".to_owned(),
            _ => return,
        };
        self.say(text);
    }

    /// Moves in the overlay.
    pub(super) fn overlay_go(&mut self, step: Move) {
        let (len, height) = (self.overlay_len(), self.overlay_height());
        match &mut self.overlay {
            Some(Overlay::Waste(list)) => list.go(step, len, height),
            Some(Overlay::Pager(pager)) => pager.go(step, height),
            Some(Overlay::Help(top) | Overlay::Blame(_, top)) => {
                let last = len.saturating_sub(height);
                *top = moved(*top, step, last + 1, height);
            }
            None => {}
        }
    }

    /// Keeps the overlay within its lines after the terminal has changed.
    pub(super) fn reveal_overlay(&mut self) {
        self.overlay_go(Move::Lines(0));
    }

    /// Selects a wasted file in the layer that stores it.
    fn go_to_wasted(&mut self, at: usize) -> Vec<Effect> {
        let file = self.image.as_ref().and_then(|image| image.wasted_files.get(at).copied());
        let Some(file) = file else { return Vec::new() };
        self.overlay = None;
        self.focus = Focus::Tree;
        self.layers.selected = file.layer;
        (self.marked, self.whole) = (None, false);
        (self.filter, self.matcher) = Default::default();
        self.kinds = Default::default();
        self.goal = Some(file.id);
        self.reveal();
        self.build()
    }
}
