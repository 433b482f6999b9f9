//! `layerctl snapshots`: the snapshots in the store, and whose they are.

use std::process::ExitCode;

use layerd_api::{SnapshotInfo, SnapshotScope};
use serde_json::{Value, json};

use crate::context::Context;
use crate::template::Template;
use crate::{output, units};

// Keys come last but for what they lie on: they are of any length, and shown in full, because nothing
// else tells a client which snapshot is meant.
const TABLE: &str = "table {{.Owner}}\\t{{.Kind}}\\t{{.Driver}}\\t{{.Size}}\\t{{.CreatedSince}}\\t\
                     {{.Key}}\\t{{.Parent}}";
const HEADINGS: &[(&str, &str)] = &[("CreatedSince", "CREATED"), ("CreatedAt", "CREATED AT")];
/// What is shown for a size that is not known.
const UNKNOWN: &str = "-";

/// List snapshots
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also those that Docker and containerd keep here
    #[arg(short, long)]
    all: bool,
    /// Print keys only
    #[arg(short, long)]
    quiet: bool,
    /// A template: {{.Key}} {{.Parent}} {{.Kind}} {{.Driver}} {{.Size}} {{.Inodes}} {{.Owner}}
    /// {{.CreatedSince}} {{.CreatedAt}}, {{json .}}, `table ...`
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "quiet")]
    format: Option<String>,
}

pub(crate) fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let template = match &args.format {
        Some(format) => Template::parse(format)?,
        None if args.quiet => Template::parse("{{.Key}}")?,
        None => Template::parse(TABLE)?,
    };
    let scope = if args.all { SnapshotScope::All } else { SnapshotScope::Own };
    let snapshots = context.client.measured_snapshots(scope)?;
    let mut out = context.out();
    if context.json {
        output::json(&mut out, &snapshots)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = snapshots.iter().map(row).collect::<anyhow::Result<_>>()?;
    output::lines(&mut out, &template, HEADINGS, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(snapshot: &SnapshotInfo) -> anyhow::Result<Value> {
    let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    Ok(json!({
        "Key": snapshot.key,
        "Parent": snapshot.parent.as_deref().unwrap_or_default(),
        "Kind": snapshot.kind,
        "Driver": snapshot.driver,
        "Size": known(snapshot.usage.map(|usage| units::size(usage.bytes))),
        "Inodes": known(snapshot.usage.map(|usage| usage.inodes.to_string())),
        "Owner": snapshot.namespace,
        "CreatedSince": units::ago(Some(&snapshot.created)),
        "CreatedAt": units::at(Some(&snapshot.created))?,
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use layerd_api::Usage;

    use super::*;

    #[test]
    fn a_row_tells_whose_a_snapshot_is_and_what_it_takes() {
        let mut snapshot = SnapshotInfo {
            namespace: "containerd/layerd".to_owned(),
            key: "default/1/key".to_owned(),
            parent: None,
            kind: "active".to_owned(),
            driver: "vfs".to_owned(),
            created: "2001-01-01T00:00:00Z".to_owned(),
            updated: "2001-01-01T00:00:00Z".to_owned(),
            labels: BTreeMap::new(),
            usage: Some(Usage { bytes: 1500, inodes: 7 }),
        };
        let known = row(&snapshot).expect("a row");
        assert_eq!(known["Owner"], "containerd/layerd", "{known}");
        assert_eq!((&known["Size"], &known["Inodes"]), (&json!("1.5kB"), &json!("7")), "{known}");
        assert_eq!(known["Parent"], "", "a snapshot without parent: {known}");
        snapshot.usage = None;
        let unknown = row(&snapshot).expect("a row");
        assert_eq!((&unknown["Size"], &unknown["Inodes"]), (&json!("-"), &json!("-")), "{unknown}");
    }
}
