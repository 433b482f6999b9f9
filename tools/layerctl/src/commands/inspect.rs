//! `layerctl inspect`: all that is known of images and containers.

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use layerd_api::ClientError;
use serde_json::Value;

use crate::context::Context;
use crate::exit::{FAILED, tell};
use crate::names::printable;
use crate::output;
use crate::template::Template;

/// Show all that is known of images and containers, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Look for this kind only
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<Kind>,
    /// A template: {{.state}}, {{.spec.args}}, {{json .}}
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names, ids or id prefixes
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Container,
    Image,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let mut found = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for name in &args.names {
        match find(context, name, args.kind)? {
            Some(object) => found.push(object),
            None => {
                tell(&format!("no such {}: {}", what(args.kind), printable(name)));
                code = ExitCode::from(FAILED);
            }
        }
    }
    let mut out = context.out();
    match template {
        None => output::json(&mut out, &found)?,
        Some(template) => output::lines(&mut out, &template, &[], &found)?,
    }
    out.flush()?;
    Ok(code)
}

fn what(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Container) => "container",
        Some(Kind::Image) => "image",
        None => "container or image",
    }
}

/// A container of that name, else an image.
fn find(context: &Context, name: &str, kind: Option<Kind>) -> anyhow::Result<Option<Value>> {
    if kind != Some(Kind::Image)
        && let Some(container) = known(context.client.container(name))?
    {
        return Ok(Some(serde_json::to_value(container)?));
    }
    if kind != Some(Kind::Container)
        && let Some(image) = known(context.client.image(name))?
    {
        return Ok(Some(serde_json::to_value(image)?));
    }
    Ok(None)
}

fn known<T>(answer: Result<T, ClientError>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
