//! layerctl: the command line of layerd.
//!
//! Every command gathers what it shows over the daemon's socket into a report, and renders the
//! report as text or JSON. See `docs/cli.md` for the contract: commands, output, exit codes.

mod cli;
mod commands;
mod context;
mod exit;
mod explore;
mod graph;
mod inspect;
mod names;
mod output;
mod paint;
mod private;
mod progress;
mod report;
mod save;
mod template;
mod units;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
