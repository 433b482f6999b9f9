//! What covers the panes.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget as _};

use super::{Theme, below_heading, pane, scroll_bar};
use crate::explore::app::App;
use crate::explore::image::Image;
use crate::explore::keys;
use crate::explore::list::List;
use crate::explore::overlay::Overlay;
use crate::explore::pager::Pager;
use crate::explore::text::{cut, cut_start, fit, shown, skip};
use crate::explore::view::Change;
use crate::units;

/// Draws the overlay into an area.
pub(super) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    Clear.render(area, buffer);
    let titled = |title: &str, buffer: &mut Buffer| {
        let title = cut(title, usize::from(area.width).saturating_sub(4));
        let title = Line::from(Span::styled(title, theme.title(true)));
        let inner = pane(title, true, theme, area, buffer);
        Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner }
    };
    match &app.overlay {
        Some(Overlay::Help(top)) => {
            let inner = titled(" Keys ", buffer);
            let lines = keys::help(inner.width);
            for (line, y) in lines.iter().skip(*top).zip(inner.y..inner.bottom()) {
                let at = line.char_indices().nth(keys::KEYS_WIDTH).map_or(line.len(), |(at, _)| at);
                let (key, what) = line.split_at(at);
                let spans = vec![Span::styled(key, theme.key()), Span::raw(what)];
                Line::from(spans).render(Rect { y, height: 1, ..inner }, buffer);
            }
            scroll_bar(wider(inner), *top, lines.len(), theme, buffer);
        }
        Some(Overlay::Pager(pager)) => {
            let inner = titled(&pager_title(pager), buffer);
            draw_pager(pager, theme, inner, buffer);
        }
        Some(Overlay::Blame(id, top)) => {
            let inner = titled(" Blame ", buffer);
            let lines = app.history(*id, inner.width.into());
            for ((change, line), y) in lines.iter().skip(*top).zip(inner.y..inner.bottom()) {
                let style = match change {
                    None => Style::new(),
                    // The step of the build.
                    Some(Change::Same) => theme.faint(),
                    Some(change) => theme.change(*change),
                };
                buffer.set_stringn(inner.x, y, line, inner.width.into(), style);
            }
            scroll_bar(wider(inner), *top, lines.len(), theme, buffer);
        }
        Some(Overlay::Waste(list)) => {
            let Some(image) = &app.image else { return };
            let count = image.wasted_files.len();
            let files = if count == 1 { "file" } else { "files" };
            let sum = units::size(image.wasted);
            let inner = titled(&format!(" Wasted: {sum} in {count} {files} "), buffer);
            draw_waste(image, *list, theme, inner, buffer);
        }
        None => {}
    }
}

/// With the column next to the frame, so that a bar lies on the frame.
fn wider(inner: Rect) -> Rect {
    Rect { width: inner.width + 1, ..inner }
}

fn pager_title(pager: &Pager) -> String {
    let size = units::size(pager.size);
    match pager.is_cut() {
        true => format!(" {} · the first {} of {size} ", pager.title, units::size(pager.read())),
        false => format!(" {} · {size} ", pager.title),
    }
}

fn draw_pager(pager: &Pager, theme: Theme, inner: Rect, buffer: &mut Buffer) {
    let len = pager.len();
    for (at, y) in (pager.top..len).zip(inner.y..inner.bottom()) {
        let line = pager.line(at);
        let line = skip(&line, pager.left);
        buffer.set_string(inner.x, y, cut(line, inner.width.into()), Style::new());
        for (columns, current) in pager.marks(at) {
            mark(
                &columns,
                pager.left,
                theme.found(current),
                Rect { y, height: 1, ..inner },
                buffer,
            );
        }
    }
    if pager.size == 0 {
        let line = Line::styled("the file is empty", theme.faint()).centered();
        line.render(Rect { y: inner.y + inner.height / 3, height: 1, ..inner }, buffer);
    }
    let last = (pager.top + usize::from(inner.height)).min(len);
    let unit = if pager.digits { "rows" } else { "lines" };
    let mut text = format!(" {unit} {}-{last} of {len} ", (pager.top + 1).min(last));
    if pager.is_cut() && last == len {
        text = format!(" cut here: the file goes on ·{text}");
    }
    let text = cut(&text, inner.width.into());
    let x = inner.right() - u16::try_from(crate::explore::text::width(&text)).unwrap_or_default();
    buffer.set_string(x, inner.bottom(), text, theme.faint());
    let found = cut(&found_text(pager), usize::from(x.saturating_sub(inner.x)));
    buffer.set_string(inner.x, inner.bottom(), found, theme.faint());
    scroll_bar(wider(inner), pager.top, len, theme, buffer);
}

/// Marks columns of a line that is on the screen from a column on.
fn mark(columns: &Range<usize>, left: usize, style: Style, line: Rect, buffer: &mut Buffer) {
    let room = usize::from(line.width);
    let place =
        |column: usize| u16::try_from(column.saturating_sub(left).min(room)).unwrap_or(line.width);
    let (start, end) = (place(columns.start), place(columns.end));
    buffer.set_style(Rect { x: line.x + start, width: end - start, ..line }, style);
}

/// How many places there are of what is looked for.
fn found_text(pager: &Pager) -> String {
    let pattern = shown(pager.found.pattern.as_bytes());
    match pager.found.current() {
        _ if pattern.is_empty() => String::new(),
        None => format!(" /{pattern}: not found "),
        Some((at, _)) => format!(" /{pattern}: {} of {} ", at + 1, pager.found.len()),
    }
}

fn draw_waste(image: &Image, list: List, theme: Theme, inner: Rect, buffer: &mut Buffer) {
    let (heading, lines) = below_heading(inner);
    let columns = |bytes: &str, layer: &str, why: &str, path: &str| {
        format!("{bytes:>7}  {}{}{path}", fit(layer, 7), fit(why, 23))
    };
    let room = usize::from(inner.width);
    let text = columns("BYTES", "LAYER", "WHY", "FILE");
    Line::styled(cut(&text, room), theme.faint()).render(heading, buffer);
    let files = image.wasted_files.iter().enumerate().skip(list.top);
    for ((at, file), y) in files.zip(lines.y..lines.bottom()) {
        let why = if file.deleted { "deleted" } else { "overwritten" };
        let why = format!("{why} in layer {}", file.hidden_by + 1);
        let path = format!("/{}", shown(image.forest.path(file.id)));
        let layer = (file.layer + 1).to_string();
        let before = columns(&units::size(file.bytes), &layer, &why, "");
        let path = cut_start(&path, room.saturating_sub(before.len()));
        buffer.set_stringn(lines.x, y, format!("{before}{path}"), room, Style::new());
        if at == list.selected {
            buffer.set_style(Rect { y, height: 1, ..lines }, theme.selected(true));
        }
    }
    scroll_bar(wider(lines), list.top, image.wasted_files.len(), theme, buffer);
}
