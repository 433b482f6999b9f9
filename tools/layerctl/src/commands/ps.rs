//! `layerctl ps`: containers and their states.

use std::process::ExitCode;

use layerd_api::Container;
use serde_json::{Value, json};

use crate::commands::filter::Filters;
use crate::context::Context;
use crate::names::{familiar, short};
use crate::template::Template;
use crate::{output, units};

const TABLE: &str =
    "table {{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.RunningFor}}\\t{{.Status}}\\t{{.Names}}";
const HEADINGS: &[(&str, &str)] =
    &[("ID", "CONTAINER ID"), ("RunningFor", "CREATED"), ("CreatedAt", "CREATED AT")];
const FILTERS: &[&str] = &["id", "name", "status", "ancestor", "exited"];
/// Characters of a command that are shown unless `--no-trunc`.
const COMMAND: usize = 20;

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    /// id=PREFIX, name=PART, status=STATE, ancestor=IMAGE, exited=CODE; status and exited imply -a
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template: {{.ID}} {{.Image}} {{.Command}} {{.CreatedAt}} {{.RunningFor}} {{.State}}
    /// {{.Status}} {{.Names}}, {{json .}}, `table ...`
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "quiet")]
    format: Option<String>,
}

pub(crate) fn run(context: &Context, args: Args) -> anyhow::Result<ExitCode> {
    let template = match &args.format {
        Some(format) => Template::parse(format)?,
        None if args.quiet => Template::parse("{{.ID}}")?,
        None => Template::parse(TABLE)?,
    };
    let filters = Filters::parse(&args.filter, FILTERS)?;
    let all =
        args.all || !filters.values("status").is_empty() || !filters.values("exited").is_empty();
    let mut containers = context.client.containers(all)?;
    containers.retain(|container| passes(container, &filters));
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &containers)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> =
        containers.iter().map(|c| row(c, args.no_trunc)).collect::<anyhow::Result<_>>()?;
    output::lines(&mut out, &template, HEADINGS, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn passes(container: &Container, filters: &Filters) -> bool {
    filters.any("id", |id| container.id.starts_with(id.as_str()))
        && filters.any("name", |name| container.name.contains(name.as_str()))
        && filters.any("status", |status| container.state == *status)
        && filters.any("ancestor", |image| is_ancestor(container, image))
        && filters.any("exited", |code| {
            container.exit_code.is_some_and(|found| found.to_string() == *code)
        })
}

fn is_ancestor(container: &Container, image: &str) -> bool {
    let name = familiar(&container.image_name);
    let wanted = familiar(image);
    let hex = container.image.split_once(':').map_or("", |(_, hex)| hex);
    let by_id = container.image.starts_with(image) || hex.starts_with(image);
    name == wanted || name.strip_suffix(":latest") == Some(wanted) || (by_id && !image.is_empty())
}

fn row(container: &Container, full: bool) -> anyhow::Result<Value> {
    let command = container.spec.args.join(" ");
    let command = if full { command } else { cut(&command) };
    let image = match container.image_name.as_str() {
        "" => short(&container.image),
        name => familiar(name),
    };
    Ok(json!({
        "ID": if full { &container.id } else { short(&container.id) },
        "Image": image,
        "Command": format!("\"{command}\""),
        "CreatedAt": units::at(Some(&container.created))?,
        "RunningFor": units::ago(Some(&container.created)),
        "State": container.state,
        "Status": status(container),
        "Names": container.name,
    }))
}

fn cut(text: &str) -> String {
    if text.chars().count() <= COMMAND {
        return text.to_owned();
    }
    text.chars().take(COMMAND - 1).chain(['…']).collect()
}

fn status(container: &Container) -> String {
    match container.state.as_str() {
        "running" => format!("Up {}", units::lasted(container.started.as_deref())),
        "exited" => {
            let code = container.exit_code.map_or_else(|| "?".to_owned(), |code| code.to_string());
            format!("Exited ({code}) {}", units::ago(container.finished.as_deref()))
        }
        "created" => "Created".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use layerd_api::ContainerSpec;

    use super::*;

    fn container() -> Container {
        Container {
            id: "ab".repeat(32),
            name: "brave_otter".to_owned(),
            image: format!("sha256:{}", "cd".repeat(32)),
            image_name: "docker.io/library/debian:latest".to_owned(),
            state: "exited".to_owned(),
            exit_code: Some(3),
            pid: None,
            created: "2001-01-01T00:00:00Z".to_owned(),
            started: None,
            finished: Some("2001-01-01T00:00:00Z".to_owned()),
            auto_remove: false,
            spec: ContainerSpec {
                args: vec!["sh".to_owned(), "-c".to_owned(), "x".repeat(30)],
                ..ContainerSpec::default()
            },
            mounts: Vec::new(),
            snapshot: "s".to_owned(),
            driver: "vfs".to_owned(),
            driver_data: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_row_reads_like_dockers() {
        let row = row(&container(), false).expect("a row");
        assert_eq!(row["ID"], "abababababab");
        assert_eq!(row["Image"], "debian:latest");
        assert_eq!(row["Command"], format!("\"sh -c {}…\"", "x".repeat(13)));
        let status = row["Status"].as_str().expect("text");
        assert!(status.starts_with("Exited (3) ") && status.ends_with(" years ago"), "{status}");
    }

    #[test]
    fn filters_of_different_keys_must_all_hold() {
        for (given, expected) in [
            (&["id=abab"][..], true),
            (&["id=b"], false),
            (&["name=otter"], true),
            (&["name=cat", "name=brave"], true),
            (&["status=running"], false),
            (&["exited=3", "status=exited"], true),
            (&["exited=0", "status=exited"], false),
            (&["ancestor=debian"], true),
            (&["ancestor=debian:latest"], true),
            (&["ancestor=cdcd"], true),
            (&["ancestor=deb"], false),
            (&["ancestor="], false),
        ] {
            let filters: Vec<_> = given.iter().map(|&f| f.to_owned()).collect();
            let filters = Filters::parse(&filters, FILTERS).expect("good filters");
            assert_eq!(passes(&container(), &filters), expected, "{given:?}");
        }
    }
}
