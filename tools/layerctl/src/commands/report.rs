//! `layerctl report`: a page about an image.

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use crate::context::Session;
use crate::exit::usage;
use crate::inspect::{self, Target};
use crate::output;
use crate::report::{Report, page};
use crate::save::Output;

/// Write a page about an image: a map of what fills it, its layers, what is wasted
///
/// One HTML file that needs nothing else, on the network or beside it. The same image gives the same
/// file. With --json, the same facts as JSON.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
    /// An image, layer or container, or an archive or directory
    #[arg(value_name = "IMAGE")]
    target: String,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    if args.output.output.is_none() && !session.json && stdout().is_terminal() {
        return Err(usage("where to? -o FILE.html, or -o - for standard output"));
    }
    let subject = inspect::open(session, &Target::parse(&args.target)?)?;
    let report = Report::of(&subject)?;
    let mut content = Vec::new();
    if session.json {
        output::json(&mut content, &report)?;
    } else {
        content = page(&report)?.into_bytes();
    }
    args.output.write(session, &content)?;
    Ok(ExitCode::SUCCESS)
}
