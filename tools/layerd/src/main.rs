//! layerd: the daemon.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use layerd::check::{CheckOptions, Report};
use layerd::config::Settings;
use layerd::server;
use layerd::store::Store;
use tracing_subscriber::EnvFilter;

/// The layer-storage daemon.
#[derive(Debug, Parser)]
#[command(name = "layerd", version, disable_help_subcommand = true)]
struct Cli {
    /// What to log on standard error (error, warn, info, debug, trace, or as RUST_LOG)
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Serve),
    Check(Check),
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
    /// Also link the socket where Docker looks for plugins
    #[arg(long)]
    docker_plugin: bool,
    /// Serve one client: say `ready` on standard output, end with standard input
    #[arg(long, hide = true)]
    private: bool,
}

/// Look whether a store that no daemon has open is sound
///
/// Exit code 0: sound; 1: damaged, or repaired; 2: could not look.
#[derive(Debug, clap::Args)]
struct Check {
    /// The directory of the store
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Mend what can be mended
    #[arg(long)]
    repair: bool,
    /// A driver option
    #[arg(long = "storage-opt", value_name = "K=V")]
    storage_opts: Vec<String>,
}

fn main() -> ExitCode {
    // Before there are other threads.
    cow_sys::memory::hold_back_little();
    let cli = Cli::parse();
    let filter = cli
        .log_level
        .or_else(|| std::env::var(EnvFilter::DEFAULT_ENV).ok())
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome = match cli.command {
        Command::Serve(args) => serve(args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => return check(args),
    };
    outcome.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn check(args: Check) -> ExitCode {
    let options = CheckOptions { repair: args.repair, storage_opts: args.storage_opts };
    let report = match layerd::check::check(&args.root, &options) {
        Ok(report) => report,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(2);
        }
    };
    // A closed standard output is no reason to say that the store is damaged.
    let _ = print(&report);
    ExitCode::from(u8::from(!report.findings.is_empty()))
}

fn print(report: &Report) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for finding in &report.findings {
        let word = match (finding.mended, finding.damage) {
            (true, _) => "mended",
            (false, true) => "damaged",
            (false, false) => "left over",
        };
        writeln!(out, "{word}: {}", finding.problem)?;
    }
    let verdict = if report.findings.is_empty() { ": sound" } else { "" };
    writeln!(out, "{} images, {} layers{verdict}", report.images, report.layers)
}

fn serve(args: Serve) -> anyhow::Result<()> {
    let file = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let flags = Settings {
        root: args.root,
        socket: args.socket,
        storage_driver: args.driver,
        storage_opts: args.storage_opts,
        docker_plugin: args.docker_plugin.then_some(true),
    };
    let config = file.overlaid(flags).resolve()?;
    let options = server::Options {
        socket: config.socket.clone(),
        private: args.private,
        docker_plugin: config.docker_plugin,
    };
    let store = Store::open(config).context("open the store")?;
    server::run(store, &options).context("serve")
}
