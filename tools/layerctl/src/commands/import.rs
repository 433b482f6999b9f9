//! `layerctl import`: an archive or layout becomes images of the store.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use layerd_api::{ImageSummary, ImportRequest};

use crate::context::Context;
use crate::names::{familiar, printable};
use crate::{output, progress};

/// Import a docker-archive, OCI archive or layout, or a tar of a root file system
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The archive or layout directory
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// The driver that keeps the layers; the daemon's default otherwise
    #[arg(long)]
    driver: Option<String>,
    /// A name for the image, in place of those in the archive
    #[arg(long, value_name = "REF")]
    name: Option<String>,
    /// The platform to choose, os/arch[/variant]; the host's otherwise
    #[arg(long)]
    platform: Option<String>,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let request = ImportRequest {
        path: absolute(&args.path)?,
        name: args.name,
        driver: args.driver,
        platform: args.platform,
    };
    let images = progress::import(&context.client, &request)?;
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &images)?;
    } else {
        render(&mut out, &images)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(out: &mut impl Write, images: &[ImageSummary]) -> anyhow::Result<()> {
    for image in images {
        for name in &image.names {
            writeln!(out, "Loaded image: {}", printable(familiar(name)))?;
        }
        if image.names.is_empty() {
            writeln!(out, "Loaded image ID: {}", image.id)?;
        }
    }
    Ok(out.flush()?)
}

/// The path as the daemon, which has another working directory, must be told it.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<String> {
    let absolute = path.canonicalize().with_context(|| format!("open {}", path.display()))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))
}
