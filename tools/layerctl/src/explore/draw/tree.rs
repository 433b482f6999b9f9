//! The tree: a line a file, as much of it as the pane is high.

use cow::index::Node;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget as _;

use super::theme::letter;
use super::{Theme, below_heading, pane, scroll_bar};
use crate::explore::app::{App, Columns, Focus};
use crate::explore::image::Image;
use crate::explore::layout::lines;
use crate::explore::text::{cut, cut_start, fit, shown, width};
use crate::explore::view::{Change, Row, Show, Sort, View};
use crate::inspect::mode_text;
use crate::units;

/// The columns of a mode: `-rw-r--r--`.
const MODE: usize = 10;
/// The columns of a size: `1.24GB`.
const SIZE: usize = 6;
/// Narrower panes show no mode.
const FOR_MODE: u16 = 36;
/// Narrower panes show no owner.
const FOR_OWNER: u16 = 58;

/// Draws the tree into an area.
pub(super) fn draw(app: &App, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let focused = app.has_focus(Focus::Tree);
    let title = Line::from(Span::styled(title(app), theme.title(focused)));
    let inner = pane(title, focused, theme, area, buffer);
    let Some(image) = &app.image else {
        return super::status::progress(app, theme, inner, buffer);
    };
    let Some(view) = app.tree.view() else { return };
    summary(app, view, theme, area, buffer);
    let (heading, list) = below_heading(inner);
    let height = lines(area);
    let shown: Vec<_> = app.tree.rows(app.tree.list.top).take(height).collect();
    let columns = Shape::of(app.columns, inner.width, image, &shown);
    let text = cut(&columns.heading(), inner.width.into());
    Line::styled(text, theme.faint()).render(heading, buffer);
    if shown.is_empty() {
        let text = nothing(app, view);
        let line = Line::styled(text, theme.faint()).centered();
        return line.render(Rect { y: list.y + list.height / 3, height: 1, ..list }, buffer);
    }
    for ((at, row), y) in shown.iter().enumerate().zip(list.y..list.bottom()) {
        let line = Rect { y, height: 1, ..list };
        let spans = columns.line(app, image, row, theme, inner.width.into());
        Line::from(spans).render(line, buffer);
        if app.tree.list.top + at == app.tree.list.selected {
            buffer.set_style(line, theme.selected(focused));
        }
    }
    scroll_bar(list, app.tree.list.top, app.tree.len(), theme, buffer);
}

fn title(app: &App) -> String {
    match app.shown() {
        _ if app.header.is_none() => " Files ".to_owned(),
        Show::Changes(layer) => format!(" Changes of layer {} ", layer + 1),
        Show::Tree(layer) => format!(" Tree as of layer {} ", layer + 1),
        Show::Compare(a, b) if a == b => format!(" Layer {} and … ", a + 1),
        Show::Compare(a, b) => format!(" From layer {} to {} ", a + 1, b + 1),
    }
}

fn nothing(app: &App, view: &View) -> String {
    match view.spec.show {
        _ if !view.spec.matcher.is_all() => "no such name".to_owned(),
        _ if view.spec.kinds != Default::default() => {
            "nothing of the kinds that are shown".to_owned()
        }
        Show::Compare(a, b) if a == b => "choose another layer to compare with".to_owned(),
        Show::Compare(..) => "no difference".to_owned(),
        Show::Changes(_) if app.layer_count() > 0 => "the layer changes nothing".to_owned(),
        _ => "there are no files".to_owned(),
    }
}

/// How much became what, at the right of the upper edge; filter and order at the lower edge.
fn summary(app: &App, view: &View, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let kinds = app.kinds;
    let whole = matches!(view.spec.show, Show::Tree(_));
    let (unchanged, style) = match whole {
        true => ("unchanged", Change::Same),
        false => ("=", Change::Repeated),
    };
    let counted = [
        (Change::Added, "A", kinds.added),
        (Change::Changed, "C", kinds.changed),
        (Change::Removed, "D", kinds.removed),
        (style, unchanged, kinds.unchanged),
    ];
    let mut spans = vec![Span::raw(" ")];
    for ((change, letter, on), count) in counted.into_iter().zip(view.counts) {
        match (on, count) {
            (false, _) => spans.push(Span::styled(format!("{letter} hidden "), theme.faint())),
            (true, 0) => {}
            (true, count) => {
                spans.push(Span::styled(format!("{letter} {count} "), theme.change(change)));
            }
        }
    }
    let line = Line::from(spans);
    let wide = u16::try_from(line.width()).unwrap_or(u16::MAX);
    let free = area.width.saturating_sub(2 + u16::try_from(width(&title(app))).unwrap_or_default());
    if wide > 1 && wide < free {
        let x = area.right() - 1 - wide;
        line.render(Rect { x, y: area.y, width: wide, height: 1 }, buffer);
    }
    let mut parts = Vec::new();
    if !app.filter.is_empty() {
        let named = if view.hits == 1 { "name" } else { "names" };
        parts.push(format!("/{} · {} {named}", shown(app.filter.as_bytes()), view.hits));
    }
    if view.spec.sort == Sort::Size {
        parts.push("by size".to_owned());
    }
    if app.asked.view.is_some() {
        parts.push("…".to_owned());
    }
    if !parts.is_empty() {
        let room = usize::from(area.width).saturating_sub(4);
        let text = cut(&format!(" {} ", parts.join(" · ")), room);
        buffer.set_string(area.x + 2, area.bottom() - 1, text, theme.title(false));
    }
}

/// Which columns there are, and how wide.
struct Shape {
    mode: bool,
    /// The columns of the widest owner on the screen.
    owner: Option<usize>,
}

impl Shape {
    fn of(columns: Columns, width: u16, image: &Image, rows: &[&Row]) -> Self {
        let owner = || {
            let facts = rows.iter().filter_map(|row| image.forest.facts(row.place));
            facts.map(|facts| owner(&facts).len()).max().unwrap_or(0).max("OWNER".len())
        };
        let (mode, owned) = match columns {
            Columns::Fitting => (width >= FOR_MODE, width >= FOR_OWNER),
            Columns::All => (true, true),
            Columns::Few => (false, false),
        };
        Self { mode, owner: owned.then(owner) }
    }

    fn heading(&self) -> String {
        let mut text = "  ".to_owned();
        if self.mode {
            text.push_str(&fit("MODE", MODE + 1));
        }
        if let Some(owner) = self.owner {
            text.push_str(&fit("OWNER", owner + 1));
        }
        text.push_str(&format!("{:>SIZE$}  NAME", "SIZE"));
        text
    }

    fn line<'l>(
        &self,
        app: &App,
        image: &Image,
        row: &Row,
        theme: Theme,
        room: usize,
    ) -> Vec<Span<'l>> {
        let faint = theme.faint();
        let Some(facts) = image.forest.facts(row.place) else { return Vec::new() };
        let (letter, style) = letter(row, theme);
        let mut spans = vec![Span::styled(format!("{letter} "), style)];
        if self.mode {
            let mode = mode_text(facts.kind(), facts.mode());
            spans.push(Span::styled(format!("{mode} "), faint));
        }
        if let Some(width) = self.owner {
            spans.push(Span::styled(format!("{} ", fit(&owner(&facts), width)), faint));
        }
        let size = match (row.is_dir, facts.is_file(), row.bytes) {
            (true, _, 0) => "-".to_owned(),
            (true, ..) | (_, true, _) => units::size(shown_bytes(row, &facts)),
            _ => "-".to_owned(),
        };
        spans.push(Span::styled(format!("{size:>SIZE$}  "), Style::new()));
        let used: usize = spans.iter().map(Span::width).sum();
        spans.extend(name(app, image, row, &facts, theme, room.saturating_sub(used)));
        spans
    }
}

/// A file's own length; a directory's is that of what is in it. A further name of a file counts
/// nothing, and has its length nonetheless.
fn shown_bytes(row: &Row, facts: &Node<'_>) -> u64 {
    if row.is_dir { row.bytes } else { facts.size() }
}

fn owner(facts: &Node<'_>) -> String {
    format!("{}:{}", facts.uid(), facts.gid())
}

/// The name behind as many steps as there are directories above, then what differs.
fn name<'l>(
    app: &App,
    image: &Image,
    row: &Row,
    facts: &Node<'_>,
    theme: Theme,
    room: usize,
) -> Vec<Span<'l>> {
    let mark = match (row.is_dir, row.is_dir && app.tree.is_open(row, &image.forest)) {
        (true, true) => "▾ ",
        (true, false) => "▸ ",
        (false, _) => "  ",
    };
    let steps = usize::from(image.forest.depth(row.id)) * 2;
    // Deep down, the name is worth more than the depth.
    let steps = steps.min(room / 2);
    let room = room.saturating_sub(steps + 2);
    let name = match image.forest.name(row.id) {
        b"" => "/".to_owned(),
        name => shown(name),
    };
    let style = match (row.change, row.is_dir) {
        (Change::Same, true) => theme.dir(),
        (change, true) => theme.change(change).bold(),
        (change, false) => theme.change(change),
    };
    let name = cut(&name, room);
    let mut left = room - width(&name).min(room);
    let mut spans = vec![
        Span::styled(format!("{}{mark}", " ".repeat(steps)), theme.faint()),
        Span::styled(name, style),
    ];
    let link = facts.link();
    if !link.is_empty() && left > 6 {
        let text = format!(" → {}", cut_start(&shown(link), left - 3));
        left -= width(&text).min(left);
        spans.push(Span::styled(text, theme.faint()));
    }
    let what: Vec<_> = row.what.names().collect();
    if !what.is_empty() && left > 6 {
        spans.push(Span::styled(cut(&format!("  ({})", what.join(", ")), left), theme.faint()));
    }
    spans
}
