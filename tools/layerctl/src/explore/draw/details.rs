//! What is known of the selected layer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Theme, pane};
use crate::explore::app::App;
use crate::explore::image::{LayerFacts, efficiency};
use crate::explore::text::{cut, wrap};
use crate::units;

/// The columns of a label.
const LABEL: usize = 11;

/// Draws the details into an area.
pub(super) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let number = app.layers.selected + 1;
    let title = Line::from(Span::styled(format!(" Layer {number} "), theme.title(false)));
    let inner = pane(title, false, theme, area, buffer);
    let layers = app.image.as_ref().map(|image| &image.layers);
    let layers = layers.or(app.header.as_ref().map(|header| &header.layers));
    let Some(layer) = layers.and_then(|layers| layers.get(app.layers.selected)) else { return };
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    let mut y = inner.y;
    for (label, text) in facts(layer) {
        let room = usize::from(inner.width).saturating_sub(LABEL);
        let left = usize::from(inner.bottom().saturating_sub(y));
        let mut lines = wrap(&text, room);
        if lines.len() > left {
            lines.truncate(left);
            if let Some(last) = lines.last_mut() {
                *last = cut(&format!("{last} …………"), room);
                *last = format!("{}…", last.trim_end_matches(['…', ' ']));
            }
        }
        for (at, part) in lines.into_iter().enumerate() {
            if at == 0 {
                buffer.set_string(inner.x, y, label, theme.faint());
            }
            let x = inner.x + u16::try_from(LABEL).unwrap_or_default();
            buffer.set_stringn(x, y, cut(&part, room), room, Style::new());
            y += 1;
        }
    }
}

fn facts(layer: &LayerFacts) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(sums) = layer.sums {
        let seen = efficiency(sums.bytes, sums.wasted);
        let wasted = match sums.wasted {
            0 => "nothing".to_owned(),
            bytes => units::size(bytes),
        };
        facts.push(("Size", units::size(sums.bytes)));
        facts.push(("Wasted", wasted));
        facts.push(("Efficiency", percent(seen)));
        facts.push(("Files", counts(sums.counts)));
    }
    if !layer.step.is_empty() {
        facts.push(("Step", layer.step.clone()));
    }
    let disk = layer.on_disk.map(units::size);
    match (disk, layer.kept.as_str()) {
        (Some(disk), "") => facts.push(("On disk", disk)),
        (Some(disk), kept) => facts.push(("On disk", format!("{disk}, {kept}"))),
        (None, _) => {}
    }
    if layer.created.is_some() {
        facts.push(("Made", units::ago(layer.created.as_deref())));
    }
    for (label, id) in [("DiffID", &layer.diff_id), ("ChainID", &layer.chain_id)] {
        if let Some(id) = id {
            facts.push((label, id.clone()));
        }
    }
    facts
}

/// `3 files, 2 directories, 1 other, 1 deletion`: only what there is.
fn counts(counts: cow::index::Counts) -> String {
    let several = [
        (counts.files, "file", "files"),
        (counts.dirs, "directory", "directories"),
        (counts.others, "other", "others"),
        (counts.whiteouts, "deletion", "deletions"),
    ];
    let parts = several.iter().filter(|(count, ..)| *count > 0);
    let words =
        parts.map(|(count, one, more)| format!("{count} {}", if *count == 1 { one } else { more }));
    let words: Vec<_> = words.collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// Thousandths as people write them.
pub(super) fn percent(thousandths: u64) -> String {
    match (thousandths / 10, thousandths % 10) {
        (whole, 0) => format!("{whole}%"),
        (whole, tenth) => format!("{whole}.{tenth}%"),
    }
}
