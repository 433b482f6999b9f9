//! The list of layers.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget as _;

use super::{Theme, below_heading, pane, scroll_bar};
use crate::explore::app::{App, Focus};
use crate::explore::text::{cut, fit};
use crate::units;

/// The columns of a size: `1.24GB`.
const SIZE: usize = 6;

/// Draws the list into an area.
pub(super) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let focused = app.has_focus(Focus::Layers);
    let title = Line::from(Span::styled(" Layers ", theme.title(focused)));
    let inner = pane(title, focused, theme, area, buffer);
    let (heading, list) = below_heading(inner);
    let number = app.layer_count().to_string().len().max(2);
    let columns = |mark: &str, at: &str, size: &str, wasted: &str, step: &str| {
        format!("{mark}{at:>number$} {size:>SIZE$} {wasted:>SIZE$}  {step}")
    };
    let line = columns(" ", "#", "SIZE", "WASTED", "STEP");
    Line::styled(cut(&line, inner.width.into()), theme.faint()).render(heading, buffer);
    let Some(header) = &app.header else { return };
    // Once read, layers are known better.
    let layers = app.image.as_ref().map_or(&header.layers, |image| &image.layers);
    let rows = layers.iter().enumerate().skip(app.layers.top);
    for ((at, layer), y) in rows.zip(list.y..list.bottom()) {
        let selected = at == app.layers.selected;
        let mark = match app.marked {
            Some(marked) if marked == at => "*",
            _ if selected => "›",
            _ => " ",
        };
        let size = |bytes: Option<u64>, none: &str| match bytes {
            None => "…".to_owned(),
            Some(0) => none.to_owned(),
            Some(bytes) => units::size(bytes),
        };
        let size_text = size(layer.sums.map(|sums| sums.bytes), "0B");
        let wasted = size(layer.sums.map(|sums| sums.wasted), "-");
        let step = if layer.step.is_empty() { header.kind } else { &layer.step };
        let text = columns(mark, &(at + 1).to_string(), &size_text, &wasted, step);
        let line = Rect { y, height: 1, ..list };
        let text = fit(&text, line.width.into());
        buffer.set_string(line.x, y, text, ratatui::style::Style::new());
        if layer.sums.is_some_and(|sums| sums.wasted > 0) {
            let start = line.x + u16::try_from(number + SIZE + 3).unwrap_or_default();
            let width = u16::try_from(SIZE).unwrap_or_default();
            buffer.set_style(Rect { x: start, width, ..line }.intersection(line), theme.warn());
        }
        if selected {
            buffer.set_style(line, theme.selected(focused));
        }
    }
    scroll_bar(list, app.layers.top, layers.len(), theme, buffer);
}
