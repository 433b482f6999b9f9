//! What the mouse does: a click selects, a click on what is selected opens, the wheel scrolls.

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use super::app::{App, Effect, Focus};
use super::layout::lines;
use super::list::Move;

/// How many lines one step of the wheel is.
const WHEEL: isize = 3;

impl App {
    /// Takes a movement of the mouse.
    pub(super) fn mouse_event(&mut self, mouse: MouseEvent) -> Vec<Effect> {
        let at = Position::new(mouse.column, mouse.row);
        match mouse.kind {
            MouseEventKind::ScrollUp => self.wheel(at, -WHEEL),
            MouseEventKind::ScrollDown => self.wheel(at, WHEEL),
            MouseEventKind::Down(MouseButton::Left) => self.click(at),
            _ => Vec::new(),
        }
    }

    fn wheel(&mut self, at: Position, by: isize) -> Vec<Effect> {
        if self.overlay.is_some() {
            self.overlay_go(Move::Lines(by));
            return Vec::new();
        }
        let areas = self.areas();
        if areas.tree.contains(at) {
            self.tree.list.scroll(by, self.tree.len(), lines(areas.tree));
        } else if areas.layers.contains(at) {
            let (before, count) = (self.layers.selected, self.layer_count());
            self.layers.scroll(by, count, lines(areas.layers));
            if self.layers.selected != before {
                return self.build();
            }
        }
        Vec::new()
    }

    fn click(&mut self, at: Position) -> Vec<Effect> {
        if self.overlay.is_some() {
            if !self.overlay_area().contains(at) {
                self.overlay = None;
            }
            return Vec::new();
        }
        let areas = self.areas();
        if areas.tree.contains(at) {
            let focused = std::mem::replace(&mut self.focus, Focus::Tree) == Focus::Tree;
            let Some(line) = line_at(areas.tree, at) else { return Vec::new() };
            let line = self.tree.list.top + line;
            if line >= self.tree.len() {
                return Vec::new();
            }
            let again = std::mem::replace(&mut self.tree.list.selected, line) == line;
            if again && focused && self.tree.selected().is_some_and(|row| row.is_dir) {
                self.fold();
            }
        } else if areas.layers.contains(at) {
            self.focus = Focus::Layers;
            let Some(line) = line_at(areas.layers, at) else { return Vec::new() };
            let line = self.layers.top + line;
            if line < self.layer_count() && line != self.layers.selected {
                self.layers.selected = line;
                return self.build();
            }
        }
        Vec::new()
    }
}

/// Which line of a pane is hit, below its frame and heading.
fn line_at(area: Rect, at: Position) -> Option<usize> {
    let line = usize::from(at.y).checked_sub(usize::from(area.y) + 2)?;
    (line < lines(area)).then_some(line)
}
