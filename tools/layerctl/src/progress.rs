//! The progress of an import on standard error: a bar a layer on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use layerd_api::{Client, ImageSummary, ImportEvent, ImportRequest};

use crate::exit::tell;
use crate::names::{printable, short};

/// Imports and shows how it goes; gives the images that are in the store now.
pub(crate) fn import(
    client: &Client,
    request: &ImportRequest,
) -> anyhow::Result<Vec<ImageSummary>> {
    let mut view = View::new();
    let mut images = Vec::new();
    for event in client.import(request)? {
        match event? {
            ImportEvent::Image { id, layers, .. } => view.image(&id, layers),
            ImportEvent::Layer { index, diff_id, read, total, state } => {
                view.layer(index, diff_id.as_deref(), read, total, &state);
            }
            ImportEvent::Done { image, .. } => {
                view.done();
                images.push(image);
            }
            ImportEvent::Error(error) => {
                return Err(anyhow::Error::msg(printable(&error.message)));
            }
        }
    }
    anyhow::ensure!(!images.is_empty(), "the daemon gave up the import without saying why");
    Ok(images)
}

enum View {
    Bars { all: MultiProgress, layers: BTreeMap<usize, ProgressBar> },
    Lines { count: usize },
}

impl View {
    fn new() -> Self {
        if io::stderr().is_terminal() {
            Self::Bars { all: MultiProgress::new(), layers: BTreeMap::new() }
        } else {
            Self::Lines { count: 0 }
        }
    }

    fn image(&mut self, id: &str, layers: usize) {
        match self {
            Self::Bars { layers: bars, .. } => bars.clear(),
            Self::Lines { count } => {
                *count = layers;
                tell(&format!("image {} of {layers} layers", short(id)));
            }
        }
    }

    fn layer(&mut self, index: usize, diff: Option<&str>, read: u64, total: u64, state: &str) {
        let name = diff.map_or("", short);
        match self {
            Self::Bars { all, layers } => {
                let bar = layers.entry(index).or_insert_with(|| {
                    let bar = all.add(ProgressBar::new(total).with_style(style()));
                    bar.set_prefix(printable(name));
                    bar
                });
                bar.set_length(total);
                bar.set_position(read);
                bar.set_message(printable(state));
                if state != "applying" {
                    bar.abandon();
                }
            }
            Self::Lines { count } => {
                if state != "applying" {
                    let layer = lines_name(index, *count, name);
                    tell(&format!("{layer}: {}", printable(state)));
                }
            }
        }
    }

    fn done(&mut self) {
        if let Self::Bars { layers, .. } = self {
            for bar in layers.values() {
                bar.abandon();
            }
        }
    }
}

/// A layer's place and name; a root file system's layer comes before its image and has no name.
fn lines_name(index: usize, count: usize, name: &str) -> String {
    match (count, name) {
        (0, "") => format!("layer {}", index + 1),
        (0, name) => format!("layer {} {}", index + 1, printable(name)),
        (count, "") => format!("layer {}/{count}", index + 1),
        (count, name) => format!("layer {}/{count} {}", index + 1, printable(name)),
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix:12}  {msg:8}  [{bar:40}] {decimal_bytes}/{decimal_total_bytes}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ")
}
