//! `layerctl rm`: containers go, with their changes.

use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use crate::context::Context;
use crate::exit::{FAILED, tell};
use crate::names::printable;
use crate::output;

/// Remove containers and their changes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove running containers too: their processes are killed
    #[arg(short, long)]
    force: bool,
    /// Names, ids or id prefixes
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let mut removed = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for container in args.containers {
        match context.client.remove_container(&container, args.force) {
            Ok(()) => removed.push(container),
            Err(error) => {
                tell(&printable(&error.to_string()));
                code = ExitCode::from(FAILED);
            }
        }
    }
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &json!({ "removed": removed }))?;
    } else {
        for container in &removed {
            writeln!(out, "{}", printable(container))?;
        }
        out.flush()?;
    }
    Ok(code)
}
