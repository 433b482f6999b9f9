//! Drawing the state; nothing is decided here, and nothing outlasts a frame.

mod details;
mod layers;
mod overlay;
mod status;
mod theme;
mod tree;

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Rect, Size};
use ratatui::text::Line;
use ratatui::widgets::{Block, BorderType, Widget as _};

pub(super) use theme::Theme;

use super::app::{App, Focus};
use super::layout::LEAST;

/// Draws everything; gives where the cursor stands, if something is being typed.
pub(super) fn draw(app: &App, theme: Theme, buffer: &mut Buffer) -> Option<(u16, u16)> {
    let Size { width, height } = app.size;
    // The terminal has changed since the state was told of its size: that is told next.
    if buffer.area.as_size() != app.size {
        return None;
    }
    if width < LEAST.width || height < LEAST.height {
        too_small(app.size, buffer);
        return None;
    }
    let areas = app.areas();
    status::title(app, theme, areas.title, buffer);
    if areas.layers.width > 0 {
        layers::draw(app, theme, areas.layers, buffer);
    }
    if areas.details.width > 0 {
        details::draw(app, theme, areas.details, buffer);
    }
    if areas.tree.width > 0 {
        tree::draw(app, theme, areas.tree, buffer);
    }
    if app.overlay.is_some() {
        overlay::draw(app, theme, app.overlay_area(), buffer);
    }
    status::draw(app, theme, areas.status, buffer)
}

fn too_small(size: Size, buffer: &mut Buffer) {
    let Size { width, height } = size;
    let needed = format!("please make it {} x {}", LEAST.width, LEAST.height);
    let lines = ["The terminal is too small:", &needed, "(q quits)"];
    let top = height.saturating_sub(3) / 2;
    for (y, line) in (top..height).zip(lines) {
        let line = Line::from(super::text::cut(line, width.into())).alignment(Alignment::Center);
        line.render(Rect::new(0, y, width, 1), buffer);
    }
}

/// The frame of a pane; gives what is inside.
fn pane(title: Line<'_>, focused: bool, theme: Theme, area: Rect, buffer: &mut Buffer) -> Rect {
    let kind = if focused { BorderType::Thick } else { BorderType::Plain };
    let block = Block::bordered().border_type(kind).border_style(theme.frame(focused)).title(title);
    let inner = block.inner(area);
    block.render(area, buffer);
    inner
}

/// The first line of a pane and what is below it.
fn below_heading(inner: Rect) -> (Rect, Rect) {
    let heading = Rect { height: inner.height.min(1), ..inner };
    let y = inner.y + heading.height;
    (heading, Rect { y, height: inner.height - heading.height, ..inner })
}

/// A bar at the right edge of a pane that tells which part of a list is to be seen.
fn scroll_bar(area: Rect, top: usize, len: usize, theme: Theme, buffer: &mut Buffer) {
    let height = usize::from(area.height);
    if len <= height || height == 0 || area.width == 0 {
        return;
    }
    let thumb = (height * height / len).clamp(1, height);
    let most = len - height;
    let from = (top.min(most) * (height - thumb) + most / 2) / most;
    for at in from..from + thumb {
        let y = area.y + u16::try_from(at).unwrap_or_default();
        buffer.set_string(area.right(), y, "█", theme.faint());
    }
}

impl App {
    fn has_focus(&self, pane: Focus) -> bool {
        self.focus == pane && self.overlay.is_none()
    }
}

#[cfg(test)]
mod tests;
