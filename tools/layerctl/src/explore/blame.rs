//! The history of one path, in words.

use cow::stack::{Change as Done, Origin};

use super::app::App;
use super::forest::Id;
use super::image::LayerFacts;
use super::text::{shown, wrap};
use super::view::Change;

/// By how much the step of a build is moved in.
const STEP: &str = "    ";

/// A line, and what became of the path there.
pub(super) type HistoryLine = (Option<Change>, String);

impl App {
    /// Which layers gave a path what it has, and all that layers did to it, in so many columns.
    pub(super) fn history(&self, id: Id, width: usize) -> Vec<HistoryLine> {
        let Some(image) = &self.image else { return Vec::new() };
        let forest = &image.forest;
        let mut lines = plain(&format!("/{}", shown(forest.path(id))), width);
        lines.push((None, String::new()));
        if let Some(origin) = forest.origin(id, image.layers.len()) {
            for (layer, what) in gifts(&origin) {
                let text = format!("layer {} gave it {}", layer + 1, what.join(", "));
                lines.extend(plain(&text, width));
                lines.extend(step(&image.layers, layer, width));
            }
            if let Some(layer) = origin.deleted {
                lines.push((Some(Change::Removed), format!("layer {} deleted it", layer + 1)));
                lines.extend(step(&image.layers, layer, width));
            }
        }
        lines.push((None, String::new()));
        lines.extend(plain("What the layers did to it, the lowest first:", width));
        for event in forest.events(id) {
            let (change, text) = match event.change {
                Done::Added => (Change::Added, "A  added".to_owned()),
                Done::Modified(what) => {
                    let names: Vec<_> = what.names().collect();
                    (Change::Changed, format!("C  changed: {}", names.join(", ")))
                }
                Done::Repeated => (Change::Repeated, "=  again, without a change".to_owned()),
                Done::Deleted => (Change::Removed, "D  deleted".to_owned()),
            };
            lines.push((Some(change), format!("layer {:<5}{text}", event.layer + 1)));
        }
        lines
    }
}

/// What each layer gave a file, the lowest first.
fn gifts(origin: &Origin) -> Vec<(usize, Vec<&'static str>)> {
    let mut gifts: Vec<(usize, Vec<&str>)> = Vec::new();
    for (what, layer) in [
        ("content", origin.content),
        ("mode", origin.mode),
        ("owner", origin.owner),
        ("xattrs", origin.xattrs),
        ("time", origin.mtime),
    ] {
        match gifts.iter_mut().find(|(giver, _)| *giver == layer) {
            Some((_, gift)) => gift.push(what),
            None => gifts.push((layer, vec![what])),
        }
    }
    gifts.sort_by_key(|(layer, _)| *layer);
    gifts
}

fn plain(text: &str, width: usize) -> Vec<HistoryLine> {
    wrap(text, width).into_iter().map(|line| (None, line)).collect()
}

/// The step of the build that made a layer, if it is known.
fn step(layers: &[LayerFacts], layer: usize, width: usize) -> Vec<HistoryLine> {
    let step = layers.get(layer).map_or("", |layer| &layer.step);
    let lines =
        if step.is_empty() { Vec::new() } else { wrap(step, width.saturating_sub(STEP.len())) };
    lines.into_iter().map(|line| (Some(Change::Same), format!("{STEP}{line}"))).collect()
}
