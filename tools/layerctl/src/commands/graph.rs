//! `layerctl graph`: which images and containers share which layers.

use std::process::ExitCode;

use crate::context::Session;
use crate::exit::usage;
use crate::graph::{self, Graph};
use crate::inspect::Target;
use crate::output;
use crate::save::Output;

/// How a graph is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A picture
    Svg,
    /// The language of graphviz
    Dot,
}

/// Draw the layers of the store and the images and containers that share them
///
/// Without -o, or with -o -, to standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
    /// How; else as the file's name says, svg unless it ends in .dot or .gv
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only these images, with their containers
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

impl Args {
    fn format(&self) -> Format {
        let named = || {
            let extension = self.output.file()?.extension()?;
            (extension == "dot" || extension == "gv").then_some(Format::Dot)
        };
        self.format.or_else(named).unwrap_or(Format::Svg)
    }
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    for name in &args.images {
        if Target::parse(name)?.file.is_some() {
            return Err(usage(format!("graph draws what the store keeps: import {name} first")));
        }
    }
    let graph = Graph::of(&session.context()?.client, &args.images)?;
    let mut content = Vec::new();
    if session.json {
        output::json(&mut content, &graph)?;
    } else {
        content = match args.format() {
            Format::Svg => graph::svg(&graph),
            Format::Dot => graph::dot(&graph),
        }
        .into_bytes();
    }
    args.output.write(session, &content)?;
    Ok(ExitCode::SUCCESS)
}
