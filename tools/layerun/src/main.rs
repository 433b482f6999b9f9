//! `layerun`: runs one container in the foreground.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use layerd_api::client::{Client, ClientError};
use layerd_api::types::{Container, StateRequest};
use layerun::error::{Error, Result};
use layerun::run::{self, Prepared};
use layerun::spec::{self, CgroupView, Facts};
use layerun::user::Identity;
use layerun::{dirs, seccomp};

/// Where the daemon listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/layerd/layerd.sock";

/// The thin container runtime of layerd.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a created container in the foreground; exits with its exit code.
    ///
    /// Exit codes: the program's own; 128+N when it was killed by signal N; 125 when the runtime
    /// failed; 126 when the program cannot be executed; 127 when there is none.
    Run {
        /// The daemon's socket.
        #[arg(long, default_value = DEFAULT_SOCKET)]
        socket: PathBuf,
        /// Reads the container from a JSON file and reports to nobody, for debugging.
        #[arg(long, hide = true)]
        container_file: Option<PathBuf>,
        /// The container's id.
        #[arg(required_unless_present = "container_file")]
        id: Option<String>,
    },
    /// Prints the OCI runtime description of a container in a JSON file, as far as it can be told
    /// without its root file system, with the system-call filter that it gets.
    Spec {
        /// The file: an object as `GET /v1/containers/{id}` gives it.
        container_file: PathBuf,
    },
    /// Removes what killed runtimes left behind.
    Sweep,
}

fn main() -> ExitCode {
    let code = match Arguments::parse().command {
        Command::Run { socket, container_file, id } => {
            let daemon = Daemon::new(socket, container_file.is_none());
            let container = match (container_file, id) {
                (Some(file), _) => read_container(file),
                (None, id) => daemon.client.container(&id.unwrap_or_default()).map_err(Error::from),
            };
            container.and_then(|container| run(container, &daemon))
        }
        Command::Spec { container_file } => {
            read_container(container_file).and_then(|container| print_spec(&container)).map(|()| 0)
        }
        Command::Sweep => run::sweep(&dirs::base()).map(|ids| {
            ids.iter().for_each(|id| say(&format!("removed leftovers of {id}")));
            0
        }),
    };
    let code = code.unwrap_or_else(|error| {
        say(&error.to_string());
        error.exit_code()
    });
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn run(container: Container, daemon: &Daemon) -> Result<i32> {
    let id = container.id.clone();
    let auto_remove = container.auto_remove;
    let code = live(container, daemon);
    let exit_code = code.as_ref().map_or_else(Error::exit_code, |code| *code);
    if !matches!(code, Err(Error::Running { .. })) {
        daemon.exited(&id, exit_code, auto_remove);
    }
    code
}

fn live(container: Container, daemon: &Daemon) -> Result<i32> {
    let id = container.id.clone();
    let running = Prepared::new(container, &dirs::base())?.create()?.start()?;
    if !daemon.running(&id, running.pid()) {
        running.kill()?;
    }
    let over = running.finish()?;
    // The container's exit code is its own all the same.
    over.failures.iter().for_each(|error| say(&format!("container {id}: {error}")));
    Ok(over.code)
}

/// The state of a container that is over, as the daemon spells it.
const EXITED: &str = "exited";

/// Who is told what becomes of the container. That nobody listens does not end it: the daemon may
/// be restarted meanwhile.
struct Daemon {
    client: Client,
    listens: bool,
}

impl Daemon {
    fn new(socket: PathBuf, listens: bool) -> Self {
        Self { client: Client::new(socket), listens }
    }

    /// Returns whether the container is still to run: it may have been removed before anybody could know that it
    /// does.
    fn running(&self, id: &str, pid: i32) -> bool {
        self.report(id, &StateRequest { state: "running".into(), pid: Some(pid), exit_code: None })
    }

    fn exited(&self, id: &str, code: i32, remove: bool) {
        self.report(id, &StateRequest { state: EXITED.into(), pid: None, exit_code: Some(code) });
        if remove && self.listens {
            match patient(|| self.client.remove_container(id, true)) {
                Err(error) if !error.is_not_found() => {
                    say(&format!("remove container {id}: {error}"));
                }
                _ => {}
            }
        }
    }

    /// Returns whether there is such a container, as far as anybody says.
    fn report(&self, id: &str, state: &StateRequest) -> bool {
        if !self.listens {
            return true;
        }
        match patient(|| self.client.set_container_state(id, state)) {
            Ok(_) => true,
            // Whoever removed it knows.
            Err(error) if error.is_not_found() => false,
            Err(error) => {
                say(&format!("report that container {id} is {}: {error}", state.state));
                true
            }
        }
    }
}

/// Asks again when a connection broke: one that was kept open while the container ran may have been
/// closed at the other end just now. All that is asked here may be asked twice.
fn patient<T>(ask: impl Fn() -> Result<T, ClientError>) -> Result<T, ClientError> {
    match ask() {
        Err(ClientError::Transport { .. }) => ask(),
        answer => answer,
    }
}

fn read_container(path: PathBuf) -> Result<Container> {
    let file = File::open(&path).map_err(|source| Error::Io {
        operation: "open",
        path: path.clone(),
        source,
    })?;
    serde_json::from_reader(BufReader::new(file)).map_err(|source| Error::Json {
        operation: "read",
        path,
        source,
    })
}

fn print_spec(container: &Container) -> Result<()> {
    let facts = Facts {
        rootfs: dirs::base().join(&container.id).join("rootfs"),
        identity: Identity { uid: 0, gid: 0, groups: vec![0], home: "/root".to_owned() },
        files: Vec::new(),
        cgroups: CgroupView::Unified,
        guards_devices: true,
        cgroup_namespace: true,
    };
    let mut spec = spec::build(container, &facts)?;
    let filter = seccomp::default_profile()?;
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(Some(filter));
    }
    let text = serde_json::to_string_pretty(&spec).map_err(|source| Error::Json {
        operation: "write",
        path: "standard output".into(),
        source,
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").map_err(|source| Error::System { operation: "print", source })
}

fn say(message: &str) {
    let _ = writeln!(io::stderr(), "layerun: {message}");
}
