//! What user-mode Linux needs on processors with more vector registers than it knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Finish as _;

/// Processor flags of registers that user-mode Linux 6.1 does not know.
const UNKNOWN: [&str; 3] = ["avx512f", "pku", "amx_tile"];

/// The library to preload to `linux.uml`, built in `dir`; none where the processor needs none.
///
/// # Panics
/// When the compiler that links Rust programs does not make it.
pub(crate) fn library(dir: &Path) -> Option<PathBuf> {
    let cpus = fs::read_to_string("/proc/cpuinfo").expect("/proc/cpuinfo");
    let flags = cpus.lines().find(|line| line.starts_with("flags"))?;
    flags.split_whitespace().find(|flag| UNKNOWN.contains(flag))?;
    let (source, library) = (dir.join("xstate.c"), dir.join("xstate.so"));
    fs::write(&source, include_str!("xstate.c")).expect("the source");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
    compiler.finish().ok();
    Some(library)
}
