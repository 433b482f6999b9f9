//! The system-call filter: Docker's default profile.
//!
//! What is not named fails with `EPERM`; see Docker's "Seccomp security profiles for Docker" for
//! what is left out and why. The [table] is the one for [the default
//! capabilities](crate::spec::CAPABILITIES): calls that Docker allows only with a capability which
//! containers here do not get (mounting, modules, clocks, bpf, tracing of foreign processes) are
//! absent.
//!
//! The program is compiled by the build script and loaded as it is, by [`install`], as the very
//! last step before the container's program: an OCI description that named the same profile would
//! have it compiled at every start. [`default_profile`] gives that description, to be looked at.

pub mod table;

use std::io;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use seccompiler::sock_filter;

use crate::error::Result;
use table::{
    AF_VSOCK, ALLOWED, ALLOWED_ARM64, ALLOWED_X86, CLONE_NAMESPACES, ENOSYS, EPERM, PERSONALITIES,
};

/// The compiled filter: `struct sock_filter` one after the other, in this machine's byte order.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seccomp.bpf"));

/// Puts the filter on this thread, for good, and turns `no_new_privs` on, which it needs.
///
/// # Errors
///
/// What the kernel said; `EINVAL` if it was built without filters.
pub fn install() -> io::Result<()> {
    seccompiler::apply_filter(&program()).map_err(io::Error::other)
}

fn program() -> Vec<sock_filter> {
    let instructions = PROGRAM.chunks_exact(size_of::<sock_filter>());
    instructions
        .map(|bytes| sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect()
}

/// The filter in the words of the OCI runtime-spec, for the architecture of this build.
///
/// # Errors
///
/// [`crate::Error::Spec`], which would be a defect of this module.
pub fn default_profile() -> Result<LinuxSeccomp> {
    let (architectures, more) = match std::env::consts::ARCH {
        "x86_64" => (vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32], ALLOWED_X86),
        "aarch64" => (vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm], ALLOWED_ARM64),
        _ => (vec![Arch::ScmpArchNative], &[][..]),
    };
    let mut syscalls = vec![allow(ALLOWED.iter().chain(more), None)?];
    for personality in PERSONALITIES {
        let argument = compare(LinuxSeccompOperator::ScmpCmpEq, *personality, None)?;
        syscalls.push(allow(["personality"].iter(), Some(argument))?);
    }
    let not_vsock = compare(LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK, None)?;
    syscalls.push(allow(["socket"].iter(), Some(not_vsock))?);
    let masked = LinuxSeccompOperator::ScmpCmpMaskedEq;
    let no_namespace = compare(masked, CLONE_NAMESPACES, Some(0))?;
    syscalls.push(allow(["clone"].iter(), Some(no_namespace))?);
    let clone3 = LinuxSyscallBuilder::default()
        .names(vec!["clone3".to_owned()])
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(ENOSYS.unsigned_abs())
        .build()?;
    syscalls.push(clone3);
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM.unsigned_abs())
        .architectures(architectures)
        .syscalls(syscalls)
        .build()?;
    Ok(profile)
}

fn allow<'a>(
    names: impl Iterator<Item = &'a &'a str>,
    argument: Option<LinuxSeccompArg>,
) -> Result<LinuxSyscall> {
    let names: Vec<_> = names.map(|name| (*name).to_owned()).collect();
    let call = LinuxSyscallBuilder::default().names(names);
    let call = call.action(LinuxSeccompAction::ScmpActAllow);
    let call = match argument {
        Some(argument) => call.args(vec![argument]),
        None => call,
    };
    Ok(call.build()?)
}

/// A condition on a call's first argument.
fn compare(
    op: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> Result<LinuxSeccompArg> {
    let argument = LinuxSeccompArgBuilder::default().index(0_usize).op(op).value(value);
    let argument = match value_two {
        Some(value_two) => argument.value_two(value_two),
        None => argument,
    };
    Ok(argument.build()?)
}

#[cfg(test)]
mod tests;
