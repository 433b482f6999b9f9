//! `layerctl info`: the daemon and its drivers.

use std::io::Write;
use std::process::ExitCode;

use layerd_api::Info;

use crate::context::Context;
use crate::names::printable;
use crate::output;

/// Show the daemon, what it holds, and the state of its drivers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context, _: Args) -> anyhow::Result<ExitCode> {
    let info = context.client.info()?;
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &info)?;
    } else {
        render(&mut out, &info)?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(out: &mut impl Write, info: &Info) -> std::io::Result<()> {
    writeln!(out, "Version: {}", printable(&info.version))?;
    writeln!(out, "Root: {}", printable(&info.root))?;
    writeln!(out, "Images: {}", info.images)?;
    writeln!(out, "Layers: {}", info.layers)?;
    writeln!(out, "Containers: {}", info.containers)?;
    writeln!(out, "Default Driver: {}", printable(&info.driver))?;
    for (driver, rows) in &info.drivers {
        writeln!(out, "Driver {}:", printable(driver))?;
        for (name, value) in rows {
            writeln!(out, "  {}: {}", printable(name), printable(value))?;
        }
    }
    Ok(())
}
