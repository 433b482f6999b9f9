//! `layerctl check-image`: whether an image wastes no more than it may, for CI.

mod rules;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Session;
use crate::exit::FAILED;
use crate::inspect::{self, Space, Target};
use crate::names::{printable, short};
use crate::paint::{Colour, Paint};
use crate::template::Template;
use crate::{output, units};
use rules::{Rules, parse_part, parse_size};

/// The file in which dive keeps its rules.
const DIVE_RULES: &str = ".dive-ci";

/// Check that an image wastes no more than it may: exit code 0 if so, 1 if not
///
/// Wasted are the bytes of files that a later layer overwrites or deletes. The options win over the
/// rules of a file; without either, .dive-ci in the working directory is read, if there is one, and
/// else dive's own rules hold: an efficiency of 0.9 and a tenth of the layers above the lowest.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The least part of what is stored that is seen: 0.95 or 95%
    #[arg(long, value_name = "PART", value_parser = parse_part)]
    min_efficiency: Option<f64>,
    /// The most wasted bytes: 20MB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_wasted: Option<u64>,
    /// The most wasted bytes, as a part of what the layers above the lowest store: 0.1 or 10%
    #[arg(long, value_name = "PART", value_parser = parse_part)]
    max_wasted_percent: Option<f64>,
    /// A file with rules as dive's .dive-ci
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Print JUnit's XML
    #[arg(long)]
    junit: bool,
    /// A template, for each rule: {{.Rule}} {{.Passed}} {{.Limit}} {{.Found}} {{.Name}} {{.ID}}, `table ...`
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "junit")]
    format: Option<String>,
    /// An image, layer or container, or an archive
    #[arg(value_name = "IMAGE")]
    target: String,
}

/// The report.
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    id: Option<String>,
    passed: bool,
    stored: u64,
    wasted: u64,
    efficiency: f64,
    wasted_of_upper: f64,
    checks: Vec<Check>,
    /// The wasted files, the largest first, ten at most.
    worst: Vec<inspect::WastedFile>,
}

/// How many wasted files are told.
const WORST: usize = 10;

/// One rule and what came of it.
#[derive(Debug, Serialize)]
struct Check {
    rule: &'static str,
    passed: bool,
    /// What is asked for.
    limit: String,
    /// What was found.
    found: String,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let rules = rules(args)?;
    let subject = inspect::open(session, &Target::parse(&args.target)?)?;
    let space = Space::of(&subject)?;
    let checks = check(&rules, &space);
    let report = Report {
        name: subject.name,
        id: subject.id,
        passed: checks.iter().all(|check| check.passed),
        stored: space.stored,
        wasted: space.wasted,
        efficiency: space.efficiency,
        wasted_of_upper: space.wasted_of_upper,
        checks,
        worst: space.wasted_files.into_iter().take(WORST).collect(),
    };
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &report)?;
    } else if args.junit {
        junit(&mut out, &report)?;
    } else if let Some(template) = template {
        let rows: Vec<_> = report.checks.iter().map(|check| row(&report, check)).collect();
        output::lines(&mut out, &template, &[("ID", "IMAGE ID")], &rows)?;
    } else {
        render(&mut out, &report)?;
    }
    out.flush()?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn rules(args: &Args) -> anyhow::Result<Rules> {
    let given = Rules {
        min_efficiency: args.min_efficiency,
        max_wasted: args.max_wasted,
        max_wasted_part: args.max_wasted_percent,
    };
    let file = match &args.rules {
        Some(file) => Some(file.as_path()),
        None if given == Rules::default() => Some(Path::new(DIVE_RULES)).filter(|f| f.is_file()),
        None => None,
    };
    let Some(file) = file else {
        return Ok(if given == Rules::default() { Rules::of_dive() } else { given });
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let read = Rules::parse(&text).with_context(|| file.display().to_string())?;
    Ok(given.or(read))
}

fn check(rules: &Rules, space: &Space) -> Vec<Check> {
    let percent = |part: f64| format!("{:.2}%", part * 100.0);
    let mut checks = Vec::new();
    if let Some(least) = rules.min_efficiency {
        checks.push(Check {
            rule: "min-efficiency",
            passed: space.efficiency >= least,
            limit: percent(least),
            found: percent(space.efficiency),
        });
    }
    if let Some(most) = rules.max_wasted {
        checks.push(Check {
            rule: "max-wasted",
            passed: space.wasted <= most,
            limit: units::size(most),
            found: units::size(space.wasted),
        });
    }
    if let Some(most) = rules.max_wasted_part {
        checks.push(Check {
            rule: "max-wasted-percent",
            passed: space.wasted_of_upper <= most,
            limit: percent(most),
            found: percent(space.wasted_of_upper),
        });
    }
    checks
}

fn row(report: &Report, check: &Check) -> Value {
    json!({
        "Rule": check.rule,
        "Passed": check.passed,
        "Limit": check.limit,
        "Found": check.found,
        "Name": report.name,
        "ID": report.id.as_deref().map_or("-", short),
    })
}

fn render(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let paint = Paint::stdout();
    for check in &report.checks {
        let (word, colour) =
            if check.passed { ("PASS", Colour::Added) } else { ("FAIL", Colour::Removed) };
        let word = paint.text(colour, word);
        writeln!(out, "{word} {:<18} {} (limit {})", check.rule, check.found, check.limit)?;
    }
    if !report.passed {
        for file in &report.worst {
            writeln!(
                out,
                "     {:>8} {} of layer {}, {} by layer {}",
                units::size(file.bytes),
                printable(&file.path),
                file.layer,
                file.why,
                file.hidden_by
            )?;
        }
    }
    Ok(())
}

/// The form that Jenkins and GitLab read: a suite for the image, a case for each rule.
fn junit(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let failures = report.checks.iter().filter(|check| !check.passed).count();
    let name = escape(&report.name);
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(
        out,
        "<testsuite name=\"{name}\" tests=\"{}\" failures=\"{failures}\">",
        report.checks.len()
    )?;
    for check in &report.checks {
        write!(out, "  <testcase classname=\"{name}\" name=\"{}\"", check.rule)?;
        if check.passed {
            writeln!(out, "/>")?;
            continue;
        }
        let message = format!("{}, the limit is {}", check.found, check.limit);
        writeln!(out, ">")?;
        writeln!(out, "    <failure message=\"{}\">", escape(&message))?;
        for file in &report.worst {
            let line = format!("{} {} (layer {}, {})", file.bytes, file.path, file.layer, file.why);
            writeln!(out, "{}", escape(&line))?;
        }
        writeln!(out, "    </failure>")?;
        writeln!(out, "  </testcase>")?;
    }
    writeln!(out, "</testsuite>")
}

/// Text within XML; control characters, which XML cannot hold, are escaped as for a terminal.
fn escape(text: &str) -> String {
    printable(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(stored: u64, wasted: u64) -> Space {
        Space {
            stored,
            visible: stored - wasted,
            wasted,
            duplicate: 0,
            efficiency: 0.75,
            wasted_of_upper: 0.5,
            layers: Vec::new(),
            wasted_files: Vec::new(),
            duplicates: Vec::new(),
        }
    }

    #[test]
    fn limits_are_kept_by_what_is_just_within() {
        for (rules, expected) in [
            (Rules::default(), vec![]),
            (Rules { min_efficiency: Some(0.75), ..Rules::default() }, vec![true]),
            (Rules { min_efficiency: Some(0.76), ..Rules::default() }, vec![false]),
            (Rules { max_wasted: Some(25), ..Rules::default() }, vec![true]),
            (Rules { max_wasted: Some(24), ..Rules::default() }, vec![false]),
            (Rules { max_wasted_part: Some(0.5), ..Rules::default() }, vec![true]),
            (Rules { max_wasted_part: Some(0.49), ..Rules::default() }, vec![false]),
        ] {
            let found: Vec<_> =
                check(&rules, &space(100, 25)).iter().map(|check| check.passed).collect();
            assert_eq!(found, expected, "{rules:?}");
        }
    }

    #[test]
    fn xml_is_escaped() {
        assert_eq!(escape("<a & \"b\">\u{1}"), "&lt;a &amp; &quot;b&quot;&gt;\\u{1}");
    }
}
