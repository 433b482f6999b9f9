//! `layerctl explore`: layers and files of an image in a terminal.

use std::io::{IsTerminal as _, stdin, stdout};
use std::process::ExitCode;

use crate::context::Session;
use crate::exit::usage;
use crate::explore::{self, Options};
use crate::inspect::Target;
use crate::paint::Paint;

/// Explore the layers and files of an image in the terminal; `?` there lists the keys
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the mouse to the terminal (`m` switches it on)
    #[arg(long)]
    no_mouse: bool,
    /// An image, layer (IMAGE#NUMBER) or container, or an archive, OCI layout or directory
    #[arg(value_name = "IMAGE")]
    target: String,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    if session.json {
        return Err(usage("explore prints nothing; try layers, tree or blame with --json"));
    }
    if !stdin().is_terminal() || !stdout().is_terminal() {
        anyhow::bail!(
            "explore needs a terminal; without one there are layers, tree, diff and blame"
        );
    }
    let target = Target::parse(&args.target)?;
    let options = Options { mouse: !args.no_mouse, colour: Paint::stdout().is_on() };
    // A daemon that has to be started says what is wrong before the screen is taken.
    explore::run(session.for_thread(target.file.is_none())?, target, options)?;
    Ok(ExitCode::SUCCESS)
}
