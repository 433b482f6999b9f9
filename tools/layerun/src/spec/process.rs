//! The container's process: arguments, environment, identity, capabilities.

use std::collections::HashSet;
use std::path::PathBuf;

use layerd_api::types::{Container, ContainerSpec};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, Process, ProcessBuilder,
    UserBuilder,
};

use super::{Facts, hostname};
use crate::error::{Error, Result};

/// `PATH` where the image sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's default capabilities.
pub const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The working directory, absolute.
///
/// # Errors
///
/// [`Error::Invalid`] for a relative one.
pub fn working_dir(spec: &ContainerSpec) -> Result<PathBuf> {
    match spec.cwd.as_str() {
        "" => Ok(PathBuf::from("/")),
        path if path.starts_with('/') => Ok(PathBuf::from(path)),
        path => Err(Error::invalid("working directory", path, "must be an absolute path")),
    }
}

pub(super) fn build(container: &Container, facts: &Facts) -> Result<Process> {
    let spec = &container.spec;
    if spec.args.is_empty() || spec.args[0].is_empty() {
        return Err(Error::invalid("command", "", "no command specified"));
    }
    if spec.args.iter().chain(&spec.env).any(|text| text.contains('\0')) {
        return Err(Error::invalid("command", "", "a NUL byte in an argument or the environment"));
    }
    let identity = &facts.identity;
    let user = UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.groups.clone())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(spec.terminal)
        .user(user)
        .args(spec.args.clone())
        .env(environment(container, &identity.home))
        .cwd(working_dir(spec)?)
        .capabilities(capabilities(facts.guards_devices)?)
        .no_new_privileges(true)
        .build()?;
    process.set_rlimits(None);
    Ok(process)
}

/// Docker's order: the defaults first, each in place of which the container may put its own.
fn environment(container: &Container, home: &str) -> Vec<String> {
    let mut env: Vec<String> =
        vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={}", hostname(container))];
    if container.spec.terminal {
        env.push("TERM=xterm".to_owned());
    }
    for variable in &container.spec.env {
        let name = name(variable);
        // A word without `=` is no variable; docker takes it from the client before it comes here.
        if name.is_empty() || name.len() == variable.len() {
            continue;
        }
        match env.iter_mut().find(|other| self::name(other) == name) {
            Some(other) => other.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    match env.iter_mut().find(|other| name(other) == "HOME") {
        Some(other) if other.len() > "HOME=".len() => {}
        Some(other) => *other = format!("HOME={home}"),
        None => env.push(format!("HOME={home}")),
    }
    env
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// Nothing inheritable (CVE-2022-24769) and nothing ambient: another user than root starts with none.
fn capabilities(guards_devices: bool) -> Result<LinuxCapabilities> {
    let all = CAPABILITIES.into_iter();
    let set: Capabilities =
        all.filter(|capability| guards_devices || *capability != Capability::Mknod).collect();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()?;
    Ok(capabilities)
}
