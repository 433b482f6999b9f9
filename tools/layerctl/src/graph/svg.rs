//! The graph as a picture.

use maud::{Markup, PreEscaped, html};

use super::cards::{Card, What, cards};
use super::layout::{Block, Spot, place};
use super::{ContainerNode, Graph, ImageNode, LayerNode};
use crate::explore::cut;
use crate::names::{printable, short};
use crate::units;

const STYLE: &str = include_str!("graph.css");
/// The width of a card, and of the space between two columns.
const WIDTH: u32 = 400;
const BETWEEN: u32 = 56;
/// The space between two cards of a column.
const GAP: u32 = 14;
/// The space around everything, and what the legend takes at the top.
const MARGIN: u32 = 24;
const LEGEND: u32 = 64;
/// The height of a card's heading, of a line and of what is below the last.
const HEADING: u32 = 28;
const LINE: u32 = 19;
const FOOT: u32 = 7;
/// The most lines of a card; what is left out is summed up in one more.
const LINES: usize = 40;
/// The columns that there are for a step and for a name.
const STEP_COLUMNS: usize = 33;
const NAME_COLUMNS: usize = 50;
/// The longest text that a pointer is told.
const TIP: usize = 600;
/// From how many users on a layer has the next colour.
const LEVELS: [usize; 5] = [0, 2, 3, 5, 10];
const LEVEL_NAMES: [&str; 5] = ["1 user", "2", "3 to 4", "5 to 9", "10 and more"];

/// Where the legend has them, each with room for its name.
const LEVEL_PLACES: [u32; 5] = [300, 372, 414, 484, 554];

/// Which colour a layer with so many users has.
pub(super) fn level(users: usize) -> usize {
    LEVELS.iter().rposition(|least| users >= *least).unwrap_or(0)
}

/// A line of a card.
struct Line {
    class: &'static str,
    left: String,
    middle: String,
    right: String,
    tip: String,
}

/// A card with its text.
struct Drawn {
    class: String,
    heading: String,
    right: String,
    tip: String,
    lines: Vec<Line>,
}

/// Draws a graph. The same graph gives the same bytes.
pub(crate) fn svg(graph: &Graph) -> String {
    let (cards, roots) = cards(graph);
    let drawn: Vec<Drawn> = cards.iter().map(|card| draw(&card.what)).collect();
    let blocks: Vec<Block> = cards
        .iter()
        .zip(&drawn)
        .map(|(card, drawn)| Block { height: drawn.height(), children: card.children.clone() })
        .collect();
    let (spots, height) = place(&blocks, &roots, GAP);
    let columns = spots.iter().map(|spot| spot.column + 1).max().unwrap_or(1).max(2);
    let width = 2 * MARGIN + columns * WIDTH + (columns - 1) * BETWEEN;
    let height = LEGEND + height + MARGIN;
    let picture = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height)
            viewBox=(format!("0 0 {width} {height}")) role="img" aria-labelledby="title" {
            title id="title" { (summary(graph)) }
            style { (PreEscaped(STYLE)) }
            rect class="page" width=(width) height=(height) {}
            (legend(graph))
            g class="edges" { @for (at, card) in cards.iter().enumerate() { (edges(card, at, &spots)) } }
            @for (drawn, spot) in drawn.iter().zip(&spots) { (card(drawn, *spot)) }
        }
    };
    picture.into_string() + "\n"
}

fn plural(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn summary(graph: &Graph) -> String {
    let size: u64 = graph.layers.iter().map(|layer| layer.size).sum();
    let shared = graph.layers.iter().filter(|layer| layer.users > 1).count();
    format!(
        "{}, {}, {shared} of them shared; {}, {}",
        plural(graph.layers.len(), "layer", "layers"),
        units::size(size),
        plural(graph.images.len(), "image", "images"),
        plural(graph.containers.len(), "container", "containers"),
    )
}

fn legend(graph: &Graph) -> Markup {
    html! {
        text class="summary" x=(MARGIN) y="26" { (summary(graph)) }
        g class="legend" {
            text x=(MARGIN) y="48" { "Images and containers that have a layer:" }
            @for (at, name) in LEVEL_NAMES.iter().enumerate() {
                @let x = LEVEL_PLACES[at];
                rect class=(format!("card u{at}")) x=(x) y="38" width="13" height="13" rx="3" {}
                text x=(x + 19) y="48" { (name) }
            }
        }
    }
}

fn corner(spot: Spot) -> (u32, u32) {
    (MARGIN + spot.column * (WIDTH + BETWEEN), LEGEND + spot.top)
}

/// Lines from the heading of a card to those of its children, along one trunk.
fn edges(card: &Card<'_>, at: usize, spots: &[Spot]) -> Markup {
    let (x, y) = corner(spots[at]);
    let (from, level) = (x + WIDTH, y + HEADING / 2);
    let trunk = from + BETWEEN / 2;
    html! {
        @for child in &card.children {
            @let (to, top) = corner(spots[*child]);
            @let end = top + HEADING / 2;
            @let path = match end > level + 8 {
                true => format!(
                    "M{from} {level}H{}Q{trunk} {level} {trunk} {}V{}Q{trunk} {end} {} {end}H{to}",
                    trunk - 8, level + 8, end - 8, trunk + 8
                ),
                false => format!("M{from} {level}L{to} {end}"),
            };
            path d=(path) {}
        }
    }
}

impl Drawn {
    fn height(&self) -> u32 {
        HEADING + LINE * u32::try_from(self.lines.len()).unwrap_or(0) + FOOT
    }
}

fn card(card: &Drawn, spot: Spot) -> Markup {
    let (x, y) = corner(spot);
    let middle = x + 106;
    html! {
        g {
            title { (card.tip) }
            rect class=(card.class) x=(x) y=(y) width=(WIDTH) height=(card.height()) rx="7" {}
            text class="heading" x=(x + 12) y=(y + 19) { (card.heading) }
            text class="right" x=(x + WIDTH - 12) y=(y + 19) { (card.right) }
            @for (at, line) in card.lines.iter().enumerate() {
                @let y = y + HEADING + LINE * u32::try_from(at).unwrap_or(0) + 13;
                g class=(line.class) {
                    @if !line.tip.is_empty() { title { (line.tip) } }
                    text class="left" x=(x + 12) y=(y) { (line.left) }
                    @if !line.middle.is_empty() { text x=(middle) y=(y) { (line.middle) } }
                    @if !line.right.is_empty() {
                        text class="right" x=(x + WIDTH - 12) y=(y) { (line.right) }
                    }
                }
            }
        }
    }
}

fn draw(what: &What<'_>) -> Drawn {
    match what {
        What::Layers(layers) => stack(layers),
        What::Image(image, containers) => image_card(image, containers),
    }
}

fn stack(layers: &[&LayerNode]) -> Drawn {
    let size = |layers: &[&LayerNode]| units::size(layers.iter().map(|layer| layer.size).sum());
    let users = layers.iter().map(|layer| layer.users).min().unwrap_or(0);
    // One line more is no longer than to say that one is left out.
    let whole = if layers.len() <= LINES + 1 { layers.len() } else { LINES };
    let (shown, rest) = layers.split_at(whole);
    let mut lines: Vec<Line> = shown.iter().map(|layer| layer_line(layer)).collect();
    if !rest.is_empty() {
        let middle = format!("and {} more layers", rest.len());
        let (left, tip) = (String::new(), String::new());
        lines.push(Line { class: "more", left, middle, right: size(rest), tip });
    }
    let count = plural(layers.len(), "layer", "layers");
    let used = plural(users, "user", "users");
    Drawn {
        class: format!("card u{}", level(users)),
        tip: format!("{count}, {}, {used}", size(layers)),
        heading: format!("{count}, {used}"),
        right: size(layers),
        lines,
    }
}

fn layer_line(layer: &LayerNode) -> Line {
    let step = printable(layer.step.as_deref().unwrap_or_default());
    Line {
        class: "layer",
        left: printable(short(&layer.diff_id)),
        middle: cut(&step, STEP_COLUMNS),
        right: units::size(layer.size),
        tip: crate::names::cut(
            &format!(
                "{}\n{}, {}\n{step}",
                printable(&layer.diff_id),
                units::size(layer.size),
                plural(layer.users, "user", "users")
            ),
            TIP,
        ),
    }
}

fn image_card(image: &ImageNode, containers: &[&ContainerNode]) -> Drawn {
    let mut lines = Vec::new();
    let line = |class, left: String| Line {
        class,
        left,
        middle: String::new(),
        right: String::new(),
        tip: String::new(),
    };
    let few = |count: usize| if count <= LINES + 1 { count } else { LINES };
    let others = image.names.iter().skip(1);
    for name in others.clone().take(few(others.len())) {
        lines.push(line("name", cut(&printable(name), NAME_COLUMNS)));
    }
    lines.push(line("id", short(&image.id).to_owned()));
    for container in &containers[..few(containers.len())] {
        let name = cut(&printable(&container.name), NAME_COLUMNS - 14);
        let left = format!("▸ {name}");
        lines.push(Line { right: container.state.clone(), ..line("container", left) });
    }
    if few(containers.len()) < containers.len() {
        lines.push(line("more", format!("and {} more containers", containers.len() - LINES)));
    }
    Drawn {
        class: "card image".to_owned(),
        heading: cut(&printable(image.called()), NAME_COLUMNS - 8),
        right: units::size(image.size),
        tip: crate::names::cut(&format!("{}\n{}", printable(image.called()), image.id), TIP),
        lines,
    }
}
