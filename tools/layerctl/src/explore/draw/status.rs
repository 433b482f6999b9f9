//! The lines at the top and at the bottom, and how far reading has come.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget as _;

use super::Theme;
use super::details::percent;
use crate::explore::app::{App, Focus, Reading};
use crate::explore::image::Image;
use crate::explore::line::Line as Typed;
use crate::explore::overlay::Overlay;
use crate::explore::prompt::Prompt;
use crate::explore::text::{cut, fit, shown, width};
use crate::units;

/// The columns of a bar that fills up.
const BAR: u16 = 40;

/// Draws the line at the top: what is looked at, and the sums of it.
pub(super) fn title(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let room = usize::from(area.width);
    let name = app.header.as_ref().map_or("layerctl explore", |header| &header.name);
    let left = cut(&format!(" {name} "), room);
    let mut parts = app.image.as_ref().map(|image| sums(image)).unwrap_or_default();
    // The last says most.
    while !parts.is_empty() && width(&parts.join(" · ")) + 1 + width(&left) > room {
        parts.remove(0);
    }
    let right = format!("{} ", parts.join(" · "));
    let text = format!("{}{right}", fit(&left, room - width(&right).min(room)));
    buffer.set_string(area.x, area.y, cut(&text, room), theme.bar().bold());
}

fn sums(image: &Image) -> Vec<String> {
    let count = image.layers.len();
    let layers = if count == 1 { "layer" } else { "layers" };
    let mut parts = vec![format!("{count} {layers}"), units::size(image.stored)];
    if image.wasted > 0 {
        parts.push(format!("{} wasted", units::size(image.wasted)));
    }
    parts.push(format!("efficiency {}", percent(image.efficiency())));
    parts
}

/// Draws the line at the bottom; gives where the cursor stands, if something is being typed.
pub(super) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) -> Option<(u16, u16)> {
    if let Some(prompt) = &app.prompt {
        return draw_prompt(prompt, theme, area, buffer);
    }
    if let Some(note) = &app.note {
        let style = if note.bad { theme.bad() } else { Style::new() };
        let text = cut(&format!(" {}", note.text), area.width.into());
        buffer.set_string(area.x, area.y, text, style);
        return None;
    }
    let mut room = usize::from(area.width);
    if app.image.is_some() && app.is_loading() {
        let text = format!("comparing contents: {} ", how_far(app.reading, app.layer_count()));
        let text = cut(&text, room / 2);
        room -= width(&text);
        let x = area.x + u16::try_from(room).unwrap_or_default();
        buffer.set_string(x, area.y, text, theme.faint());
    }
    let mut spans = vec![Span::raw(" ")];
    let mut used = 1;
    for (key, what) in hints(app) {
        used += width(key) + width(what) + 3;
        if used > room + 2 {
            break;
        }
        spans.push(Span::styled(*key, theme.key()));
        spans.push(Span::styled(format!(" {what}  "), theme.faint()));
    }
    Line::from(spans).render(area, buffer);
    None
}

/// The keys that matter most where the user is.
fn hints(app: &App) -> &'static [(&'static str, &'static str)] {
    match (&app.overlay, app.focus) {
        (Some(Overlay::Waste(_)), _) => {
            &[("Enter", "go to the file"), ("↑↓", "move"), ("Esc", "close")]
        }
        (Some(Overlay::Pager(_)), _) => &[
            ("↑↓", "scroll"),
            ("←→", "sideways"),
            ("/", "find"),
            ("n N", "next, before"),
            ("x", "text / hexadecimal"),
            ("Esc", "close"),
        ],
        (Some(_), _) => &[("↑↓", "scroll"), ("Esc", "close")],
        _ if app.image.is_none() => &[("q", "quit"), ("?", "keys")],
        (None, Focus::Layers) if app.marked.is_some() => {
            &[("↑↓", "compare with"), ("Tab", "to the tree"), ("Esc", "end"), ("?", "keys")]
        }
        (None, Focus::Layers) => &[
            ("?", "keys"),
            ("q", "quit"),
            ("Tab", "tree"),
            ("t", "changes / all"),
            ("c", "compare"),
            ("/", "find"),
            ("w", "wasted"),
        ],
        (None, Focus::Tree) => &[
            ("?", "keys"),
            ("q", "quit"),
            ("Enter", "open"),
            ("/", "find"),
            ("b", "blame"),
            ("e", "extract"),
            ("t", "changes / all"),
            ("s", "size"),
            ("[ ]", "layer"),
            ("w", "wasted"),
        ],
    }
}

fn draw_prompt(
    prompt: &Prompt,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) -> Option<(u16, u16)> {
    let room = usize::from(area.width);
    let (label, line, hint, bad) = match prompt {
        Prompt::Filter { line, error: Some(error), .. }
        | Prompt::Find { line, error: Some(error), .. } => ("/", line, error.as_str(), true),
        Prompt::Find { line, .. } => ("/", line, "text, ~regex", false),
        Prompt::Filter { line, .. } => ("/", line, "part of a name, *.glob, ~regex", false),
        Prompt::Extract { line, .. } => ("Extract to: ", line, "Enter extracts, Esc leaves", false),
        Prompt::Replace(extraction) => {
            let to = shown(extraction.to.as_os_str().as_encoded_bytes());
            let text = format!(" {to} is there already: replace it? (y/n)");
            buffer.set_string(area.x, area.y, cut(&text, room), theme.warn().bold());
            return None;
        }
    };
    let hint = cut(&format!("  {hint} "), room / 2);
    let style = if bad { theme.bad() } else { theme.faint() };
    let x = area.right() - u16::try_from(width(&hint)).unwrap_or_default();
    buffer.set_string(x, area.y, &hint, style);
    let field = room - width(&hint) - width(label) - 1;
    buffer.set_string(area.x, area.y, label, theme.key());
    let start = area.x + u16::try_from(width(label)).unwrap_or_default();
    let cursor = typed(line, start, area.y, field, buffer);
    Some((cursor, area.y))
}

/// Draws as much of what is typed as there is room for; gives the column of the cursor.
fn typed(line: &Typed, x: u16, y: u16, room: usize, buffer: &mut Buffer) -> u16 {
    let before = width(&line.before_cursor());
    let skipped = (before + 1).saturating_sub(room);
    let text = line.text();
    let text = crate::explore::text::skip(&text, skipped);
    buffer.set_stringn(x, y, text, room, Style::new());
    x + u16::try_from(before - skipped.min(before)).unwrap_or_default()
}

/// Draws how far reading has come, in the middle of an area.
pub(super) fn progress(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let top = area.y + area.height / 3;
    let line = |y: u16, text: String, style: Style, buffer: &mut Buffer| {
        if y < area.bottom() {
            let line = Line::styled(cut(&text, area.width.into()), style).centered();
            line.render(Rect { y, height: 1, ..area }, buffer);
        }
    };
    if app.header.is_none() {
        return line(top, "opening the image".to_owned(), Style::new(), buffer);
    }
    let Reading { read, total, .. } = app.reading;
    line(top, format!("reading {}", how_far(app.reading, app.layer_count())), Style::new(), buffer);
    if let Some(total) = total.filter(|total| *total > 0) {
        let bar = BAR.min(area.width.saturating_sub(4));
        let full =
            usize::try_from(u128::from(read.min(total)) * u128::from(bar) / u128::from(total));
        let full = full.unwrap_or_default();
        let text = format!("{}{}", "█".repeat(full), "░".repeat(usize::from(bar) - full));
        line(top + 2, text, theme.key(), buffer);
        let text = format!("{} of {}", units::size(read.min(total)), units::size(total));
        line(top + 3, text, theme.faint(), buffer);
    }
}

fn how_far(reading: Reading, layers: usize) -> String {
    let layer = format!("layer {} of {layers}", (reading.layer + 1).min(layers));
    match reading.total {
        Some(total) if total > 0 => {
            let part = u128::from(reading.read.min(total)) * 100 / u128::from(total);
            format!("{layer}, {part}%")
        }
        _ => layer,
    }
}
