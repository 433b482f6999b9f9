//! `layerctl diff`: how two images, layers, containers, archives or directories differ, or what a
//! container changed.

pub(crate) mod render;
pub(crate) mod report;

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use cow::compare::Differences;

use crate::context::Session;
use crate::exit::usage;
use crate::inspect::{self, Target};
use crate::names::printable;
use crate::output;
use crate::template::Template;

/// Show how two things differ (A added, C changed, D deleted), or what a container changed
///
/// Each of A and B is an image, layer (IMAGE#NUMBER) or container, or an archive, OCI layout or
/// directory. Exit code 0, whatever is found.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sizes before and after, and totals
    #[arg(long, requires = "b")]
    stat: bool,
    /// A unified diff of text files
    #[arg(long, conflicts_with = "stat", requires = "b")]
    content: bool,
    /// Paths only
    #[arg(long, conflicts_with_all = ["stat", "content"], requires = "b")]
    name_only: bool,
    /// Differences that do not count
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',', requires = "b")]
    ignore: Vec<What>,
    /// A template: {{.Change}} {{.Path}} {{.What}} {{.OldSize}} {{.NewSize}} {{.Bytes}}
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["stat", "content", "name_only"], requires = "b")]
    format: Option<String>,
    /// A container for its changes, or the first of two
    #[arg(value_name = "A")]
    a: String,
    /// The second
    #[arg(value_name = "B")]
    b: Option<String>,
}

/// What may be left out of account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Time,
    Owner,
    Mode,
    Xattrs,
}

impl What {
    fn difference(self) -> Differences {
        match self {
            Self::Time => Differences::MTIME,
            Self::Owner => Differences::OWNER,
            Self::Mode => Differences::MODE,
            Self::Xattrs => Differences::XATTRS,
        }
    }
}

pub(crate) fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let Some(b) = &args.b else { return container(session, &args.a) };
    let (a, b) = inspect::open_both(session, &Target::parse(&args.a)?, &Target::parse(b)?)?;
    let ignored = args.ignore.iter().map(|what| what.difference());
    let ignored = ignored.fold(Differences::NONE, Differences::with);
    let report = report::gather(&a, &b, ignored, args.content)?;
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &report)?;
    } else if let Some(template) = template {
        let values: Vec<_> = report.changes.iter().map(render::value).collect();
        output::lines(&mut out, &template, &[], &values)?;
    } else if args.name_only {
        for change in &report.changes {
            writeln!(out, "{}", printable(&change.path))?;
        }
    } else if args.content {
        render::contents(&mut out, &report)?;
    } else if args.stat {
        render::stat(&mut out, &report)?;
    } else {
        render::list(&mut out, &report)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn container(session: &Session, name: &str) -> anyhow::Result<ExitCode> {
    if Target::parse(name)?.file.is_some() {
        return Err(usage(format!(
            "{name} and what? Of one thing a container's changes are shown"
        )));
    }
    let changes = session.context()?.client.container_changes(name)?;
    let mut out = session.out();
    if session.json {
        output::json(&mut out, &changes)?;
        return Ok(ExitCode::SUCCESS);
    }
    for change in changes {
        writeln!(out, "{} {}", change.kind, printable(&change.path))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
