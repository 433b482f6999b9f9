//! `layerctl rmi`: names and images go.

use std::io::Write;
use std::process::ExitCode;

use layerd_api::{RemoveImageRequest, Removed};

use crate::context::Context;
use crate::exit::{FAILED, tell};
use crate::names::{familiar, printable};
use crate::output;

/// Remove images, or names of images that have several
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove an image with several names by its id, and images of containers that do not run
    #[arg(short, long)]
    force: bool,
    /// Names, ids or id prefixes
    #[arg(value_name = "REF", required = true)]
    images: Vec<String>,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let mut total = Removed::default();
    let mut code = ExitCode::SUCCESS;
    for image in args.images {
        match context.client.remove_image(&RemoveImageRequest { image, force: args.force }) {
            Ok(removed) => add(&mut total, removed),
            Err(error) => {
                tell(&printable(&error.to_string()));
                code = ExitCode::from(FAILED);
            }
        }
    }
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &total)?;
    } else {
        render(&mut out, &total)?;
        out.flush()?;
    }
    Ok(code)
}

fn add(total: &mut Removed, removed: Removed) {
    total.untagged.extend(removed.untagged);
    total.deleted.extend(removed.deleted);
    total.layers.extend(removed.layers);
    total.bytes += removed.bytes;
}

/// Writes what has gone, as `docker rmi` does.
pub(crate) fn render(out: &mut impl Write, removed: &Removed) -> std::io::Result<()> {
    for name in &removed.untagged {
        writeln!(out, "Untagged: {}", printable(familiar(name)))?;
    }
    for id in removed.deleted.iter().chain(&removed.layers) {
        writeln!(out, "Deleted: {}", printable(id))?;
    }
    Ok(())
}
