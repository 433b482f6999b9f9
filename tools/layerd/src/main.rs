//! layerd: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use layerd::config::Settings;
use layerd::server;
use layerd::store::Store;
use tracing_subscriber::EnvFilter;

/// The layer-storage daemon.
#[derive(Debug, Parser)]
#[command(name = "layerd", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Serve),
}

/// Keep a store and serve it on a unix socket until SIGTERM
#[derive(Debug, clap::Args)]
struct Serve {
    /// A JSON file with Docker's names; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of the store
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The default driver
    #[arg(long, short = 's', value_name = "NAME")]
    driver: Option<String>,
    /// A driver option
    #[arg(long = "storage-opt", value_name = "K=V")]
    storage_opts: Vec<String>,
    /// The socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Serve one client: say `ready` on standard output, end with standard input
    #[arg(long, hide = true)]
    private: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome = match cli.command {
        Command::Serve(args) => serve(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Serve) -> anyhow::Result<()> {
    let file = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let flags = Settings {
        root: args.root,
        socket: args.socket,
        storage_driver: args.driver,
        storage_opts: args.storage_opts,
        docker_plugin: None,
    };
    let config = file.overlaid(flags).resolve()?;
    let options = server::Options { socket: config.socket.clone(), private: args.private };
    let store = Store::open(config).context("open the store")?;
    server::run(store, &options).context("serve")
}
