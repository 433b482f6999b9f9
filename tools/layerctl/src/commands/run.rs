//! `layerctl run`: makes a container and hands over to the runtime.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;

use anyhow::Context as _;
use clap::ValueEnum;
use layerd_api::{ContainerSpec, CreateContainerRequest, ImportRequest};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::commands::import::absolute;
use crate::context::Context;
use crate::exit::usage;
use crate::private::program;
use crate::{progress, units};

/// Run a command in a new container
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run it in the background
    #[arg(short, long)]
    detach: bool,
    /// The container's name; one is made up otherwise
    #[arg(long)]
    name: Option<String>,
    /// The driver: one of those that keep the image, or the one to import the archive into
    #[arg(long)]
    driver: Option<String>,
    /// The program in place of the image's entry point; empty for none at all
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Set a variable of the environment; without a value, layerctl's own is passed on
    #[arg(short, long, value_name = "K[=V]")]
    env: Vec<String>,
    /// The working directory
    #[arg(short, long, value_name = "DIR", default_value = "")]
    workdir: String,
    /// The user, and the group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "")]
    user: String,
    /// The host name; the short id otherwise
    #[arg(long, value_name = "NAME", default_value = "")]
    hostname: String,
    /// Show a directory or file of the host
    #[arg(short, long, value_name = "SRC:DST[:ro]")]
    volume: Vec<String>,
    /// The most memory, as 512m or 2g
    #[arg(short, long, value_name = "N", value_parser = units::parse_bytes)]
    memory: Option<u64>,
    /// The most processor time, as 1.5
    #[arg(long, value_name = "N", value_parser = units::parse_cpus)]
    cpus: Option<u64>,
    /// The most processes; -1 is unlimited
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// An option of the driver for the container's writable layer, as size=10g
    #[arg(long, value_name = "K=V", value_parser = storage_opt)]
    storage_opt: Vec<(String, String)>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// The network
    #[arg(long, value_enum, default_value_t = Network::None)]
    network: Network,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL", default_value = "")]
    stop_signal: String,
    /// The platform to choose from an archive, os/arch[/variant]
    #[arg(long)]
    platform: Option<String>,
    /// The image, or an archive that is imported first; then the command
    #[arg(value_name = "IMAGE|ARCHIVE [CMD]", required = true, trailing_var_arg = true)]
    pub(crate) image_and_command: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Network {
    None,
    Host,
}

pub(crate) fn run(context: Context, args: &Args) -> anyhow::Result<ExitCode> {
    if args.detach {
        return Err(usage("-d: containers in the background are not supported yet"));
    }
    let (image, command) =
        args.image_and_command.split_first().ok_or_else(|| usage("the image is missing"))?;
    let image = if names_file(image) { import(&context, image, args)? } else { image.clone() };
    let request = CreateContainerRequest {
        image,
        name: args.name.clone(),
        driver: args.driver.clone(),
        auto_remove: args.rm,
        entrypoint: args.entrypoint.clone().map(entrypoint),
        command: command.to_vec(),
        storage_opt: args.storage_opt.iter().cloned().collect(),
        spec: spec(args)?,
    };
    let container = context.client.create_container(&request)?;
    let mut runtime = Command::new(program("layerun"));
    runtime.arg("run").arg("--socket").arg(context.client.socket()).arg(&container.id);
    let outcome = match &context.private {
        // The daemon ends with this process, so this process must outlive the container.
        Some(_) => attend(&mut runtime),
        None => Err(runtime.exec()),
    };
    let failed = match outcome {
        Ok(status) => return Ok(code_of(status)),
        Err(error) => error,
    };
    if args.rm {
        // The runtime would have: without it nobody will.
        drop(context.client.remove_container(&container.id, true));
    }
    Err(failed).with_context(|| format!("run {}", runtime.get_program().display()))
}

/// An argument that looks like a path is one; a bare word is one when such a file exists, but not
/// when it is only a directory: those of one's working directory have names like images'.
fn names_file(argument: &str) -> bool {
    let path = Path::new(argument);
    if argument.starts_with('/') || argument.starts_with("./") || argument.starts_with("../") {
        return true;
    }
    if argument.contains('/') { path.exists() } else { path.is_file() }
}

fn import(context: &Context, archive: &str, args: &Args) -> anyhow::Result<String> {
    let request = ImportRequest {
        path: absolute(Path::new(archive))?,
        name: None,
        driver: args.driver.clone(),
        platform: args.platform.clone(),
    };
    let images = progress::import(&context.client, &request)?;
    match &images[..] {
        [image] => Ok(image.id.clone()),
        _ => anyhow::bail!(
            "{archive} holds {} images, all imported now: run one of them by name",
            images.len()
        ),
    }
}

fn spec(args: &Args) -> anyhow::Result<ContainerSpec> {
    Ok(ContainerSpec {
        args: Vec::new(),
        env: args.env.iter().filter_map(|entry| environment(entry)).collect(),
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
        terminal: args.tty,
        stdin: args.interactive,
        network: match args.network {
            Network::None => "none",
            Network::Host => "host",
        }
        .to_owned(),
        volumes: args.volume.iter().map(|volume| bind(volume)).collect::<anyhow::Result<_>>()?,
        read_only: args.read_only,
        memory: args.memory,
        milli_cpus: args.cpus,
        pids_limit: args.pids_limit,
        stop_signal: args.stop_signal.clone(),
    })
}

/// Reads `K=V`; what it means, the driver judges.
fn storage_opt(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not K=V")),
    }
}

fn entrypoint(program: String) -> Vec<String> {
    if program.is_empty() { Vec::new() } else { vec![program] }
}

/// `K=V` as it is; a bare `K` takes this process's value and is left out when there is none.
fn environment(entry: &str) -> Option<String> {
    if entry.contains('=') {
        return Some(entry.to_owned());
    }
    std::env::var(entry).ok().map(|value| format!("{entry}={value}"))
}

/// Checks a volume, and makes its source absolute when it is given relative to here.
fn bind(volume: &str) -> anyhow::Result<String> {
    let bad = || usage(format!("the volume {volume:?} is not SRC:DST[:ro]"));
    let parts: Vec<_> = volume.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [source, destination] => (source, destination, "rw"),
        [source, destination, mode @ ("ro" | "rw")] => (source, destination, mode),
        _ => return Err(bad()),
    };
    if source.is_empty() || !destination.starts_with('/') {
        return Err(bad());
    }
    let source = match source.chars().next() {
        Some('/') => source.to_owned(),
        Some('.') => absolute(Path::new(source))?,
        _ => return Err(usage(format!("the volume {volume:?}: named volumes are not supported"))),
    };
    Ok(match mode {
        "ro" => format!("{source}:{destination}:ro"),
        _ => format!("{source}:{destination}"),
    })
}

/// Runs the runtime as a child, and passes on the signals that would end this process first.
fn attend(runtime: &mut Command) -> std::io::Result<ExitStatus> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let mut child = runtime.spawn()?;
    let handle = signals.handle();
    let pid = pid(&child);
    let forwarder = thread::spawn(move || {
        for signal in signals.forever() {
            // The terminal sends these two to the runtime as well.
            if matches!(signal, SIGINT | SIGQUIT) {
                continue;
            }
            if let (Some(pid), Some(signal)) =
                (pid, rustix::process::Signal::from_named_raw(signal))
            {
                // It may have ended by now.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    });
    let status = child.wait();
    handle.close();
    drop(forwarder.join());
    status
}

fn pid(child: &Child) -> Option<rustix::process::Pid> {
    i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw)
}

/// The runtime's exit code is the container's; a runtime that was killed is told as shells do.
fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_checked() {
        let here = std::env::current_dir().expect("a working directory");
        let here = here.to_str().expect("UTF-8");
        for (volume, expected) in [
            ("/a:/b", Some("/a:/b".to_owned())),
            ("/a:/b:rw", Some("/a:/b".to_owned())),
            ("/a:/b:ro", Some("/a:/b:ro".to_owned())),
            (".:/b:ro", Some(format!("{here}:/b:ro"))),
            ("/a", None),
            ("/a:b", None),
            ("/a:/b:x", None),
            (":/b", None),
            ("data:/b", None),
            ("./does-not-exist:/b", None),
        ] {
            assert_eq!(bind(volume).ok(), expected, "{volume}");
        }
    }

    #[test]
    fn the_environment_is_passed_on_by_name() {
        assert_eq!(environment("A=").as_deref(), Some("A="));
        assert_eq!(environment("LAYERCTL_TEST_UNSET"), None);
        let path = std::env::var("PATH").expect("cargo sets PATH");
        assert_eq!(environment("PATH"), Some(format!("PATH={path}")));
    }

    #[test]
    fn files_are_told_from_image_names() {
        for (argument, expected) in [
            ("Cargo.toml", true),
            ("src", false),
            ("src/main.rs", true),
            ("./missing.tar", true),
            ("/missing.tar", true),
            ("docker.io/library/debian:12", false),
            ("debian", false),
        ] {
            assert_eq!(names_file(argument), expected, "{argument}");
        }
    }

    #[test]
    fn codes_are_passed_through() {
        for (raw, expected) in [(0, 0), (3 << 8, 3), (127 << 8, 127), (9, 137)] {
            let code = code_of(ExitStatus::from_raw(raw));
            assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(expected)), "{raw}");
        }
    }
}
