//! The page as a whole.

use maud::{Markup, html};
use serde_json::Value;

use super::{Comparison, Setting, tables};
use crate::report::colours::Scale;
use crate::report::page::kind;
use crate::report::shell::{View, document, hatched, maps, swatch};
use crate::report::tables::{LONGEST, table};
use crate::report::words::{count, percent, plural, signed, time};
use crate::report::{Report, shown, shown_at_most};
use crate::units;

/// Writes a comparison as one file. The same comparison gives the same bytes.
pub(crate) fn page(comparison: &Comparison) -> anyhow::Result<String> {
    let Comparison { a, b, growth, written, .. } = comparison;
    let scale = Scale::Changes;
    let views = [
        View {
            id: "growth",
            name: "Added and freed",
            lead: "By how many bytes each file has grown or shrunk, by directory; hatched is what is freed.",
            none: "No file has grown or shrunk.",
            tree: growth,
        },
        View {
            id: "written",
            name: "New content",
            lead: "Content that B has and A has not at the same path, by directory: what has to be stored for B besides A.",
            none: "B has no content that A has not.",
            tree: written,
        },
    ];
    let lead = "Areas are bytes; the colour tells what was added, changed and removed, and hatched is what is freed.";
    let header = html! { (heading(a, b)) (figures(comparison)) (contents(comparison)) };
    let main = html! {
        @if growth.bytes > 0 || written.bytes > 0 { (maps(lead, &views, scale, &legend())) }
        (tables::changes(comparison))
        (tables::metadata(comparison))
        (tables::layers(comparison))
        (sides(a, b))
        (settings(&comparison.config))
        (tables::history(comparison))
    };
    let title = format!("{} → {} – differences", shown(&a.name), shown(&b.name));
    document(&title, &header, &main, scale, &views)
}

fn heading(a: &Report, b: &Report) -> Markup {
    html! {
        p class="kind" { "Comparison" }
        h1 class="sides" {
            span { b { "A" } span class="name" { (shown(&a.name)) } }
            span { b { "B" } span class="name" { (shown(&b.name)) } }
        }
    }
}

/// How many more bytes the second of two numbers is.
fn more(a: u64, b: u64) -> i64 {
    let size = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if b >= a { size } else { -size }
}

fn figures(comparison: &Comparison) -> Markup {
    let Comparison { a, b, summary, shared, .. } = comparison;
    let figure = |name: &str, value: String, note: String| {
        html! { div { dt { (name) } dd { (value) small { (note) } } } }
    };
    let paths = |number: u64, text: &str| format!("{} {text}", plural(number, "path", "paths"));
    let content = comparison.differences.get("content").copied().unwrap_or(0);
    let stacks =
        format!("of {} and {}, {}", a.layers.len(), b.layers.len(), units::size(shared.bytes));
    html! {
        dl class="figures" {
            (figure("Size", signed(more(a.visible, b.visible)),
                format!("{} to {}", units::size(a.visible), units::size(b.visible))))
            (figure("Added", units::size(summary.grown), paths(summary.added, "only in B")))
            (figure("Freed", units::size(summary.shrunk), paths(summary.removed, "only in A")))
            (figure("Changed", count(summary.changed), format!("paths, {} in content", count(content))))
            (figure("New content", units::size(summary.written), "to be stored for B".to_owned()))
            (figure("Shared layers", count(shared.layers), stacks))
        }
    }
}

fn contents(comparison: &Comparison) -> Markup {
    let Comparison { growth, written, config, .. } = comparison;
    html! {
        nav aria-label="On this page" {
            @if growth.bytes > 0 || written.bytes > 0 { a href="#map" { "Map" } }
            a href="#changes" { "Changes" }
            @if tables::has_metadata(comparison) { a href="#metadata" { "Metadata" } }
            a href="#layers" { "Layers" }
            a href="#sides" { "Side by side" }
            @if !config.is_empty() { a href="#config" { "Settings" } }
            a href="#history" { "History" }
        }
    }
}

fn legend() -> Markup {
    html! {
        ul class="legend" aria-label="Colours" {
            @for (number, text) in [(1, "Added"), (2, "Changed"), (3, "Removed")] {
                li { (swatch(number, Scale::Changes)) (text) }
            }
            li { (hatched()) "Freed" }
            li { span class="swatch rest" {} "Smaller changes" }
        }
    }
}

/// A row with both sides; `change` says how the second differs.
fn row(name: &str, a: &Markup, b: &Markup, change: &str) -> Markup {
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { (name) }
            td role="cell" data-label="A" { (a) }
            td role="cell" data-label="B" { (b) }
            td role="cell" class="number" data-label="B − A" { (change) }
        }
    }
}

fn sides(a: &Report, b: &Report) -> Markup {
    let text = |name: &str, of: &dyn Fn(&Report) -> Option<Markup>| {
        let side = |report: &Report| of(report).unwrap_or_else(|| html! { "–" });
        let known = of(a).is_some() || of(b).is_some();
        html! { @if known { (row(name, &side(a), &side(b), "")) } }
    };
    let bytes = |name: &str, of: fn(&Report) -> u64| {
        let size = |report: &Report| html! { (units::size(of(report))) };
        row(name, &size(a), &size(b), &signed(more(of(a), of(b))))
    };
    let number = |name: &str, of: fn(&Report) -> u64| {
        let side = |report: &Report| html! { (count(of(report))) };
        let sign = if of(b) < of(a) { "−" } else { "+" };
        let change = match of(a).abs_diff(of(b)) {
            0 => "0".to_owned(),
            change => format!("{sign}{}", count(change)),
        };
        row(name, &side(a), &side(b), &change)
    };
    let efficiency = |report: &Report| html! { (percent(report.efficiency)) };
    let rows = html! {
        (text("Kind", &|report| Some(html! { (kind(report.kind)) })))
        (text("ID", &|report| report.id.as_ref().map(|id| html! { code class="path" { (shown(id)) } })))
        (text("Created", &|report| report.created.as_ref().map(|created| time(created))))
        (text("Platform", &|report| report.platform.as_ref().map(|text| html! { (shown(text)) })))
        (number("Layers", |report| report.layers.len() as u64))
        (bytes("Stored", |report| report.stored))
        (bytes("Visible", |report| report.visible))
        (bytes("Wasted", |report| report.wasted))
        (row("Efficiency", &efficiency(a), &efficiency(b), ""))
        (bytes("Duplicate", |report| report.duplicate))
        (number("Files", |report| report.files))
        (number("Directories", |report| report.dirs))
    };
    html! {
        section id="sides" {
            h2 { "Side by side" }
            p class="lead" {
                "Wasted is what layers store and later ones overwrite or delete; efficiency is the part of all that is stored that is visible."
            }
            (table("sides", &["", "A", "B", "Difference"], &rows))
        }
    }
}

fn settings(settings: &[Setting]) -> Markup {
    if settings.is_empty() {
        return html! {};
    }
    let side = |value: &Option<Value>| match value {
        None => html! { span class="faint" { "none" } },
        Some(Value::String(text)) => html! { code class="path" { (shown_at_most(text, LONGEST)) } },
        Some(value) => html! { code class="path" { (shown_at_most(&value.to_string(), LONGEST)) } },
    };
    let rows = html! {
        @for setting in settings {
            tr role="row" {
                th role="rowheader" scope="row" { (shown_at_most(&setting.name, 80)) }
                td role="cell" data-label="A" { (side(&setting.a)) }
                td role="cell" data-label="B" { (side(&setting.b)) }
            }
        }
    };
    html! {
        section id="config" {
            h2 { "Settings" }
            p class="lead" { "What the images say differently of the containers that are made of them." }
            (table("sides", &["", "A", "B"], &rows))
        }
    }
}
