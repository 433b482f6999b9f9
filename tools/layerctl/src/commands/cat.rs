//! `layerctl cat`: the content of a file in an image, layer or container.

use std::io;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::context::Session;
use crate::inspect::{self, Contents, Subject, split_path};

/// Print the content of a file of an image, layer, container, archive or directory
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where, and which file: debian:12:/etc/os-release, ./image.tar#2:/etc/passwd
    #[arg(value_name = "IMAGE|LAYER:PATH")]
    file: String,
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let (target, path) = split_path(&args.file)?;
    let subject = inspect::open(session, &target)?;
    let mut out = session.out();
    print(&subject, path, &mut out)?;
    io::Write::flush(&mut out)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the content of a regular file, symbolic links followed as in the image.
fn print(subject: &Subject, path: &str, out: &mut dyn io::Write) -> anyhow::Result<()> {
    let tree = subject.tree(Contents::Skip)?;
    let file = tree.lookup_followed(path)?;
    let file = file.with_context(|| format!("{}: {path}: no such file", subject.name))?;
    if !file.facts.is_file() {
        anyhow::bail!("{}: {path}: not a regular file", subject.name);
    }
    let (layer, row) = (file.stored.layer(), file.stored.row());
    let index = &tree.stack().layers()[layer];
    subject.source.read(layer, index, &[row], &mut |_, content| {
        // An error of standard output must stay one: a broken pipe is none of ours.
        io::copy(content, out)?;
        Ok(())
    })
}
