//! `layerctl commit`: a container's changes become an image.

use std::io::Write;
use std::process::ExitCode;

use layerd_api::CommitContainerRequest;

use crate::context::Context;
use crate::output;

/// Make an image of a container's changes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A comment for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// The author
    #[arg(short, long)]
    author: Option<String>,
    /// Name, id or id prefix
    container: String,
    /// The new image's name
    #[arg(value_name = "REF")]
    name: Option<String>,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let request =
        CommitContainerRequest { name: args.name, comment: args.message, author: args.author };
    let image = context.client.commit_container(&args.container, &request)?;
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &image)?;
    } else {
        writeln!(out, "{}", image.id)?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}
