//! The page as a whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cow::digest::Digest;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;

use super::sizes::Node;
use super::{Report, colours, map, shown, tables};
use crate::inspect::Kind;
use crate::units;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// An empty picture, so that a browser asks nobody for one.
const NO_ICON: &str = "data:,";

/// What the script gets.
#[derive(Debug, Serialize)]
struct Data<'a> {
    /// For each layer, the lowest first, its fill and the colour of text on it.
    colours: Vec<(String, &'static str)>,
    dirs: &'a Node,
    layers: &'a Node,
}

/// Writes a report as one file. The same report gives the same bytes.
pub(crate) fn page(report: &Report) -> anyhow::Result<String> {
    let layers = report.layers.len();
    let colour = |layer| {
        let colour = colours::of_layer(layer, layers);
        (colour.fill, colour.ink)
    };
    let data = Data {
        colours: (0..layers).map(colour).collect(),
        dirs: &report.by_dir,
        layers: &report.by_layer,
    };
    // Within a string of JSON only, so that the text stays JSON and never ends the element around it.
    let data = serde_json::to_string(&data)?.replace('<', "\\u003c");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta name="generator" content=(concat!("layerctl ", env!("CARGO_PKG_VERSION")));
                title { (shown(&report.name)) " – layers" }
                link rel="icon" href=(NO_ICON);
                style { (PreEscaped(STYLE)) }
            }
            body {
                (hatch())
                header { (heading(report)) (figures(report)) (contents(report)) }
                main {
                    (maps(report))
                    (tables::layers(report))
                    (tables::wasted(report))
                    (tables::duplicates(report))
                    (tables::types(report))
                    (tables::history(report))
                }
                footer {
                    "Made by layerctl " (env!("CARGO_PKG_VERSION"))
                    ". Sizes are bytes of file content in decimal units; a file with several names counts once."
                }
                script type="application/json" id="data" { (PreEscaped(data)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Ok(page.into_string())
}

/// What the page may do: what is written here by this program, and nothing else.
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Digest::of(text.as_bytes()).as_bytes());
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; \
         base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

/// The pattern on what is wasted, for all maps of the page.
fn hatch() -> Markup {
    html! {
        svg class="defs" width="0" height="0" aria-hidden="true" {
            defs {
                pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" {
                    rect width="2.5" height="7" fill="#000000" fill-opacity="0.35" {}
                }
            }
        }
    }
}

fn heading(report: &Report) -> Markup {
    let kind = match report.kind {
        Kind::Image => "Image",
        Kind::Layer => "Layer and those below it",
        Kind::Container => "Container",
        Kind::Directory => "Directory",
    };
    html! {
        p class="kind" { (kind) }
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

/// A time for a person, in UTC; as it was written if it is no time.
pub(super) fn time(text: &str) -> Markup {
    match text.parse::<Timestamp>() {
        Ok(time) => html! {
            time datetime=(shown(text)) { (time.strftime("%Y-%m-%d %H:%M UTC")) }
        },
        Err(_) => html! { (shown(text)) },
    }
}

fn figures(report: &Report) -> Markup {
    let percent = format!("{:.1} %", floor_tenth(report.efficiency * 100.0));
    let figure = |name: &str, value: String, note: String| {
        html! { div { dt { (name) } dd { (value) small { (note) } } } }
    };
    let layers = report.layers.len();
    html! {
        dl class="figures" {
            (figure("Size", units::size(report.stored), format!("{} visible", units::size(report.visible))))
            (figure("Layers", layers.to_string(), empty_layers(report)))
            (figure("Files", count(report.files), format!("in {}", plural(report.dirs, "directory", "directories"))))
            (figure("Efficiency", percent, "of it is visible".to_owned()))
            (figure("Wasted", units::size(report.wasted),
                plural(report.wasted_files.len() as u64, "hidden file", "hidden files")))
            (figure("Duplicate", units::size(report.duplicate),
                plural(report.duplicates.len() as u64, "set of equal files", "sets of equal files")))
        }
    }
}

/// A percentage never rounded up, so that 100 is all.
fn floor_tenth(percent: f64) -> f64 {
    (percent * 10.0 + 1e-9).floor() / 10.0
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

/// Both maps as pictures, which the script puts one map in the place of.
fn maps(report: &Report) -> Markup {
    let layers = report.layers.len();
    html! {
        section id="map" {
            div class="head" {
                h2 { "Map" }
                div class="switch" id="switch" role="group" aria-label="Show" hidden {
                    button type="button" data-view="dirs" aria-pressed="true" { "By directory" }
                    button type="button" data-view="layers" aria-pressed="false" { "By layer" }
                }
            }
            p class="lead" id="lead" {
                "What is visible, by directory, and what each layer stores. Areas are sizes; the colour is the layer."
            }
            nav id="crumbs" class="crumbs" aria-label="Place in the map" hidden {}
            div id="explorer" class="explorer" hidden {
                div id="canvas" class="canvas" {}
                div class="side" { ol id="list" class="list" aria-label="What is in it" {} }
            }
            p id="hint" class="hint" aria-live="polite" hidden {}
            div id="pictures" {
                figure {
                    figcaption { "By directory" }
                    (map::svg(&report.by_dir, layers, "Sizes of visible files by directory"))
                }
                figure {
                    figcaption { "By layer" }
                    (map::svg(&report.by_layer, layers, "Sizes of stored files by layer"))
                }
            }
            (legend(report))
        }
    }
}

/// The most layers that the legend names one by one.
const LEGEND: usize = 12;

fn legend(report: &Report) -> Markup {
    let layers = report.layers.len();
    let key = |layer: usize, text: String| {
        html! { li { (swatch(layer, layers)) (text) } }
    };
    html! {
        ul class="legend" aria-label="Colours" {
            @if layers <= LEGEND {
                @for layer in &report.layers { (key(layer.number, format!("Layer {}", layer.number))) }
            } @else {
                li {
                    "Layer 1 "
                    span class="ramp" {
                        @for at in 0..LEGEND { (swatch(1 + at * (layers - 1) / (LEGEND - 1), layers)) }
                    }
                    (layers)
                }
            }
            li { span class="swatch rest" {} "Smaller files" }
            @if report.wasted > 0 {
                li {
                    svg class="swatch" width="12" height="12" aria-hidden="true" {
                        rect class="under" width="12" height="12" {}
                        rect width="12" height="12" fill="url(#hatch)" {}
                    }
                    "Wasted"
                }
            }
        }
    }
}

/// A square in a layer's colour.
pub(super) fn swatch(layer: usize, layers: usize) -> Markup {
    let colour = colours::of_layer(layer.saturating_sub(1), layers);
    html! {
        svg class="swatch" width="12" height="12" aria-hidden="true" {
            rect width="12" height="12" fill=(colour.fill) {}
        }
    }
}

/// A number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things.
pub(super) fn plural(number: u64, one: &str, several: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), expected);
        }
        assert_eq!(
            (plural(1, "file", "files"), plural(2, "file", "files")),
            ("1 file".to_owned(), "2 files".to_owned())
        );
        for (percent, expected) in [(100.0, 100.0), (99.99, 99.9), (98.2, 98.2), (0.0, 0.0)] {
            assert!((floor_tenth(percent) - expected).abs() < 1e-9, "{percent}");
        }
    }

    #[test]
    fn times_that_are_none_are_shown_as_they_are() {
        for (text, expected) in [
            ("2024-01-02T03:04:05.678Z", ">2024-01-02 03:04 UTC<"),
            ("<yesterday>", "&lt;yesterday&gt;"),
        ] {
            let found = time(text).into_string();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn the_policy_names_the_script_by_its_digest() {
        let policy = policy();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        // Whatever is in an element for a script or a style is raw text up to its end tag.
        assert!(!SCRIPT.contains("</") && !STYLE.contains("</"), "an end tag within");
    }
}
