//! The tables of the page. Each shows as many rows as a reader may take in and says how many more
//! there are; on a narrow screen a row becomes a card, whose cells name their columns.

use maud::{Markup, html};

use super::colours::Scale;
use super::shell::swatch;
use super::words::{count, plural, time};
use super::{Report, shown, shown_at_most};
use crate::commands::history::StepReport;
use crate::inspect::{Duplicate, WastedFile, short_step};
use crate::names::short;
use crate::units;

/// How many wasted files and duplicates are shown, and how many more at a click.
const FIRST: usize = 12;
const MOST: usize = 100;
/// How many of the files with one content are shown, and how many more at a click.
const PATHS: usize = 3;
const MOST_PATHS: usize = 20;
/// How many types of files are shown.
const TYPES: usize = 14;
/// The longest step and path that is shown, in characters.
pub(super) const LONGEST: usize = 2000;

/// A table with these columns; `rows` are its `tr`s.
pub(super) fn table(class: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        table class=(class) role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for column in columns { th role="columnheader" scope="col" { (column) } }
                }
            }
            tbody role="rowgroup" { (rows) }
        }
    }
}

/// A cell with a number, which names its column on a narrow screen.
pub(super) fn cell(column: &str, value: impl maud::Render) -> Markup {
    html! { td role="cell" class="number" data-label=(column) { (value) } }
}

/// A bar as long as a part of a whole.
pub(super) fn bar(part: u64, whole: u64) -> Markup {
    let thousandths = (u128::from(part) * 1000).checked_div(u128::from(whole)).unwrap_or(0);
    html! {
        svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
            rect class="of" width="1000" height="10" {}
            rect width=(thousandths.to_string()) height="10" {}
        }
    }
}

pub(super) fn path(text: &str) -> Markup {
    html! { code class="path" { (shown_at_most(text, LONGEST)) } }
}

/// A table of the largest things, the first of them to be seen at once.
pub(super) fn largest<T>(
    columns: &[&str],
    things: &[T],
    what: &str,
    row: impl Fn(&T) -> Markup,
) -> Markup {
    let rows = |things: &[T]| html! { @for thing in things { (row(thing)) } };
    let shown = &things[..things.len().min(MOST)];
    let (first, more) = shown.split_at(shown.len().min(FIRST));
    html! {
        (table("files", columns, &rows(first)))
        @if !more.is_empty() {
            details class="rest" {
                summary { "Show " (more.len()) " more" }
                table class="files" role="table" { tbody role="rowgroup" { (rows(more)) } }
                @if things.len() > MOST {
                    p class="more" { "The largest " (MOST) " of " (count(things.len() as u64)) " " (what) "." }
                }
            }
        }
    }
}

pub(super) fn layers(report: &Report) -> Markup {
    let scale = Scale::Layers(report.layers.len());
    let largest = report.layers.iter().map(|layer| layer.stored).max().unwrap_or(0);
    let number = |number: u64| if number == 0 { "–".to_owned() } else { count(number) };
    let size = |bytes: u64| if bytes == 0 { "–".to_owned() } else { units::size(bytes) };
    let repeated = report.layers.iter().any(|layer| layer.changes.repeated > 0);
    let mut columns = vec!["#", "Step", "Size", "Wasted", "Added", "Changed", "Removed"];
    if repeated {
        columns.insert(6, "Unchanged");
    }
    let rows = html! {
        @for layer in &report.layers {
            tr role="row" {
                td role="cell" class="ordinal" { (swatch(layer.number, scale)) (layer.number) }
                td role="cell" class="wide" {
                    @match &layer.step {
                        Some(step) => (command(&step.created_by)),
                        None => span class="faint" { "not in the history" },
                    }
                    @if let Some(id) = &layer.diff_id { code class="id" title=(id) { (short(id)) } }
                }
                td role="cell" class="number" data-label="Size" {
                    (units::size(layer.stored)) (bar(layer.stored, largest))
                }
                (cell("Wasted", size(layer.wasted)))
                (cell("Added", number(layer.changes.added)))
                (cell("Changed", number(layer.changes.changed)))
                @if repeated { (cell("Unchanged", number(layer.changes.repeated))) }
                (cell("Removed", number(layer.changes.deleted)))
            }
        }
    };
    html! {
        section id="layers" {
            h2 { "Layers" }
            p class="lead" {
                "The lowest first. Files that a layer adds, changes and removes; wasted is what later layers hide of it."
                @if repeated {
                    " Unchanged files are stored once more although nothing about them differs."
                }
            }
            (table("layers", &columns, &rows))
        }
    }
}

pub(super) fn wasted(report: &Report) -> Markup {
    if report.wasted_files.is_empty() {
        return html! {};
    }
    let scale = Scale::Layers(report.layers.len());
    let row = |file: &WastedFile| {
        html! {
            tr role="row" {
                td role="cell" class="wide" { (path(&file.path)) }
                (cell("Size", units::size(file.bytes)))
                td role="cell" class="number" data-label="Stored by" {
                    (swatch(file.layer, scale)) "Layer " (file.layer)
                }
                td role="cell" class="number" data-label="Hidden by" {
                    (swatch(file.hidden_by, scale)) "Layer " (file.hidden_by)
                }
                td role="cell" data-label="How" { (file.why) }
            }
        }
    };
    let columns = ["File", "Size", "Stored by", "Hidden by", "How"];
    html! {
        section id="wasted" {
            h2 { "Wasted space" }
            p class="lead" {
                (units::size(report.wasted)) " in "
                (plural(report.wasted_files.len() as u64, "file", "files"))
                " that a layer stores and a later one overwrites or deletes: every copy of the image carries them, no container sees them."
            }
            (largest(&columns, &report.wasted_files, "wasted files", row))
        }
    }
}

pub(super) fn duplicates(report: &Report) -> Markup {
    if report.duplicates.is_empty() {
        return html! {};
    }
    let row = |content: &Duplicate| {
        html! {
            tr role="row" {
                td role="cell" class="wide" { (paths(content)) }
                (cell("Could be saved", units::size(content.bytes)))
                (cell("Copies", count(content.paths.len() as u64)))
                (cell("Each", units::size(content.size)))
            }
        }
    };
    let columns = ["Files", "Could be saved", "Copies", "Each"];
    html! {
        section id="duplicates" {
            h2 { "Duplicates" }
            p class="lead" {
                (units::size(report.duplicate))
                " could be saved by hard links: visible files with the same content, compared by SHA-256."
            }
            (largest(&columns, &report.duplicates, "sets of equal files", row))
        }
    }
}

/// The first paths, and more of them at a click.
fn paths(content: &Duplicate) -> Markup {
    let (first, more) = content.paths.split_at(content.paths.len().min(PATHS));
    html! {
        @for one in first { (path(one)) }
        @if !more.is_empty() {
            details {
                summary { "and " (plural(more.len() as u64, "other", "others")) }
                @for one in more.iter().take(MOST_PATHS) { (path(one)) }
                @if more.len() > MOST_PATHS {
                    span class="faint" { (count((more.len() - MOST_PATHS) as u64)) " more" }
                }
            }
        }
    }
}

pub(super) fn types(report: &Report) -> Markup {
    let Some(first) = report.types.first() else { return html! {} };
    let rest = &report.types[report.types.len().min(TYPES)..];
    let row = |name: Markup, files: u64, bytes: u64| {
        html! {
            tr role="row" {
                td role="cell" class="kind" { (name) }
                td role="cell" class="fill" { (bar(bytes, first.bytes)) }
                (cell("Size", units::size(bytes)))
                (cell("Files", count(files)))
            }
        }
    };
    let rows = html! {
        @for kind in report.types.iter().take(TYPES) {
            @let name = match kind.extension.as_str() {
                "" => html! { span class="faint" { "none" } },
                extension => html! { code { "." (shown(extension)) } },
            };
            (row(name, kind.files, kind.bytes))
        }
        @if !rest.is_empty() {
            @let name = html! { span class="faint" { (rest.len()) " others" } };
            (row(name, rest.iter().map(|kind| kind.files).sum(), rest.iter().map(|kind| kind.bytes).sum()))
        }
    };
    html! {
        section id="types" {
            h2 { "File types" }
            p class="lead" { "Visible files by the ends of their names; the number behind a library's is no end." }
            (table("types", &["Type", "", "Size", "Files"], &rows))
        }
    }
}

pub(super) fn history(report: &Report) -> Markup {
    let scale = Scale::Layers(report.layers.len());
    let size = |step: &StepReport| match step.step.layer {
        Some(_) => units::size(step.size),
        None => "no layer".to_owned(),
    };
    html! {
        section id="history" {
            h2 { "History" }
            p class="lead" { "The steps of the build, the first first." }
            ol class="steps" {
                @for step in &report.history {
                    li class=[step.step.layer.is_none().then_some("empty")] {
                        div class="what" {
                            @if step.step.created_by.is_empty() { span class="faint" { "not in the history" } }
                            @else { (command(&step.step.created_by)) }
                            @if let Some(comment) = &step.step.comment {
                                p class="faint" { (shown_at_most(comment, LONGEST)) }
                            }
                        }
                        p class="meta" {
                            @if let Some(layer) = step.step.layer {
                                span { (swatch(layer, scale)) "Layer " (layer) }
                            }
                            span { (size(step)) }
                            @if let Some(created) = &step.step.created { span { (time(created)) } }
                        }
                    }
                }
            }
        }
    }
}

/// A step as a Dockerfile writes it, its instruction told apart.
pub(super) fn command(created_by: &str) -> Markup {
    let step = shown_at_most(&short_step(created_by), LONGEST);
    let (instruction, rest) = match step.split_once(' ') {
        Some((word, rest)) if is_instruction(word) => (Some(word), rest),
        _ => (None, step.as_str()),
    };
    html! {
        code class="step" { @if let Some(word) = instruction { b { (word) } " " } (rest) }
    }
}

fn is_instruction(word: &str) -> bool {
    word.len() <= 11 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}
