//! The map as SVG: what a browser without scripts shows, and what is printed.

use maud::{Markup, html};

use super::colours::Scale;
use super::layout::{Rect, squarify};
use super::sizes::{Kind, Node};
use super::words::plural;
use crate::explore::cut;
use crate::units;

/// The size of the picture, in its own units; it is scaled to the page.
const WIDE: f64 = 1180.0;
const HIGH: f64 = 600.0;
/// The height of a directory's heading.
const HEADING: f64 = 17.0;
/// The border within a directory.
const BORDER: f64 = 2.0;
/// The smallest directory whose inside is drawn.
const OPEN_WIDE: f64 = 64.0;
const OPEN_HIGH: f64 = 48.0;
/// How many directories are drawn within each other, and how many where there is much room.
const DEEP: usize = 3;
const DEEPEST: usize = 6;
const ROOM: f64 = 30_000.0;
/// The smallest rectangle that is drawn.
const SMALLEST: f64 = 2.0;
/// What a character is reckoned to take.
const CHARACTER: f64 = 6.6;

/// The words for the numbers of [`Scale::Changes`].
pub(super) const CHANGES: [&str; 3] = ["added", "changed", "removed"];

/// A rectangle of the picture.
struct Tile<'a> {
    rect: Rect,
    node: &'a Node,
    path: String,
    open: bool,
}

/// Draws a tree.
pub(super) fn svg(root: &Node, scale: Scale, label: &str) -> Markup {
    let mut tiles = Vec::new();
    let all = Rect { x: 0.0, y: 0.0, width: WIDE, height: HIGH };
    let path = if root.name == "/" { "" } else { "Layer " };
    tile(root, all, path, 1, &mut tiles);
    html! {
        svg class="map" viewBox=(format!("0 0 {WIDE} {HIGH}")) role="img" aria-label=(label) {
            @for tile in &tiles { (draw(tile, scale)) }
        }
    }
}

/// Lays out what is in a directory.
fn tile<'a>(dir: &'a Node, within: Rect, path: &str, depth: usize, tiles: &mut Vec<Tile<'a>>) {
    let weights: Vec<u64> = dir.children.iter().map(|node| node.bytes).collect();
    for (node, rect) in dir.children.iter().zip(squarify(&weights, within)) {
        if rect.width < SMALLEST || rect.height < SMALLEST {
            continue;
        }
        let path = match (path, node.kind) {
            (_, Kind::Rest) => path.to_owned(),
            ("Layer ", _) => format!("{path}{}", node.name),
            _ => format!("{path}/{}", node.name),
        };
        let fits = rect.width >= OPEN_WIDE && rect.height >= OPEN_HIGH;
        let deepest = if rect.width * rect.height >= ROOM { DEEPEST } else { DEEP };
        let open = fits && depth < deepest && !node.children.is_empty();
        tiles.push(Tile { rect, node, path: path.clone(), open });
        if open {
            tile(node, rect.inside(BORDER, HEADING), &path, depth + 1, tiles);
        }
    }
}

fn draw(tile: &Tile<'_>, scale: Scale) -> Markup {
    let Tile { rect, node, path, open } = tile;
    let colour = scale.colour(node.layer);
    let class = match (open, node.kind) {
        (true, _) => "frame",
        (_, Kind::Rest) => "rest",
        _ => "tile",
    };
    let plain = class == "tile";
    let middle = if *open { 12.5 } else { 14.0 };
    html! {
        g class=(class) {
            title { (title(node, path, scale)) }
            rect x=(number(rect.x)) y=(number(rect.y)) width=(number(rect.width))
                height=(number(rect.height)) fill=[plain.then_some(&colour.fill)] {}
            @if !open && is_wasted(node) {
                rect class="hatch" x=(number(rect.x)) y=(number(rect.y)) width=(number(rect.width))
                    height=(number(rect.height)) fill="url(#hatch)" {}
            }
            @if let Some(label) = label(node, *rect) {
                text x=(number(rect.x + 5.0)) y=(number(rect.y + middle))
                    fill=[plain.then_some(colour.ink)] { (label) }
            }
            @if !open && rect.height >= 34.0 && rect.width >= 60.0 {
                text class="size" x=(number(rect.x + 5.0)) y=(number(rect.y + 28.0))
                    fill=[plain.then_some(colour.ink)] { (units::size(node.bytes)) }
            }
        }
    }
}

/// Whether all of it, but for what cannot be seen, is wasted.
fn is_wasted(node: &Node) -> bool {
    node.wasted > 0 && node.wasted >= node.bytes - node.bytes / 50
}

/// What a pointer is told.
fn title(node: &Node, path: &str, scale: Scale) -> String {
    let (size, files) = (units::size(node.bytes), plural(node.files, "file", "files"));
    match (node.kind, scale) {
        (Kind::Rest, _) => {
            let path = if path.is_empty() { "/" } else { path };
            format!("{} smaller files in {path}: {size}", node.files)
        }
        (Kind::Dir, Scale::Changes) if node.wasted > 0 => {
            format!("{path}: {size} in {files}, {} of it freed", units::size(node.wasted))
        }
        (Kind::Dir, _) => format!("{path}: {size} in {files}"),
        (kind, Scale::Changes) => {
            let sign = if kind == Kind::Wasted { "−" } else { "+" };
            let what = CHANGES.get(node.layer.saturating_sub(1)).copied().unwrap_or_default();
            format!("{path}: {what}, {sign}{size}")
        }
        (Kind::Wasted, _) => format!("{path}: {size}, wasted, stored by layer {}", node.layer),
        (Kind::File, _) => format!("{path}: {size}, layer {}", node.layer),
    }
}

/// As much of the name as there is room for; none if that would say nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small positive number of characters"
)]
fn label(node: &Node, rect: Rect) -> Option<String> {
    let rest = format!("{} more", node.files);
    let name = if node.kind == Kind::Rest { &rest } else { &node.name };
    let room = ((rect.width - 8.0) / CHARACTER).max(0.0) as usize;
    if rect.height < 16.0 || room < 3 {
        return None;
    }
    Some(cut(name, room)).filter(|label| label != "…")
}

/// A coordinate, a tenth of a unit exact.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: u64) -> Node {
        let name = name.to_owned();
        Node { name, bytes, files: 1, layer: 1, kind: Kind::File, children: Vec::new(), wasted: 0 }
    }

    #[test]
    fn labels_are_cut_to_their_room() {
        for (name, width, expected) in [
            ("short", 100.0, Some("short")),
            ("a name that is long", 60.0, Some("a name…")),
            ("日本語の名前です", 60.0, Some("日本語…")),
            ("x", 20.0, None),
        ] {
            let rect = Rect { width, height: 20.0, ..Rect::default() };
            let found = label(&file(name, 1), rect);
            assert_eq!(found.as_deref(), expected, "{name} on {width}");
        }
        let flat = Rect { width: 100.0, height: 10.0, ..Rect::default() };
        assert_eq!(label(&file("x", 1), flat), None, "no room above and below");
    }

    #[test]
    fn directories_are_drawn_around_what_is_in_them() {
        let dir =
            Node { children: vec![file("f", 3), file("<g>", 1)], kind: Kind::Dir, ..file("d", 4) };
        let root = Node { children: vec![dir], kind: Kind::Dir, ..file("/", 4) };
        let svg = svg(&root, Scale::Layers(1), "sizes").into_string();
        for part in [
            "<g class=\"frame\"><title>/d: 4B in 1 file</title>",
            "<title>/d/f: 3B, layer 1</title>",
            "<title>/d/&lt;g&gt;: 1B, layer 1</title>",
        ] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
    }

    #[test]
    fn coordinates_are_short() {
        for (value, expected) in [(1.0, "1"), (1.25, "1.2"), (0.04, "0"), (10.0, "10")] {
            assert_eq!(number(value), expected, "{value}");
        }
    }
}
