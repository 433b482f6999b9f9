//! `layerctl diff`: what a container changed.

use std::io::Write;
use std::process::ExitCode;

use crate::context::Context;
use crate::names::printable;
use crate::output;

/// Show what a container changed: A added, C changed, D deleted
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name, id or id prefix
    container: String,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let changes = context.client.container_changes(&args.container)?;
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &changes)?;
        return Ok(ExitCode::SUCCESS);
    }
    for change in changes {
        writeln!(out, "{} {}", change.kind, printable(&change.path))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
