//! `layerctl report`: a page about an image, or about two.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use serde::Serialize;

use crate::context::Session;
use crate::exit::usage;
use crate::inspect::{self, Target};
use crate::output;
use crate::report::{Comparison, Report, comparison_page, page};
use crate::save::Output;

/// Write a page about an image, or about how two differ: maps, layers, files, what is wasted
///
/// Of one, what fills it, its layers, what is wasted. Of two, what the second has more and less than the
/// first: files by the bytes that they add or free, what changed in them, shared layers, both side by side.
/// One HTML file that needs nothing else, on the network or beside it. The same images give the same
/// file. With --json, the same facts as JSON.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
    /// An image, layer or container, or an archive or directory
    #[arg(value_name = "IMAGE")]
    target: String,
    /// Another one, to be compared with the first
    #[arg(value_name = "OTHER")]
    other: Option<String>,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    if args.output.output.is_none() && !session.json && stdout().is_terminal() {
        return Err(usage("where to? -o FILE.html, or -o - for standard output"));
    }
    let target = Target::parse(&args.target)?;
    let content = match &args.other {
        None => {
            let report = Report::of(&inspect::open(session, &target)?)?;
            content(session, &report, page)?
        }
        Some(other) => {
            let (a, b) = inspect::open_both(session, &target, &Target::parse(other)?)?;
            content(session, &Comparison::of(&a, &b)?, comparison_page)?
        }
    };
    args.output.write(session, &content)?;
    Ok(ExitCode::SUCCESS)
}

fn content<R: Serialize>(
    session: &Session,
    report: &R,
    page: fn(&R) -> anyhow::Result<String>,
) -> anyhow::Result<Vec<u8>> {
    if !session.json {
        return Ok(page(report)?.into_bytes());
    }
    let mut content = Vec::new();
    output::json(&mut content, report)?;
    Ok(content)
}
