//! Compiles the system-call filter to a BPF program that `src/seccomp/mod.rs` includes.
//!
//! libseccomp takes some 10 ms for Docker's profile on three architectures, which is more than the
//! rest of a container's start together; the program never changes, so that is paid here.

use std::env;
use std::error::Error;
use std::fs::File;
use std::path::Path;

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

// Not everything in it is for both readers.
#[allow(dead_code, unreachable_pub)]
#[path = "src/seccomp/table.rs"]
mod table;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/seccomp/table.rs");
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let out = env::var("OUT_DIR")?;
    let program = File::create(Path::new(&out).join("seccomp.bpf"))?;
    filter(&arch)?.export_bpf(&program)?;
    Ok(())
}

fn filter(arch: &str) -> Result<ScmpFilterContext, Box<dyn Error>> {
    let (architectures, more) = match arch {
        "x86_64" => (vec![ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32], table::ALLOWED_X86),
        "aarch64" => (vec![ScmpArch::Aarch64, ScmpArch::Arm], table::ALLOWED_ARM64),
        other => return Err(format!("no system-call filter for {other}").into()),
    };
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(table::EPERM))?;
    filter.remove_arch(ScmpArch::Native)?;
    for architecture in architectures {
        filter.add_arch(architecture)?;
    }
    // A binary tree: the kernel runs the program once for every call's number when it is loaded.
    filter.set_ctl_optimize(2)?;
    for name in table::ALLOWED.iter().chain(more) {
        // A name that this libseccomp does not know stays refused.
        if let Ok(call) = ScmpSyscall::from_name(name) {
            filter.add_rule(ScmpAction::Allow, call)?;
        }
    }
    let personality = ScmpSyscall::from_name("personality")?;
    for value in table::PERSONALITIES {
        let same = ScmpArgCompare::new(0, ScmpCompareOp::Equal, *value);
        filter.add_rule_conditional(ScmpAction::Allow, personality, &[same])?;
    }
    let other = ScmpArgCompare::new(0, ScmpCompareOp::NotEqual, table::AF_VSOCK);
    filter.add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name("socket")?, &[other])?;
    let none = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(table::CLONE_NAMESPACES), 0);
    filter.add_rule_conditional(ScmpAction::Allow, ScmpSyscall::from_name("clone")?, &[none])?;
    let clone3 = ScmpSyscall::from_name("clone3")?;
    filter.add_rule(ScmpAction::Errno(table::ENOSYS), clone3)?;
    Ok(filter)
}
