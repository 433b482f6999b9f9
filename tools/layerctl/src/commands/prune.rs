//! `layerctl prune`: images that nothing uses go.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use layerd_api::PruneRequest;

use crate::commands::rmi;
use crate::context::Context;
use crate::{output, units};

/// Remove images without a name, and layers that nothing uses
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also images that have names, when no container uses them
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    if !args.force && !confirmed(args.all)? {
        return Ok(ExitCode::SUCCESS);
    }
    let removed = context.client.prune(&PruneRequest { all: args.all })?;
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &removed)?;
    } else {
        rmi::render(&mut out, &removed)?;
        writeln!(out, "Total reclaimed space: {}", units::size(removed.bytes))?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn confirmed(all: bool) -> anyhow::Result<bool> {
    let what = if all { "images that no container uses" } else { "images without a name" };
    write!(io::stderr(), "This removes all {what}. Continue? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
