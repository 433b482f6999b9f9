//! The page about one image.

use maud::{Markup, html};

use super::colours::Scale;
use super::shell::{View, document, hatched, maps, swatch};
use super::words::{count, percent, plural, time};
use super::{Report, shown, tables};
use crate::inspect::Kind;
use crate::units;

/// Writes a report as one file. The same report gives the same bytes.
pub(crate) fn page(report: &Report) -> anyhow::Result<String> {
    let scale = Scale::Layers(report.layers.len());
    let views = [
        View {
            id: "dirs",
            name: "By directory",
            lead: "What a container sees, by directory. Areas are sizes; the colour is the layer that stores most of it.",
            none: "A container sees no content of files.",
            tree: &report.by_dir,
        },
        View {
            id: "layers",
            name: "By layer",
            lead: "What each layer stores, hidden files too. Areas are sizes; hatched is what later layers overwrite or delete.",
            none: "No layer stores content of files.",
            tree: &report.by_layer,
        },
    ];
    let lead = "What is visible, by directory, and what each layer stores. Areas are sizes; the colour is the layer.";
    let header = html! { (heading(report)) (figures(report)) (contents(report)) };
    let main = html! {
        (maps(lead, &views, scale, &legend(report)))
        (tables::layers(report))
        (tables::wasted(report))
        (tables::duplicates(report))
        (tables::types(report))
        (tables::history(report))
    };
    document(&format!("{} – layers", shown(&report.name)), &header, &main, scale, &views)
}

/// What a kind is called.
pub(super) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "Image",
        Kind::Layer => "Layer and those below it",
        Kind::Container => "Container",
        Kind::Directory => "Directory",
    }
}

fn heading(report: &Report) -> Markup {
    html! {
        p class="kind" { (kind(report.kind)) }
        h1 { (shown(&report.name)) }
        dl class="facts" {
            @if let Some(id) = &report.id {
                div { dt { "ID" } dd { code { (shown(id)) } } }
            }
            @if let Some(created) = &report.created {
                div { dt { "Created" } dd { (time(created)) } }
            }
            @if let Some(platform) = &report.platform {
                div { dt { "Platform" } dd { (shown(platform)) } }
            }
        }
    }
}

fn figures(report: &Report) -> Markup {
    let figure = |name: &str, value: String, note: String| {
        html! { div { dt { (name) } dd { (value) small { (note) } } } }
    };
    let layers = report.layers.len();
    html! {
        dl class="figures" {
            (figure("Size", units::size(report.stored), format!("{} visible", units::size(report.visible))))
            (figure("Layers", layers.to_string(), empty_layers(report)))
            (figure("Files", count(report.files), format!("in {}", plural(report.dirs, "directory", "directories"))))
            (figure("Efficiency", percent(report.efficiency), "of it is visible".to_owned()))
            (figure("Wasted", units::size(report.wasted),
                plural(report.wasted_files.len() as u64, "hidden file", "hidden files")))
            (figure("Duplicate", units::size(report.duplicate),
                plural(report.duplicates.len() as u64, "set of equal files", "sets of equal files")))
        }
    }
}

fn empty_layers(report: &Report) -> String {
    let steps = report.history.iter().filter(|step| !step.step.created_by.is_empty()).count();
    match steps {
        0 => "no history".to_owned(),
        steps => format!("of {}", plural(steps as u64, "build step", "build steps")),
    }
}

fn contents(report: &Report) -> Markup {
    html! {
        nav aria-label="On this page" {
            a href="#map" { "Map" }
            a href="#layers" { "Layers" }
            @if !report.wasted_files.is_empty() { a href="#wasted" { "Wasted" } }
            @if !report.duplicates.is_empty() { a href="#duplicates" { "Duplicates" } }
            @if !report.types.is_empty() { a href="#types" { "File types" } }
            a href="#history" { "History" }
        }
    }
}

/// The most layers that the legend names one by one.
const LEGEND: usize = 12;

fn legend(report: &Report) -> Markup {
    let layers = report.layers.len();
    let scale = Scale::Layers(layers);
    let key = |layer: usize, text: String| {
        html! { li { (swatch(layer, scale)) (text) } }
    };
    html! {
        ul class="legend" aria-label="Colours" {
            @if layers <= LEGEND {
                @for layer in &report.layers { (key(layer.number, format!("Layer {}", layer.number))) }
            } @else {
                li {
                    "Layer 1 "
                    span class="ramp" {
                        @for at in 0..LEGEND { (swatch(1 + at * (layers - 1) / (LEGEND - 1), scale)) }
                    }
                    (layers)
                }
            }
            li { span class="swatch rest" {} "Smaller files" }
            @if report.wasted > 0 {
                li { (hatched()) "Wasted" }
            }
        }
    }
}
