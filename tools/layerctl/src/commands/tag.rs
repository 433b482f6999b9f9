//! `layerctl tag`: another name for an image.

use std::process::ExitCode;

use layerd_api::TagRequest;

use crate::context::Context;
use crate::output;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name, id or id prefix
    image: String,
    /// The new name; it moves if another image has it
    #[arg(value_name = "REF")]
    name: String,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let image = context.client.tag(&TagRequest { image: args.image, name: args.name })?;
    if context.json {
        output::json(&mut context.out(), &image)?;
    }
    Ok(ExitCode::SUCCESS)
}
