//! The command line as a whole: global options, and which command was meant.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    blame, cat, check_image, commit, cp, diff, du, events, explore, graph, history, images, import,
    info, inspect, layers, pool, prune, ps, report, rm, rmi, run, snapshots, tag, tree, verify,
};
use crate::context::{Context, Session};
use crate::exit;

/// Looks into, changes and runs what layerd keeps.
#[derive(Debug, Parser)]
#[command(name = "layerctl", version, disable_help_subcommand = true)]
struct Cli {
    /// The daemon's socket; without it a private daemon is started when none listens on
    /// /run/layerd/layerd.sock
    #[arg(long, global = true, value_name = "PATH", env = "LAYERD_SOCKET")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::Args),
    Images(images::Args),
    Tag(tag::Args),
    Rmi(rmi::Args),
    Prune(prune::Args),
    Run(Box<run::Args>),
    Ps(ps::Args),
    Rm(rm::Args),
    Commit(commit::Args),
    Snapshots(snapshots::Args),
    Blame(blame::Args),
    CheckImage(check_image::Args),
    Cat(cat::Args),
    Cp(cp::Args),
    Du(du::Args),
    Events(events::Args),
    Explore(explore::Args),
    Graph(graph::Args),
    Report(report::Args),
    Verify(verify::Args),
    Layers(layers::Args),
    History(history::Args),
    Tree(tree::Args),
    Diff(diff::Args),
    Inspect(inspect::Args),
    Info(info::Args),
    Pool(pool::Args),
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let running = matches!(cli.command, Command::Run(_));
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) if running => exit::report(&error, exit::RUN_FAILED),
        Err(error) => exit::report(&error, exit::FAILED),
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let session = Session::new(cli.socket.clone(), cli.json);
    // These look into files as well, for which no daemon is wanted, or at the daemon that there is.
    let command = match cli.command {
        Command::Blame(args) => return blame::run(&session, &args),
        Command::CheckImage(args) => return check_image::run(&session, &args),
        Command::Cat(args) => return cat::run(&session, &args),
        Command::Cp(args) => return cp::run(&session, &args),
        Command::Du(args) => return du::run(&session, &args),
        Command::Events(args) => return events::run(&session, &args),
        Command::Explore(args) => return explore::run(&session, &args),
        Command::Graph(args) => return graph::run(&session, &args),
        Command::Report(args) => return report::run(&session, &args),
        Command::Verify(args) => return verify::run(&session, &args),
        Command::Layers(args) => return layers::run(&session, &args),
        Command::History(args) => return history::run(&session, &args),
        Command::Tree(args) => return tree::run(&session, &args),
        Command::Diff(args) => return diff::run(&session, &args),
        other => other,
    };
    let context = Context::open(cli.socket, cli.json)?;
    match command {
        Command::Import(args) => import::run(&context, args),
        Command::Images(args) => images::run(&context, args),
        Command::Tag(args) => tag::run(&context, args),
        Command::Rmi(args) => rmi::run(&context, args),
        Command::Prune(args) => prune::run(&context, args),
        Command::Run(args) => run::run(context, &args),
        Command::Ps(args) => ps::run(&context, args),
        Command::Rm(args) => rm::run(&context, args),
        Command::Commit(args) => commit::run(&context, args),
        Command::Snapshots(args) => snapshots::run(&context, &args),
        Command::Inspect(args) => inspect::run(&context, args),
        Command::Info(args) => info::run(&context, args),
        Command::Pool(args) => pool::run(&context, args),
        _ => anyhow::bail!("a command that needs no daemon"),
    }
}

/// Help and version are no errors; a bad command line is 2, or 125 where 2 could be taken for the
/// container's own exit code.
fn usage(error: &clap::Error) -> ExitCode {
    // A reader that went away is none of the user's business.
    drop(error.print());
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if names_run(arguments.iter().map(|a| a.as_os_str())) {
        ExitCode::from(exit::RUN_FAILED)
    } else {
        ExitCode::from(exit::USAGE)
    }
}

/// Whether the first argument that is neither a global option nor its value is `run`.
fn names_run<'a>(mut arguments: impl Iterator<Item = &'a OsStr>) -> bool {
    while let Some(argument) = arguments.next() {
        if argument == "--socket" {
            arguments.next();
        } else if !argument.as_encoded_bytes().starts_with(b"-") {
            return argument == "run";
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_found_behind_global_options() {
        for (line, expected) in [
            ("run", true),
            ("--json run x", true),
            ("--socket run images", false),
            ("--socket=run run", true),
            ("images run", false),
            ("--json", false),
        ] {
            let found = names_run(line.split(' ').map(OsStr::new));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_container() {
        let line = "layerctl run --rm -e A=b img --json -x sh -c ls";
        let cli = Cli::try_parse_from(line.split(' ')).expect("a good command line");
        assert!(!cli.json, "the option is the container's");
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.image_and_command[1..], ["--json", "-x", "sh", "-c", "ls"]);
    }
}
