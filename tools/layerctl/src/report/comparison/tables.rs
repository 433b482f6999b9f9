//! The tables of the page.

use std::cmp::Reverse;

use maud::{Markup, html};

use super::align::Pair;
use super::{Comparison, trees};
use crate::commands::diff::render::differences;
use crate::commands::diff::report::Change;
use crate::commands::history::StepReport;
use crate::inspect::FileFacts;
use crate::names::short;
use crate::report::colours::Scale;
use crate::report::shell::swatch;
use crate::report::shown_at_most;
use crate::report::tables::{LONGEST, bar, cell, command, largest, path, table};
use crate::report::words::{count, plural, signed};
use crate::units;

/// What may differ besides content, and is worth a reader's look.
const METADATA: [&str; 5] = ["kind", "mode", "owner", "link", "xattrs"];

/// All changes, those with the most bytes first.
pub(super) fn changes(comparison: &Comparison) -> Markup {
    if comparison.changes.is_empty() {
        return html! {
            section id="changes" { h2 { "Changes" } p class="lead" { "A and B show the same files." } }
        };
    }
    let mut changes: Vec<_> = comparison.changes.iter().collect();
    changes.sort_by_key(|change| (Reverse(change.bytes.unsigned_abs()), Reverse(change.written)));
    let row = |change: &&Change| {
        html! {
            tr role="row" {
                td role="cell" class="wide" {
                    (path(&change.path))
                    @let what = differences(change, |what| what != "size");
                    @if !what.is_empty() { span class="faint what" { (shown_at_most(&what, LONGEST)) } }
                }
                td role="cell" class="change" {
                    (swatch(trees::number(change), Scale::Changes)) (change.change)
                }
                (cell("In A", size(change.old.as_ref())))
                (cell("In B", size(change.new.as_ref())))
                (cell("Bytes", signed(change.bytes)))
            }
        }
    };
    html! {
        section id="changes" {
            h2 { "Changes" }
            p class="lead" {
                "Those first that add or free the most bytes. Of several names of one file one carries its bytes."
                @if comparison.summary.links != 0 {
                    " Files that do not differ take " (signed(comparison.summary.links))
                    ", since names of one file on one side are several files on the other."
                }
            }
            (counts(comparison))
            (largest(&["Path", "Change", "In A", "In B", "Bytes"], &changes, "changes", row))
        }
    }
}

/// How many paths differ in what.
fn counts(comparison: &Comparison) -> Markup {
    let mut counts: Vec<_> = comparison.differences.iter().collect();
    counts.sort_by_key(|(what, number)| (Reverse(**number), **what));
    let most = counts.first().map_or(0, |(_, number)| **number);
    let rows = html! {
        @for (what, number) in counts {
            tr role="row" {
                td role="cell" class="kind" { (what) }
                td role="cell" class="fill" { (bar(*number, most)) }
                (cell("Paths", count(*number)))
            }
        }
    };
    html! { @if most > 0 { (table("types", &["Differs in", "", "Paths"], &rows)) } }
}

/// The size of a file, or what else it is.
fn size(facts: Option<&FileFacts>) -> String {
    match facts {
        Some(facts) if facts.kind == "file" => units::size(facts.size),
        Some(facts) => facts.kind.to_owned(),
        None => "–".to_owned(),
    }
}

fn is_metadata(change: &Change) -> bool {
    change.what.iter().any(|what| METADATA.contains(what))
}

/// Whether [`metadata`] has something to show.
pub(super) fn has_metadata(comparison: &Comparison) -> bool {
    comparison.changes.iter().any(is_metadata)
}

/// What differs in more than content.
pub(super) fn metadata(comparison: &Comparison) -> Markup {
    let changes: Vec<_> = comparison.changes.iter().filter(|change| is_metadata(change)).collect();
    if changes.is_empty() {
        return html! {};
    }
    let row = |change: &&Change| {
        let what = differences(change, |what| METADATA.contains(&what));
        html! {
            tr role="row" {
                td role="cell" class="wide" { (path(&change.path)) }
                td role="cell" { (shown_at_most(&what, LONGEST)) }
            }
        }
    };
    html! {
        section id="metadata" {
            h2 { "Metadata" }
            p class="lead" { "Paths that both have, and whose kind, mode, owner, link or attributes differ." }
            (largest(&["Path", "Differs in"], &changes, "paths", row))
        }
    }
}

/// A number of one side.
fn ordinal(at: Option<usize>) -> String {
    at.map_or("–".to_owned(), |at| at.to_string())
}

/// Which side has it, as a class and in words.
fn side(pair: Pair) -> (&'static str, &'static str) {
    match (pair.a, pair.b) {
        (Some(_), Some(_)) => ("both", "both"),
        (Some(_), None) => ("removed", "only A"),
        _ => ("added", "only B"),
    }
}

/// Both stacks of layers.
pub(super) fn layers(comparison: &Comparison) -> Markup {
    let Comparison { a, b, layers, shared, .. } = comparison;
    let of = |pair: Pair| match pair.b {
        Some(number) => b.layers.get(number - 1),
        None => a.layers.get(pair.a? - 1),
    };
    let stored = |pair: Pair| of(pair).map_or(0, |layer| layer.stored);
    let largest = layers.iter().map(|pair| stored(*pair)).max().unwrap_or(0);
    let rows = html! {
        @for pair in layers {
            tr role="row" class=(side(*pair).0) {
                td role="cell" class="ordinal" data-label="A" { (ordinal(pair.a)) }
                td role="cell" class="ordinal" data-label="B" { (ordinal(pair.b)) }
                td role="cell" class="wide" {
                    @if let Some(layer) = of(*pair) {
                        @match &layer.step {
                            Some(step) => (command(&step.created_by)),
                            None => span class="faint" { "not in the history" },
                        }
                        @if let Some(id) = &layer.diff_id { code class="id" title=(id) { (short(id)) } }
                    }
                }
                td role="cell" class="number" data-label="In" { (side(*pair).1) }
                td role="cell" class="number" data-label="Size" {
                    (units::size(stored(*pair))) (bar(stored(*pair), largest))
                }
            }
        }
    };
    html! {
        section id="layers" {
            h2 { "Layers" }
            p class="lead" {
                (plural(shared.layers, "layer", "layers")) " with " (units::size(shared.bytes))
                " in both, by content and order: a store or registry keeps them once."
            }
            (table("layers pairs", &["A", "B", "Step", "In", "Size"], &rows))
        }
    }
}

/// Both histories.
pub(super) fn history(comparison: &Comparison) -> Markup {
    let Comparison { a, b, history, .. } = comparison;
    let differs = history.iter().any(|pair| pair.a.is_none() || pair.b.is_none());
    html! {
        section id="history" {
            h2 { "History" }
            p class="lead" {
                @if differs { "The steps of both builds: + only B has, − only A has." }
                @else { "Both have the same steps." }
            }
            ol class="steps pairs" {
                @for pair in history {
                    @let old = pair.a.and_then(|at| a.history.get(at - 1));
                    @let new = pair.b.and_then(|at| b.history.get(at - 1));
                    @if let Some(step) = new.or(old) { (entry(*pair, step, old, new)) }
                }
            }
        }
    }
}

fn entry(
    pair: Pair,
    step: &StepReport,
    old: Option<&StepReport>,
    new: Option<&StepReport>,
) -> Markup {
    let sign = match (pair.a, pair.b) {
        (Some(_), Some(_)) => "",
        (Some(_), None) => "−",
        _ => "+",
    };
    let layer = match (old, new) {
        _ if step.step.empty => "no layer".to_owned(),
        (Some(old), Some(new)) if old.diff_id != new.diff_id => {
            format!("another layer, {} to {}", units::size(old.size), units::size(new.size))
        }
        _ => units::size(step.size),
    };
    html! {
        li class=(side(pair).0) data-sign=(sign) {
            div class="what" {
                @if step.step.created_by.is_empty() { span class="faint" { "not in the history" } }
                @else { (command(&step.step.created_by)) }
            }
            p class="meta" { span { (layer) } }
        }
    }
}
