//! What all pages are made in: one file that loads nothing, with its style, its script and what that is given.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cow::digest::Digest;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;

use super::colours::Scale;
use super::map;
use super::sizes::Node;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// An empty picture, so that a browser asks nobody for one.
const NO_ICON: &str = "data:,";

/// One view of the map.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// Its name, which the page's script knows.
    pub(super) id: &'static str,
    /// What its button says.
    pub(super) name: &'static str,
    /// What it shows.
    pub(super) lead: &'static str,
    /// What is said where it shows nothing.
    pub(super) none: &'static str,
    /// The sizes.
    pub(super) tree: &'a Node,
}

/// What the script gets.
#[derive(Debug, Serialize)]
struct Data<'a> {
    /// For each number of the scale a fill and the colour of text on it.
    colours: Vec<(String, &'static str)>,
    /// The words for these numbers, if they are not layers.
    words: Option<[&'static str; 3]>,
    views: Vec<(&'static str, &'a Node)>,
}

/// Writes a page. The same parts give the same bytes.
pub(super) fn document(
    title: &str,
    header: &Markup,
    main: &Markup,
    scale: Scale,
    views: &[View<'_>],
) -> anyhow::Result<String> {
    let data = Data {
        colours: scale.all(),
        words: (scale == Scale::Changes).then_some(map::CHANGES),
        views: views.iter().map(|view| (view.id, view.tree)).collect(),
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
                title { (title) }
                link rel="icon" href=(NO_ICON);
                style { (PreEscaped(STYLE)) }
            }
            body {
                (hatch())
                header { (header) }
                main { (main) }
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

/// The map: a picture of each view, which the script puts one map in the place of. `lead` is for those.
pub(super) fn maps(lead: &str, views: &[View<'_>], scale: Scale, legend: &Markup) -> Markup {
    html! {
        section id="map" {
            div class="head" {
                h2 { "Map" }
                div class="switch" id="switch" role="group" aria-label="Show" hidden {
                    @for (at, view) in views.iter().enumerate() {
                        button type="button" data-view=(view.id) data-lead=(view.lead) data-none=(view.none)
                            aria-pressed=(if at == 0 { "true" } else { "false" }) { (view.name) }
                    }
                }
            }
            p class="lead" id="lead" { (lead) }
            nav id="crumbs" class="crumbs" aria-label="Place in the map" hidden {}
            div id="explorer" class="explorer" hidden {
                div id="canvas" class="canvas" {}
                div class="side" { ol id="list" class="list" aria-label="What is in it" {} }
            }
            p id="hint" class="hint" aria-live="polite" hidden {}
            div id="pictures" {
                @for view in views.iter().filter(|view| view.tree.bytes > 0) {
                    figure {
                        figcaption { (view.name) }
                        (map::svg(view.tree, scale, view.lead))
                    }
                }
            }
            (legend)
        }
    }
}

/// A square in the colour of a number.
pub(super) fn swatch(number: usize, scale: Scale) -> Markup {
    html! {
        svg class="swatch" width="12" height="12" aria-hidden="true" {
            rect width="12" height="12" fill=(scale.colour(number).fill) {}
        }
    }
}

/// A hatched square.
pub(super) fn hatched() -> Markup {
    html! {
        svg class="swatch" width="12" height="12" aria-hidden="true" {
            rect class="under" width="12" height="12" {}
            rect width="12" height="12" fill="url(#hatch)" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
