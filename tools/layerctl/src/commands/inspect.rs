//! `layerctl inspect`: all that is known of images, layers and containers.

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::Value;

use crate::context::Context;
use crate::exit::{FAILED, tell};
use crate::inspect::{find_layer, known};
use crate::names::printable;
use crate::output;
use crate::template::Template;

/// Show all that is known of images, layers and containers, as JSON
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
    Layer,
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
        Some(Kind::Layer) => "layer",
        None => "container, image or layer",
    }
}

/// A container of that name, else an image, else a layer of images by the beginning of an id.
fn find(context: &Context, name: &str, kind: Option<Kind>) -> anyhow::Result<Option<Value>> {
    let wanted = |this| kind.is_none_or(|kind| kind == this);
    if wanted(Kind::Container)
        && let Some(container) = known(context.client.container(name))?
    {
        return Ok(Some(serde_json::to_value(container)?));
    }
    if wanted(Kind::Image)
        && let Some(image) = known(context.client.image(name))?
    {
        return Ok(Some(serde_json::to_value(image)?));
    }
    if wanted(Kind::Layer)
        && let Some(layer) = find_layer(&context.client, name)?
    {
        return Ok(Some(serde_json::to_value(layer)?));
    }
    Ok(None)
}
