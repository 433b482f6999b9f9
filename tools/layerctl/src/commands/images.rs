//! `layerctl images`: what the store holds.

use std::cmp::Reverse;
use std::process::ExitCode;

use anyhow::Context as _;
use layerd_api::ImageSummary;
use serde_json::{Value, json};

use crate::commands::filter::Filters;
use crate::context::Context;
use crate::exit::usage;
use crate::names::{NONE, familiar, short, split};
use crate::template::Template;
use crate::{output, units};

const TABLE: &str = "table {{.Repository}}\\t{{.Tag}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}";
const HEADINGS: &[(&str, &str)] =
    &[("ID", "IMAGE ID"), ("CreatedSince", "CREATED"), ("CreatedAt", "CREATED AT")];
const FILTERS: &[&str] = &["dangling", "reference", "label", "before", "since"];

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show all images; taken for docker's sake: there are no intermediate ones, and what Docker and
    /// containerd keep here is in `layerctl snapshots --all`
    #[arg(short, long)]
    all: bool,
    /// dangling=true|false, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template: {{.Repository}} {{.Tag}} {{.ID}} {{.CreatedSince}} {{.CreatedAt}}
    /// {{.Size}} {{.Driver}} {{.Platform}}, {{json .}}, `table ...`
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "quiet")]
    format: Option<String>,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Only images of this name or pattern
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let template = match &args.format {
        Some(format) => Template::parse(format)?,
        None if args.quiet => Template::parse("{{.ID}}")?,
        None => Template::parse(TABLE)?,
    };
    let mut filters = Filters::parse(&args.filter, FILTERS)?;
    if let Some(reference) = &args.reference {
        let mut given = args.filter.clone();
        given.push(format!("reference={reference}"));
        filters = Filters::parse(&given, FILTERS)?;
    }
    let images = gather(context, &filters)?;
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &images)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = rows(&images, args.no_trunc)?;
    if args.quiet {
        rows.dedup_by(|a, b| a["ID"] == b["ID"]);
    }
    output::lines(&mut out, &template, HEADINGS, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn gather(context: &Context, filters: &Filters) -> anyhow::Result<Vec<ImageSummary>> {
    let dangling = filters.truth("dangling")?;
    let patterns = filters
        .values("reference")
        .iter()
        .map(|pattern| Pattern::new(pattern))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut images = context.client.images()?;
    images.sort_by_key(|image| Reverse(units::moment(image.created.as_deref())));
    let made = |key: &str| -> anyhow::Result<_> {
        let Some(reference) = filters.values(key).last() else { return Ok(None) };
        let image = context.client.image(reference).with_context(|| format!("filter {key}"))?;
        Ok(Some(units::moment(image.image.created.as_deref())))
    };
    let (before, since) = (made("before")?, made("since")?);
    images.retain(|image| {
        let created = units::moment(image.created.as_deref());
        dangling.is_none_or(|dangling| dangling == image.names.is_empty())
            && before.is_none_or(|before| created < before)
            && since.is_none_or(|since| created > since)
            && filters.all("label", |label| has_label(image, label))
    });
    if !patterns.is_empty() {
        for image in &mut images {
            image.names.retain(|name| patterns.iter().any(|pattern| pattern.matches(name)));
        }
        images.retain(|image| !image.names.is_empty());
    }
    Ok(images)
}

fn has_label(image: &ImageSummary, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => image.labels.get(key).is_some_and(|found| found == value),
        None => image.labels.contains_key(label),
    }
}

/// A shell pattern over the short form of names, with or without the tag.
#[derive(Debug)]
struct Pattern(glob::Pattern);

impl Pattern {
    fn new(pattern: &str) -> anyhow::Result<Self> {
        let parsed = glob::Pattern::new(familiar(pattern));
        parsed.map(Self).map_err(|error| usage(format!("the pattern {pattern:?}: {error}")))
    }

    fn matches(&self, name: &str) -> bool {
        let options =
            glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
        let name = familiar(name);
        self.0.matches_with(name, options) || self.0.matches_with(split(name).0, options)
    }
}

/// One row a name, as docker shows them; one row with `<none>` for an image without names.
fn rows(images: &[ImageSummary], no_trunc: bool) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    for image in images {
        if image.names.is_empty() {
            rows.push(row(image, NONE, NONE, no_trunc)?);
        }
        for name in &image.names {
            let (repository, tag) = split(familiar(name));
            rows.push(row(image, repository, tag, no_trunc)?);
        }
    }
    Ok(rows)
}

fn row(image: &ImageSummary, repository: &str, tag: &str, full: bool) -> anyhow::Result<Value> {
    let created = image.created.as_deref();
    Ok(json!({
        "Repository": repository,
        "Tag": tag,
        "ID": if full { &image.id } else { short(&image.id) },
        "CreatedSince": units::ago(created),
        "CreatedAt": units::at(created)?,
        "Size": units::size(image.size),
        "Driver": image.driver,
        "Platform": image.platform,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_short_names_with_and_without_tag() {
        let name = "docker.io/library/debian:bookworm";
        for (pattern, expected) in [
            ("debian", true),
            ("debian:bookworm", true),
            ("deb*", true),
            ("docker.io/library/debian:bookworm", true),
            ("*:book*", true),
            ("debian:bullseye", false),
            ("*/debian", false),
            ("ebian", false),
        ] {
            assert_eq!(Pattern::new(pattern).expect(pattern).matches(name), expected, "{pattern}");
        }
        assert!(!Pattern::new("*").expect("*").matches("q.io/a/b:1"), "a star stays in a segment");
        assert!(Pattern::new("[").is_err(), "a bad pattern is refused");
    }

    #[test]
    fn each_name_has_a_row_and_a_nameless_image_one() {
        let mut image = ImageSummary {
            id: format!("sha256:{}", "ab".repeat(32)),
            names: vec!["docker.io/library/a:1".to_owned(), "q.io:5000/b:2".to_owned()],
            created: None,
            size: 1500,
            driver: "vfs".to_owned(),
            drivers: vec!["vfs".to_owned()],
            platform: "linux/amd64".to_owned(),
            layers: Vec::new(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
        };
        let named = rows(std::slice::from_ref(&image), false).expect("rows");
        let cells: Vec<_> =
            named.iter().map(|row| format!("{} {}", row["Repository"], row["Tag"])).collect();
        assert_eq!(cells, [r#""a" "1""#, r#""q.io:5000/b" "2""#]);
        assert_eq!(named[0]["ID"], "abababababab");
        assert_eq!(named[0]["Size"], "1.5kB");
        assert!(has_label(&image, "k") && has_label(&image, "k=v") && !has_label(&image, "k=w"));
        image.names.clear();
        let nameless = rows(&[image], true).expect("rows");
        assert_eq!(nameless[0]["Repository"], NONE);
        assert_eq!(nameless[0]["ID"].as_str().map(str::len), Some(71), "the id is in full");
    }
}
